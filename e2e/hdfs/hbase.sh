#!/bin/bash
# hbase.sh [MODE...]: the cost of the deaths in demo.sh for Apache HBase, measured by the same
# probe: one kill -9 of a region server, then one of a region server and a DataNode. Each MODE is a
# separate cluster (ZooKeeper, HDFS, 2 masters, 3 region servers), started first and stopped
# afterwards. Fails if an acknowledged write is lost; there is no limit for the time.
#   default  the default settings of Hadoop and HBase: session of 90 s
#   tuned    the common advice (MODE=tuned of e2e/lab/hbase): session of 20 s, stale DataNodes avoided
#   short    the advice, a session of 6 s, and HDFS with the settings that Basalt uses (env.sh)
# BASALT: the binary; FAULTS: a selection of `kill machine`. Writes results as JSON to $RESULTS.
set -euo pipefail
export LAB_INSTANCE=${LAB_INSTANCE:-hdfs-hbase} PORT_BASE=${PORT_BASE:-25000}
. "$(dirname "$(readlink -f "$0")")/env.sh"
cd "$E2E_HDFS/../.."
BASALT=${BASALT:-${CARGO_TARGET_DIR:-target}/release/basalt}
results=${RESULTS:-$LAB/results}
first_region_server=$(($(region_server_port 1) - 1))

# inject kill|machine HOST:PORT: kills the region server there, and for `machine` also the DataNode
# with the same number.
inject() {
  local i=$((${2##*:} - first_region_server))
  [ "$1" = kill ] || send "dn$i" KILL
  send "rs$i" KILL
}
repair() {
  local i=$((${2##*:} - first_region_server))
  [ "$1" = kill ] || start_data_node "$i"
  start_region_server "$i"
}

case ${1:-} in
  inject|repair) "$@"; exit ;;
esac
mkdir -p "$results" "$LAB/conf"
for mode in ${*:-default tuned short}; do
  case $mode in
    default|tuned) export MODE=$mode HEARTBEAT_S=3; unset SESSION_MS; rm -f "$LAB/conf/extra-hdfs.xml" ;;
    short) export MODE=tuned HEARTBEAT_S=1 SESSION_MS=6000; write_settings ;;
    *) fail "no such mode: $mode (modes: default, tuned, short)" ;;
  esac
  trap 'KILL=1 "$LAB_SCRIPTS/down.sh"' EXIT
  CLEAN=1 "$LAB_SCRIPTS/up.sh" zk hdfs hbase
  for fault in ${FAULTS:-kill machine}; do
    echo "== Apache HBase, $mode: $fault"
    "$BASALT" probe --zk "127.0.0.1:$ZK_PORT" --faults 1 --calm 10s \
      --fault-command "'$E2E_HDFS/hbase.sh' inject $fault \$VICTIM" \
      --repair-command "'$E2E_HDFS/hbase.sh' repair $fault \$VICTIM" \
      --json "$results/hbase-$mode-$fault.json"
    python3 "$E2E_HDFS/judge.py" "$results/hbase-$mode-$fault.json" 600000 600000
  done
  KILL=1 "$LAB_SCRIPTS/down.sh"
done
