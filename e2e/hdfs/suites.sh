#!/bin/bash
# suites.sh [SUITE...]: the suites that run on a real HDFS, one after the other. Each starts the
# HDFS that it needs.
#   tests    the tests of crates/hdfs (run.sh); BASALT_HDFS_RUNS: repetitions of each fencing case
#   kill     basalt demo: a region server dies; KILLS times
#   machine  a region server and a DataNode at once
#   java     the stock Java client, and Apache HBase's tool on the store files (../run-java-client.sh)
#   rack     one of two racks of DataNodes is cut off, alone and with a region server; FAULT_COUNT times each
#   outage   the NameNode in safe mode, the NameNode killed, all disks full; FAULT_COUNT times each
#   ha       two NameNodes, and the active one dies; FAULT_COUNT times
#   chaos    processes of Basalt, DataNodes and the NameNode under random faults; MINUTES
# BASALT: the binary; RESULTS: a folder for logs and reports (default: a new one under /tmp).
# Prints "[hdfs] ok SUITE" or "[hdfs] FAILED SUITE". Exits with 0 only if every suite is ok.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
export RESULTS=${RESULTS:-$(mktemp -d /tmp/basalt-hdfs.XXXXXX)}
export BASALT=${BASALT:?the binary}
mkdir -p "$RESULTS"
failed=0

suite() {
  case $1 in
    tests) "$E2E_HDFS/run.sh" ;;
    kill|machine) "$E2E_HDFS/demo.sh" "$1" ;;
    java)
      trap '"$E2E_HDFS/down.sh"' EXIT
      CLEAN=1 "$E2E_HDFS/up.sh"
      # One registry: the other way to connect is the same on any storage.
      HDFS_CONF=$LAB/conf/hdfs TARGET=basalt REGISTRIES=zk RESULTS=$RESULTS/java \
        "$E2E_HDFS/../run-java-client.sh" ;;
    rack) LAB_INSTANCE=hdfs-rack "$E2E_HDFS/rack.sh" rack server ;;
    outage) LAB_INSTANCE=hdfs-outage PORT_BASE=23000 "$E2E_HDFS/outage.sh" safe-mode name-node full ;;
    ha) LAB_INSTANCE=hdfs-ha PORT_BASE=31000 "$E2E_HDFS/ha.sh" ;;
    chaos) LAB_INSTANCE=hdfs-chaos "$E2E_HDFS/chaos.sh" ;;
    *) fail "no such suite: $1" ;;
  esac
}

for name in "${@:-tests}"; do
  from=$SECONDS
  # In its own shell and not in a condition. Otherwise a failed command in the suite would not end
  # the suite.
  set +e
  (set -e; suite "$name") >"$RESULTS/$name.log" 2>&1
  code=$?
  set -e
  if [ "$code" -eq 0 ]; then
    echo "[hdfs] ok $name ($((SECONDS - from)) s)"
  else
    echo "[hdfs] FAILED $name ($((SECONDS - from)) s), log: $RESULTS/$name.log"
    tail -n 20 "$RESULTS/$name.log"
    failed=1
  fi
done
echo "results: $RESULTS"
exit "$failed"
