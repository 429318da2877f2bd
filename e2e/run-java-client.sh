#!/bin/bash
# run-java-client.sh: the stock Apache HBase client and store-file tool against a cluster.
#   TARGET=hbase       (default) Apache HBase itself, started and stopped here: proves the programs
#   TARGET=endpoints   a cluster that runs already, named by
#     ZK_QUORUM, ZK_PORT, ZNODE_PARENT   for the zk registry
#     BOOTSTRAP_SERVERS                  for the rpc registry
#     KILL_COMMAND       kills one region server (kill -9) that serves regions; required
#     RESTART_COMMAND    brings it back, and returns when it serves; required with two registries
#     STORE_FILES        a folder; each file below it named like a store file (32 hex digits) is
#                        read by HFilePrettyPrinter after a flush, and there must be at least one
#     ACROSS_KILL_OPTIONS  more options of that scenario (`--empty-repeats 1` for Apache HBase)
# Further: REGISTRIES ("zk rpc"), TABLE (e2e), SECONDS_UNDER_LOAD (30), CLIENT_SETTINGS (-Dx=y …),
# RESULTS (a folder for logs and JSON, default: a new one under /tmp).
# Exit code 0 only if everything ran and was right.
set -euo pipefail
E2E=$(dirname "$(readlink -f "$0")")
TARGET=${TARGET:-hbase}
REGISTRIES=${REGISTRIES:-zk rpc}
TABLE=${TABLE:-e2e}
SECONDS_UNDER_LOAD=${SECONDS_UNDER_LOAD:-30}
CLIENT_SETTINGS=${CLIENT_SETTINGS:-}
RESULTS=${RESULTS:-$(mktemp -d /tmp/basalt-java-client.XXXXXX)}
mkdir -p "$RESULTS"
failures=0

say() { echo "[java-client] $*"; }
die() { echo "[java-client] CANNOT RUN: $*" >&2; exit 1; }
need() { [ -n "${!1:-}" ] || die "$1 is not set (TARGET=$TARGET)"; }

# step NAME COMMAND...: output into RESULTS/NAME.log; a failure is shown, and the rest still runs.
step() {
  local name=$1 start=$SECONDS; shift
  if "$@" >"$RESULTS/$name.log" 2>&1; then
    say "ok      $name ($((SECONDS - start)) s)"
  else
    failures=$((failures + 1))
    say "FAILED  $name ($((SECONDS - start)) s), log: $RESULTS/$name.log"
    grep -E '^(FAILED|StockClient:|\{)|CANNOT|ERROR|WARNING' "$RESULTS/$name.log" | cut -c1-600 | tail -8
  fi
}

start_apache_hbase() {
  export LAB_INSTANCE=${LAB_INSTANCE:-java-client} PORT_BASE=${PORT_BASE:-29000}
  export MODE=tuned SESSION_MS=6000 HEARTBEAT_S=1 MASTERS=2 REGION_SERVERS=3
  trap 'KILL=1 "$E2E/lab/hbase/down.sh" >/dev/null' EXIT
  CLEAN=1 "$E2E/lab/hbase/up.sh" >"$RESULTS/up.log" 2>&1 || die "Apache HBase: $RESULTS/up.log"
  eval "$(bash -c '. "$1"; echo "ZK_PORT=$ZK_PORT BOOTSTRAP_SERVERS=$(bootstrap_servers)"' - \
    "$E2E/lab/hbase/env.sh")"
  ZK_QUORUM=127.0.0.1 ZNODE_PARENT=/hbase STORE_FILES=
  KILL_COMMAND=". '$E2E/lab/hbase/env.sh'; send rs2 KILL"
  RESTART_COMMAND=". '$E2E/lab/hbase/env.sh'; start_region_server 2
    wait_port rs2 \$(region_server_port 2)"
  # Apache HBase answers a repeated increment with nothing once its log has been replayed.
  ACROSS_KILL_OPTIONS="--empty-repeats 1"
}

client() { # client REGISTRY OPTION... SCENARIO
  local registry=$1; shift
  local where
  case $registry in
    zk) where="--zk-quorum $ZK_QUORUM --zk-port $ZK_PORT --znode-parent ${ZNODE_PARENT:-/hbase}" ;;
    rpc) where="--bootstrap $BOOTSTRAP_SERVERS" ;;
  esac
  "$E2E/java/stock-client.sh" --registry "$registry" $where --table "$TABLE" $CLIENT_SETTINGS "$@"
}

# The tool reports rows out of order, but does not fail for them. A file without cells is right:
# a family whose cells have all expired.
store_file() {
  local printed
  "$E2E/java/print-store-file.sh" "$1" >"$RESULTS/print.txt" 2>&1 ||
    { cat "$RESULTS/print.txt"; return 1; }
  tail -3 "$RESULTS/print.txt"
  if grep -n 'WARNING' "$RESULTS/print.txt"; then return 1; fi
  printed=$(grep -c '^K: ' "$RESULTS/print.txt" || true)
  echo "$printed" >>"$RESULTS/printed-cells"
  grep -qx "Scanned kv count -> $printed" "$RESULTS/print.txt"
}

for registry in $REGISTRIES; do
  case $registry in zk|rpc) ;; *) die "REGISTRIES: $registry (allowed: zk, rpc)" ;; esac
done
"$E2E/java/build.sh" >"$RESULTS/build.log" 2>&1 || die "build: $RESULTS/build.log"
case $TARGET in
  hbase) start_apache_hbase ;;
  endpoints) ;;
  *) die "TARGET=$TARGET (allowed: hbase, endpoints)" ;;
esac
case " $REGISTRIES " in *" zk "*) need ZK_QUORUM; need ZK_PORT ;; esac
case " $REGISTRIES " in *" rpc "*) need BOOTSTRAP_SERVERS ;; esac
need KILL_COMMAND
[ "$(wc -w <<<"$REGISTRIES")" -lt 2 ] || need RESTART_COMMAND
say "results: $RESULTS"

first=1
for registry in $REGISTRIES; do
  [ -n "$first" ] || step "restart" bash -c "$RESTART_COMMAND"
  first=
  step "$registry-crud" client "$registry" --json "$RESULTS/$registry-crud.json" crud
  step "$registry-admin" client "$registry" --json "$RESULTS/$registry-admin.json" admin
  step "$registry-across-kill" client "$registry" --json "$RESULTS/$registry-across-kill.json" \
    --seconds "$SECONDS_UNDER_LOAD" --kill "$KILL_COMMAND" ${ACROSS_KILL_OPTIONS:-} across-kill
done

for file in "$E2E"/../crates/storage/tests/golden/*.hfile; do
  step "print-$(basename "$file")" store_file "$file"
done
if [ -n "${STORE_FILES:-}" ]; then
  step flush client "${REGISTRIES%% *}" flush
  rm -f "$RESULTS/printed-cells"
  while read -r file; do
    step "print-$(basename "$file")" store_file "$file"
  done < <(find "$STORE_FILES" -type f | grep -E '/[0-9a-f]{32}$' | LC_ALL=C sort)
  if ! grep -qs '^[1-9]' "$RESULTS/printed-cells"; then
    failures=$((failures + 1))
    say "FAILED  no store file with cells below $STORE_FILES"
  fi
fi

say "$failures failed"
[ "$failures" = 0 ]
