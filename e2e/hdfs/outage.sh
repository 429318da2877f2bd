#!/bin/bash
# outage.sh [CASE...]: `basalt demo` on an HDFS that accepts no changes for a while, FAULT_COUNT
# times per case (default 2). No process of Basalt is killed. Its logs are rolled every MB, so that
# it needs the NameNode all the time. Fails if an acknowledged write is lost, or if a write outage
# exceeds the limit.
#   safe-mode  the NameNode rejects changes for 10 s: write outage of 1 s at most
#   name-node  the NameNode is killed, and started again 10 s later: 1 s
#   full       the disks of all DataNodes are full for 20 s: region servers end themselves and wait at
#              their start; writes are back 10 s after there is space again. Needs root, for small disks
# BASALT: the binary; RESULTS: a folder for results and pages.
# Blocks are small here, because a DataNode reserves a whole block for each file that is being
# written.
set -euo pipefail
export LAB_INSTANCE=${LAB_INSTANCE:-hdfs-outage} PORT_BASE=${PORT_BASE:-23000}
export EXTRA_HDFS="dfs.blocksize=16777216
  dfs.datanode.round-robin-volume-choosing-policy.additional-available-space=0"
. "$(dirname "$(readlink -f "$0")")/env.sh"
cd "$E2E_HDFS/../.."
BASALT=${BASALT:-${CARGO_TARGET_DIR:-target}/release/basalt}
results=${RESULTS:-$LAB/results}
node=$E2E_HDFS/node.sh

# The fault, from the beginning of the outage to its end.
inject() {
  local i
  case $1 in
    safe-mode) "$node" enter-safe-mode nn; sleep 10; "$node" leave-safe-mode nn ;;
    name-node) "$node" kill nn; sleep 10; "$node" start nn; wait_data_nodes ;;
    full)
      for i in $(seq "$DATA_NODES"); do "$node" fill "$i"; done
      sleep 20
      for i in $(seq "$DATA_NODES"); do rm "$LAB/data/dn$i/ballast"; done ;;
  esac
}

case ${1:-} in
  inject) inject "$2"; exit ;;
esac
mkdir -p "$results"
trap '"$E2E_HDFS/down.sh"' EXIT
write_rolling_manifest "$results/manifest.yaml" "$HDFS_HOST:$NAME_NODE_PORT"
for case in "${@:-safe-mode}"; do
  case $case in
    safe-mode|name-node) bar_ms=1000 ;;
    full) bar_ms=30000 ;;
    *) fail "no such case: $case" ;;
  esac
  "$E2E_HDFS/down.sh"
  CLEAN=1 "$E2E_HDFS/up.sh"
  if [ "$case" = full ]; then
    for i in $(seq "$DATA_NODES"); do "$node" small "$i"; done
    wait_data_nodes
  fi
  echo "== $case"
  data=$results/$case-data
  rm -rf "$data"
  "$BASALT" demo -f "$results/manifest.yaml" --hdfs-conf "$LAB/conf/hdfs" --kills "${FAULT_COUNT:-2}" --fault none \
    --fault-command "'$E2E_HDFS/outage.sh' inject $case" --data "$data" \
    --json "$results/$case.json" --report "$results/$case.html"
  [ "$case" = full ] || none_died "$data/logs"
  python3 "$E2E_HDFS/judge.py" "$results/$case.json" "$bar_ms" "$bar_ms"
done
