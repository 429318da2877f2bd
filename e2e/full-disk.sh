#!/bin/bash
# A cluster whose disk runs full: nothing ends, reads go on, writes fail cleanly, and all goes on once
# there is room. Mounts a tmpfs of 64 MB: runs as root, and fails where it is not.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
[ "$(id -u)" -eq 0 ] || { echo "CANNOT RUN: full-disk.sh mounts a tmpfs and must be run as root"; exit 1; }
# With the workspace's features, so that nothing is compiled anew after the tests of all of it.
exec cargo test --workspace --test bad_input full_disk -- --ignored --nocapture
