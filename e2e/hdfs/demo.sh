#!/bin/bash
# demo.sh [CASE...]: `basalt demo` on a real HDFS. Starts HDFS first and stops it afterwards
# (KEEP=1: keeps it running; UP=1: it is already running). Fails if an acknowledged write is lost,
# or if an outage exceeds a limit of the failover target. Writes results as JSON and pages to
# $RESULTS (default: in the lab's folder).
#   kill       9 times kill -9 of a region server: outage p50 <= 1 s, max <= 2.5 s
#   machine    9 times kill -9 of a region server and a DataNode at once: p50 <= 3 s
#   unflushed  9 times the same with 512 MB unflushed: max <= 5 s
# KILLS: a different number of kills; BASALT: the binary (default: the release build, which is built
# first).
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
cd "$E2E_HDFS/../.."
results=${RESULTS:-$LAB/results}
mkdir -p "$results"
if [ -z "${BASALT:-}" ]; then
  cargo build --release -p basalt
  BASALT=${CARGO_TARGET_DIR:-target}/release/basalt
fi
if [ "${UP:-}" != 1 ]; then
  [ "${KEEP:-}" = 1 ] || trap '"$E2E_HDFS/down.sh"' EXIT
  CLEAN=${CLEAN:-1} "$E2E_HDFS/up.sh"
fi

# demo CASE P50_MS MAX_MS OPTION...
demo() {
  local name=$1 p50_max=$2 max_max=$3 json=$results/$1.json
  shift 3
  echo "== $name"
  "$BASALT" demo --hdfs-conf "$LAB/conf/hdfs" --json "$json" --report "$results/$name.html" "$@"
  python3 "$E2E_HDFS/judge.py" "$json" "$p50_max" "$max_max"
}

# The DataNodes are killed in turn with the region servers, and are back before the next fault. By
# then, logs that were created on two DataNodes have been followed by others (see docs/hdfs.md,
# Limitations).
fault='"$E2E_HDFS/node.sh" kill $((FAULT % DATA_NODES + 1))'
repair='"$E2E_HDFS/node.sh" start $((FAULT % DATA_NODES + 1)); sleep 25'
export E2E_HDFS DATA_NODES
for case in "${@:-kill}"; do
  case $case in
    kill) demo kill 1000 2500 --kills "${KILLS:-9}" ;;
    machine)
      demo machine 3000 10000 --kills "${KILLS:-9}" --fault-command "$fault" --repair-command "$repair" ;;
    unflushed)
      demo unflushed 5000 5000 --kills "${KILLS:-9}" --unflushed-mb 512 \
        --fault-command "$fault" --repair-command "$repair" ;;
    *) fail "no such case: $case" ;;
  esac
done
