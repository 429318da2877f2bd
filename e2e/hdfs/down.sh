#!/bin/bash
# down.sh: stop the HDFS of env.sh.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
"$LAB_SCRIPTS/down.sh"
# Small disks that a test which failed has left (node.sh small).
for data in "$LAB"/data/dn*; do
  if mountpoint -q "$data"; then umount "$data"; fi
done
