#!/bin/bash
# A cluster whose disk becomes full: no process ends, reads continue, and writes fail cleanly.
# Everything continues once there is space again. Mounts a tmpfs of 64 MB, so it must run as root
# and fails otherwise.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
[ "$(id -u)" -eq 0 ] || { echo "CANNOT RUN: full-disk.sh mounts a tmpfs and must be run as root"; exit 1; }
# With the workspace's features, so that nothing is compiled again after the workspace's tests.
exec cargo test --workspace --test bad_input full_disk -- --ignored --nocapture
