#!/bin/bash
# bench.sh: `basalt bench` of Basalt and Apache HBase on the same HDFS, in turn, ROUNDS times
# (default 3). The CPU time of the DataNodes is added to the CPU time of the region servers. Starts
# HDFS and both clusters first and stops them afterwards. BASALT: the binary; ROWS (60,000) and TIME
# (9s): as for the command; MIXES (all); REGION_SERVER_HEAP: the heap of HBase's region servers
# (1g). The results are written to $RESULTS/bench.json.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
cd "$E2E_HDFS/../.."
BASALT=${BASALT:-${CARGO_TARGET_DIR:-target}/release/basalt}
results=${RESULTS:-$LAB/results}
mkdir -p "$results"
rm -rf "$results/bench-data"
stop() {
  [ -z "${local_pid:-}" ] || { kill -INT "$local_pid"; timeout 30 tail --pid="$local_pid" -f /dev/null; } || true
  KILL=1 "$LAB_SCRIPTS/down.sh"
}
trap stop EXIT
export REGION_SERVER_HEAP=${REGION_SERVER_HEAP:-1g}
CLEAN=1 "$E2E_HDFS/up.sh"
"$LAB_SCRIPTS/up.sh" zk hbase
"$BASALT" local -f examples/cluster.yaml --data "$results/bench-data" --free-ports --hdfs-conf "$LAB/conf/hdfs" \
  >"$results/bench-local.log" 2>&1 </dev/null &
local_pid=$!
for _ in $(seq 150); do
  grep -q '^Ctrl-C stops the cluster' "$results/bench-local.log" && break
  sleep 0.2
done
grep -q '^Ctrl-C stops the cluster' "$results/bench-local.log" || fail "basalt local: $results/bench-local.log"
quorum=$(sed -nE 's/^ *hbase\.zookeeper\.quorum = //p' "$results/bench-local.log")
servers=$(sed -nE 's/^regionserver-[0-9]+ .*ready after .*\(pid ([0-9]+)\)$/\1/p' "$results/bench-local.log" | paste -sd,)
pids() { local name out=; for name in "$@"; do out=$out,$(pid_of "$name"); done; echo "${out#,}"; }
"$BASALT" bench --rounds "${ROUNDS:-3}" --rows "${ROWS:-60000}" --time "${TIME:-9s}" ${MIXES:+--mixes "$MIXES"} \
  --target "basalt=zk:$quorum" --pids "basalt=$servers" --storage-pids "basalt=$(pids dn1 dn2 dn3)" \
  --target "hbase=zk:127.0.0.1:$ZK_PORT" --pids "hbase=$(pids rs1 rs2 rs3)" \
  --storage-pids "hbase=$(pids dn1 dn2 dn3)" --json "$results/bench.json"
