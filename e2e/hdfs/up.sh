#!/bin/bash
# up.sh: starts the HDFS of env.sh and waits until the NameNode knows all its DataNodes. CLEAN=1:
# deletes all data first. down.sh stops it.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
write_settings
"$LAB_SCRIPTS/up.sh" hdfs
wait_data_nodes
echo "hdfs: $DATA_NODES DataNodes live; settings in $LAB/conf/hdfs"
