#!/bin/bash
# run.sh [TEST...]: the tests of crates/hdfs with a real HDFS. Starts HDFS first and stops it
# afterwards (KEEP=1: keeps it running). BASALT_HDFS_RUNS: how many times each fencing case is run
# (default 3).
# Fails if HDFS does not start, or if no test ran.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
cd "$E2E_HDFS/../.."
[ "${KEEP:-}" = 1 ] || trap '"$E2E_HDFS/down.sh"' EXIT
CLEAN=${CLEAN:-1} "$E2E_HDFS/up.sh"
# With the workspace's features, so that nothing is compiled again after the workspace's tests.
cargo build --workspace --example log_writer
export BASALT_HDFS_CONF=$LAB/conf/hdfs BASALT_HDFS_NODES=$E2E_HDFS/node.sh
log=$LAB/logs/tests.log
cargo test --workspace --test real_hdfs -- --ignored --test-threads=1 --nocapture "$@" 2>&1 |
  tee "$log"
grep -Eq '^test result: ok. [1-9][0-9]* passed' "$log" || fail "no test ran; see $log"
