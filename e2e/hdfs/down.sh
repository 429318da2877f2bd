#!/bin/bash
# down.sh: stops the HDFS of env.sh.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
"$LAB_SCRIPTS/down.sh"
# Unmounts small disks that a failed test has left behind (node.sh small).
for data in "$LAB"/data/dn*; do
  if mountpoint -q "$data"; then umount "$data"; fi
done
