#!/bin/bash
# wal.sh: the speed of a write-ahead log on a real HDFS: Basalt's, by
# crates/hdfs/examples/wal_bench.rs, and Apache HBase's AsyncFSWAL, by its own
# WALPerformanceEvaluation, with 1, 16 and 64 writers of 1 KB (WRITERS), in turn, ROUNDS times
# (default 3). Starts HDFS first and stops it afterwards (KEEP=1: keeps it running; UP=1: it is
# already running). WAL_JARS: a folder with the `tests` jars of hbase-server, hbase-common,
# hbase-asyncfs and hbase-zookeeper; without it only Basalt's log is measured.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
cd "$E2E_HDFS/../.."
if [ "${UP:-}" != 1 ]; then
  [ "${KEEP:-}" = 1 ] || trap '"$E2E_HDFS/down.sh"' EXIT
  CLEAN=${CLEAN:-1} "$E2E_HDFS/up.sh"
fi
WAL_BENCH=${WAL_BENCH:-${CARGO_TARGET_DIR:-target}/release/examples/wal_bench}
[ -x "$WAL_BENCH" ] || cargo build --release -p basalt-hdfs --example wal_bench

# Prints syncs of 1 KB edits per second and their latencies: each writer waits for its own edit. The
# program prints the latencies of its syncs, in nanoseconds, every 30 s, so it must run for longer.
apache() { # apache WRITERS EDITS_PER_WRITER
  bash "$LAB_SCRIPTS/configure.sh"
  "$JAVA" -Xmx1g $JDK17_OPENS -cp "$LAB/conf/hbase:$LAB/conf/hdfs:$WAL_JARS/*:$LAB_DIST/hbase/lib/*" \
    -Dhbase.wal.provider=asyncfs org.apache.hadoop.hbase.wal.WALPerformanceEvaluation \
    -path "hdfs://127.0.0.1:$NAME_NODE_PORT/wal-apache" -threads "$1" -iterations "$2" \
    -valueSize 1000 -qualifiers 1 -keySize 10 2>&1 | tee "$LAB/logs/wal-apache-$1.log" |
    grep -E 'Summary|syncMeter|syncHistogram|[0-9]+%|mean|median|min =|max =' | tail -40
}

for round in $(seq "${ROUNDS:-3}"); do
  for writers in ${WRITERS:-1 16 64}; do
    echo "round $round, $writers writers"
    echo "basalt: $("$WAL_BENCH" "$LAB/conf/hdfs" "$writers" "${SECONDS_EACH:-15}")"
    if [ -n "${WAL_JARS:-}" ]; then
      # This takes a little more than 30 s on two cores.
      case $writers in 1) edits=220000 ;; 16) edits=75000 ;; *) edits=34000 ;; esac
      echo "apache:"; apache "$writers" "$edits"
    fi
  done
done
