#!/bin/bash
# down.sh: stops what up.sh started for LAB_INSTANCE, and nothing else: HBase first (SIGTERM, up to
# 30 s, then SIGKILL; KILL=1: SIGKILL at once), then HDFS and ZooKeeper. The data is kept.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"

names() { for f in "$LAB"/run/$1*.pid; do [ -e "$f" ] && basename "$f" .pid; done; true; }

stop() { # stop SECONDS NAME...
  local seconds=$1 name left; shift
  for name in "$@"; do
    send "$name" CONT || true
    if [ "${KILL:-}" = 1 ]; then send "$name" KILL || true; else send "$name" TERM || true; fi
  done
  for _ in $(seq $((seconds * 5))); do
    left=; for name in "$@"; do if running "$name"; then left="$left $name"; fi; done
    [ -z "$left" ] && break
    sleep 0.2
  done
  for name in "$@"; do send "$name" KILL || true; rm -f "$LAB/run/$name.pid"; done
}

stop 30 $(names rs)
stop 15 $(names hm)
stop 10 $(names dn) $(names nn) $(names zk)
echo "down: $LAB"
