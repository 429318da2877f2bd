#!/bin/bash
# down.sh: stop the HDFS of env.sh.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
"$LAB_SCRIPTS/down.sh"
