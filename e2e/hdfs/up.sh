#!/bin/bash
# up.sh: start the HDFS of env.sh and wait until all its DataNodes are known. CLEAN=1: forget all
# data first. down.sh stops it.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
write_settings
"$LAB_SCRIPTS/up.sh" hdfs
wait_data_nodes
echo "hdfs: $DATA_NODES DataNodes live; settings in $LAB/conf/hdfs"
