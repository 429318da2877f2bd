#!/bin/bash
# chaos.sh: `basalt chaos` on a real HDFS, with the DataNodes and the NameNode among the victims.
# HDFS runs in a network namespace of its own, and all of Basalt's processes in further ones that are
# joined to it, so that their links can be cut; nothing of it is seen from outside. Needs root.
# MINUTES: of harm (default 30); SEED; BASALT: the binary (default: the release build, made here);
# RESULTS: where chaos.json goes (default: in the lab's folder).
set -euo pipefail
export LAB_INSTANCE=${LAB_INSTANCE:-hdfs-chaos} HDFS_HOST=10.78.0.1
. "$(dirname "$(readlink -f "$0")")/env.sh"
cd "$E2E_HDFS/../.."
if [ -z "${BASALT:-}" ]; then
  cargo build --release -p basalt
  BASALT=$PWD/${CARGO_TARGET_DIR:-target}/release/basalt
fi
export BASALT RESULTS=${RESULTS:-$LAB/results}
mkdir -p "$RESULTS" "$LAB/conf"
"$LAB_SCRIPTS/install.sh" hdfs
# Java asks for the names of addresses: here nobody else could answer.
{
  echo "127.0.0.1 localhost $(hostname)"
  echo "$HDFS_HOST hdfs"
  for host in $(seq 1 60); do echo "10.77.0.$host basalt-$host"; done
} >"$LAB/conf/hosts"
: >"$LAB/conf/resolv.conf"
exec unshare --net --mount bash -euo pipefail -c '
  . e2e/hdfs/env.sh
  mount --bind "$LAB/conf/hosts" /etc/hosts
  mount --bind "$LAB/conf/resolv.conf" /etc/resolv.conf
  ip link set lo up
  ip address add "$HDFS_HOST/32" dev lo
  trap "\"$E2E_HDFS/down.sh\"" EXIT
  CLEAN=1 "$E2E_HDFS/up.sh"
  # It is in a namespace of its own already.
  BASALT_CHAOS_APART=1 "$BASALT" chaos --minutes "${MINUTES:-30}" ${SEED:+--seed "$SEED"} \
    --hdfs-conf "$LAB/conf/hdfs" --json "$RESULTS/chaos.json" \
    --foreign 1 --foreign 2 --foreign 3 --foreign nn \
    --foreign-command "\"$E2E_HDFS/node.sh\" \$ACTION \$VICTIM"
'
