#!/bin/bash
# run-java-client.sh: runs the stock Apache HBase client and store-file tool against a cluster, and
# our reader of store files (by cargo) against Apache HBase's writer.
#   TARGET=hbase       (default) Apache HBase itself, started and stopped here: proves the programs
#   TARGET=basalt      a cluster of `basalt local`, started and stopped here; BASALT names the binary
#                      (default: release/basalt in $CARGO_TARGET_DIR or the repository's target);
#                      HDFS_CONF: the settings of an HDFS that stores its data and has none yet
#   TARGET=endpoints   a running cluster, named by
#     ZK_QUORUM, ZK_PORT, ZNODE_PARENT   for the zk registry
#     BOOTSTRAP_SERVERS                  for the rpc registry
#     KILL_COMMAND       kills one region server (kill -9) that serves regions; required
#     RESTART_COMMAND    brings it back, and returns when it serves; required with two registries
#     STORE_FILES        the folder `data/default` of the storage root: after a flush HFilePrettyPrinter
#                        reads the store files of TABLE, and of a table of each compression
#     STORE_FILES_PRINTED  the number of files of TABLE, largest first (8)
#     ACROSS_KILL_OPTIONS  more options of that scenario (`--empty-repeats 1` for Apache HBase)
# Further: REGISTRIES ("zk rpc"), TABLE (e2e), SECONDS_UNDER_LOAD (15), CLIENT_SETTINGS (-Dx=y …),
# RESULTS (a folder for logs and JSON, default: a new one under /tmp).
# Exits with 0 only if everything ran and was right.
set -euo pipefail
E2E=$(dirname "$(readlink -f "$0")")
TARGET=${TARGET:-hbase}
REGISTRIES=${REGISTRIES:-zk rpc}
TABLE=${TABLE:-e2e}
SECONDS_UNDER_LOAD=${SECONDS_UNDER_LOAD:-15}
STORE_FILES_PRINTED=${STORE_FILES_PRINTED:-8}
CLIENT_SETTINGS=${CLIENT_SETTINGS:-}
RESULTS=${RESULTS:-$(mktemp -d /tmp/basalt-java-client.XXXXXX)}
mkdir -p "$RESULTS"
failures=0

say() { echo "[java-client] $*"; }
die() { echo "[java-client] CANNOT RUN: $*" >&2; exit 1; }
need() { [ -n "${!1:-}" ] || die "$1 is not set (TARGET=$TARGET)"; }

# step NAME COMMAND...: writes the output to RESULTS/NAME.log. A failure is printed, and the
# remaining steps still run.
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
  # After its log has been replayed, Apache HBase answers a repeated increment with an empty result.
  ACROSS_KILL_OPTIONS="--empty-repeats 1"
}

start_basalt() {
  BASALT=${BASALT:-${CARGO_TARGET_DIR:-$E2E/../target}/release/basalt}
  [ -x "$BASALT" ] || die "no program $BASALT (cargo build --release -p basalt)"
  local out=$RESULTS/basalt.log
  setsid "$BASALT" local -f "$E2E/../examples/cluster.yaml" --data "$RESULTS/data" --free-ports \
    ${HDFS_CONF:+--hdfs-conf "$HDFS_CONF"} >"$out" 2>&1 </dev/null &
  BASALT_PID=$!
  trap 'kill -TERM "$BASALT_PID" 2>/dev/null || true' EXIT
  local try
  for try in $(seq 300); do
    grep -q '^Ctrl-C stops the cluster' "$out" && break
    kill -0 "$BASALT_PID" 2>/dev/null && [ "$try" -lt 300 ] || die "basalt local: $out"
    sleep 0.2
  done
  ZK_QUORUM=127.0.0.1 ZNODE_PARENT=/hbase STORE_FILES=$RESULTS/data/demo-data/data/default
  if [ -n "${HDFS_CONF:-}" ]; then
    STORE_FILES=$(sed -nE 's#.*(hdfs://[^<]*)<.*#\1#p' "$HDFS_CONF/core-site.xml")/basalt/demo/data/default
  fi
  ZK_PORT=$(sed -nE 's/^ *hbase\.zookeeper\.quorum = [^:]*:([0-9]+).*/\1/p' "$out")
  BOOTSTRAP_SERVERS=$(sed -nE 's/^ *hbase\.masters = //p' "$out")
  # `basalt local` restarts a process that died.
  local pids="sed -nE 's/^regionserver-1 .*ready after .*\(pid ([0-9]+)\)\$/\1/p' '$out'"
  KILL_COMMAND="$pids | wc -l >'$RESULTS/starts'; kill -9 \$($pids | tail -1)"
  RESTART_COMMAND="for try in \$(seq 150); do
      [ \$($pids | wc -l) -gt \$(cat '$RESULTS/starts') ] && exit 0; sleep 0.2
    done; exit 1"
}

