#!/bin/bash
# hbase.sh [MODE...]: what the deaths of demo.sh cost Apache HBase, measured by the same probe: one
# kill -9 of a region server, then one of a region server and a DataNode. Each MODE is a cluster of
# its own (ZooKeeper, HDFS, 2 masters, 3 region servers), started for it and stopped after it. It
# fails when an acknowledged write is lost; there is no bar for the time.
#   default  settings as Hadoop and HBase come: session of 90 s
#   tuned    the known advice (MODE=tuned of e2e/lab/hbase): session of 20 s, stale DataNodes avoided
#   short    the advice, a session of 6 s, and HDFS with the settings that Basalt runs on (env.sh)
# BASALT: the binary; FAULTS: which, of `kill machine`. Figures as JSON in $RESULTS.
set -euo pipefail
export LAB_INSTANCE=${LAB_INSTANCE:-hdfs-hbase} PORT_BASE=${PORT_BASE:-25000}
. "$(dirname "$(readlink -f "$0")")/env.sh"
cd "$E2E_HDFS/../.."
BASALT=${BASALT:-${CARGO_TARGET_DIR:-target}/release/basalt}
results=${RESULTS:-$LAB/results}
first_region_server=$(($(region_server_port 1) - 1))

# inject kill|machine HOST:PORT: ends the region server there, and for `machine` the DataNode of its number.
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
