#!/bin/bash
# chaos.sh: `basalt chaos` on a real HDFS, with faults in the DataNodes and the NameNode, too. HDFS
# runs in its own network namespace. All processes of Basalt run in further namespaces that are
# connected to it, so that their links can be cut. Nothing outside sees these namespaces. Needs
# root.
# MINUTES: the duration (default 30); SEED; BASALT: the binary (default: the release build, which is
# built first); RESULTS: the folder for chaos.json (default: in the lab's folder).
set -euo pipefail
export LAB_INSTANCE=${LAB_INSTANCE:-hdfs-chaos} HDFS_HOST=10.78.0.1
. "$(dirname "$(readlink -f "$0")")/env.sh"
cd "$E2E_HDFS/../.."
# This variable shows the program that it needs no other namespace around its own.
if [ "${BASALT_CHAOS_APART:-}" != 1 ]; then
  if [ -z "${BASALT:-}" ]; then
    cargo build --release -p basalt
    BASALT=$PWD/${CARGO_TARGET_DIR:-target}/release/basalt
  fi
  "$LAB_SCRIPTS/install.sh" hdfs
  export BASALT BASALT_CHAOS_APART=1
  apart "$E2E_HDFS/chaos.sh"
fi
results=${RESULTS:-$LAB/results}
mkdir -p "$results"
trap '"$E2E_HDFS/down.sh"' EXIT
CLEAN=1 "$E2E_HDFS/up.sh"
"$BASALT" chaos --minutes "${MINUTES:-30}" ${SEED:+--seed "$SEED"} \
  --hdfs-conf "$LAB/conf/hdfs" --json "$results/chaos.json" \
  --foreign 1 --foreign 2 --foreign 3 --foreign nn \
  --foreign-command "'$E2E_HDFS/node.sh' \$ACTION \$VICTIM"