# Ctrl-C must end the cluster, and no process may remain.
stop_basalt() {
  local child left=0 children; children=$(pgrep -P "$BASALT_PID")
  kill -INT "$BASALT_PID"
  timeout 30 tail --pid="$BASALT_PID" -f /dev/null || { echo "does not stop"; return 1; }
  for child in $children; do
    if kill -0 "$child" 2>/dev/null; then echo "process $child is left"; left=1; fi
  done
  tail -1 "$RESULTS/basalt.log"
  return "$left"
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

# The tool reports rows out of order, but does not fail for them. A file without cells is valid: the
# cells of its family have all expired.
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

store_files() { # store_files TABLE: its store files, the largest first
  case $STORE_FILES in
    hdfs://*) hdfs_files "$STORE_FILES/$1" ;;
    *) find "$STORE_FILES/$1" -type f -printf '%s %p\n' ;;
  esac | grep -E '/[0-9a-f]{32}$' | sort -rn | cut -d' ' -f2-
}

# Sizes and paths of the files in a folder of HDFS, and below.
hdfs_files() {
  bash -c '. "$1"; "$JAVA" -cp "$2:$STORE_FILE_CLASSPATH" org.apache.hadoop.fs.FsShell -ls -R "$3"' \
    - "$E2E/java/env.sh" "$HDFS_CONF" "$1" 2>"$RESULTS/list.log" | awk '/^-/ { print $5, $8 }'
}

# Store files that Apache HBase writes in every encoding: our reader must find the same data in them
# as HBase's reader. With the workspace's features, so that nothing is compiled again after the
# workspace's tests.
encoded_files() {
  local files=$RESULTS/encoded-files
  "$E2E/java/write-encoded-files.sh" "$files" || return 1
  (cd "$E2E/.." && BASALT_HBASE_FILES=$files cargo test --workspace --test store_file encoded:: \
    -- --ignored --nocapture) >"$RESULTS/encoded-read.txt" 2>&1 ||
    { cat "$RESULTS/encoded-read.txt"; return 1; }
  tail -5 "$RESULTS/encoded-read.txt"
  grep -q '^test result: ok. 1 passed' "$RESULTS/encoded-read.txt" || return 1
  rm -r "$files"
}

printed_cells() { awk '{ sum += $1 } END { print sum + 0 }' "$RESULTS/printed-cells"; }

# The table of a compression: all written data is in its store files, with that compression.
compressed_table() { # compressed_table COMPRESSION CELLS
  local file
  : >"$RESULTS/printed-cells"
  for file in $(store_files "${TABLE}_$1"); do
    store_file "$file" || return 1
    grep -qi "^ *compressionCodec=$1," "$RESULTS/print.txt" ||
      { echo "$file is not compressed by $1"; return 1; }
  done
  echo "$(printed_cells) cells printed, $2 written"
  [ "$(printed_cells)" = "$2" ]
}

for registry in $REGISTRIES; do
  case $registry in zk|rpc) ;; *) die "REGISTRIES: $registry (allowed: zk, rpc)" ;; esac
done
"$E2E/java/build.sh" >"$RESULTS/build.log" 2>&1 || die "build: $RESULTS/build.log"
case $TARGET in
  hbase) start_apache_hbase ;;
  basalt) start_basalt ;;
  endpoints) ;;
  *) die "TARGET=$TARGET (allowed: hbase, basalt, endpoints)" ;;
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
step encoded-files encoded_files
if [ -n "${STORE_FILES:-}" ]; then
  step flush client "${REGISTRIES%% *}" flush
  : >"$RESULTS/printed-cells"
  for file in $(store_files "$TABLE" | sed -n "1,${STORE_FILES_PRINTED}p"); do
    step "print-$(basename "$file")" store_file "$file"
  done
  step "printed-cells" test "$(printed_cells)" -gt 0
  step compressions client "${REGISTRIES%% *}" --json "$RESULTS/compressions.json" compressions
  cells=$(grep -o '"cells": *[0-9]*' "$RESULTS/compressions.json" | grep -o '[0-9]*$')
  for compression in none gz snappy lz4 zstd; do
    step "print-$compression" compressed_table "$compression" "$cells"
  done
fi
[ "$TARGET" != basalt ] || step stop stop_basalt

say "$failures failed"
[ "$failures" = 0 ]
