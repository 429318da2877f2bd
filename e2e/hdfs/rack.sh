#!/bin/bash
# rack.sh [CASE...]: `basalt demo` on a real HDFS with four DataNodes in two racks. One rack is cut
# off: connections are not refused, but nothing answers. It stays cut off until the NameNode has
# declared its DataNodes dead, and then comes back. The other rack is next once all blocks have all
# their replicas again (after the last fault the rack comes back at once). Everything runs in
# network namespaces that nothing outside sees. Needs root. Fails if an acknowledged write is lost,
# a region server died by itself, or a limit is exceeded.
#   rack    no process of Basalt is killed: writes are unavailable for 3 s at most
#   server  a region server is killed at the same moment: p50 3 s, max 10 s
# FAULT_COUNT: the number of faults (default 3); BASALT: the binary; RESULTS: a folder for results
# and pages.
set -euo pipefail
export LAB_INSTANCE=${LAB_INSTANCE:-hdfs-rack} HDFS_HOST=10.78.0.1 DATA_NODES=4 RACKS=2
. "$(dirname "$(readlink -f "$0")")/env.sh"
cd "$E2E_HDFS/../.."
export FAULT_COUNT=${FAULT_COUNT:-3}
BRIDGE=racks BRIDGE_HOST=10.79.0.1
# A DataNode is declared dead 20 s after its last heartbeat. Logs that were created on two DataNodes
# are followed by others 25 s after that (docs/hdfs.md, Writing).
LONG_S=25

make_racks() {
  # `ip netns` stores its names here.
  mkdir -p /run/netns
  mount -t tmpfs racks /run/netns
  ip link add "$BRIDGE" type bridge
  ip address add "$BRIDGE_HOST/16" dev "$BRIDGE"
  ip link set "$BRIDGE" up
  local rack
  for rack in $(seq "$RACKS"); do
    ip netns add "rack$rack"
    ip link add "rack$rack" type veth peer name uplink netns "rack$rack"
    ip link set "rack$rack" master "$BRIDGE" up
    ip -n "rack$rack" link set lo up
    ip -n "rack$rack" address add "$(rack_host "$rack")/16" dev uplink
    ip -n "rack$rack" link set uplink up
    ip -n "rack$rack" route add default via "$BRIDGE_HOST"
  done
}

up() {
  make_racks
  cat >"$LAB/conf/topology.sh" <<'TOPOLOGY'
#!/bin/bash
# Called by the NameNode. Prints the rack of each address.
for host; do
  case $host in
    10.79.*) rack=${host#10.79.}; echo "/rack${rack%%.*}" ;;
    *) echo /default-rack ;;
  esac
done
TOPOLOGY
  chmod +x "$LAB/conf/topology.sh"
  # Replicas are created at five times the usual pace, because the faults wait for them.
  export EXTRA_HDFS="net.topology.script.file.name=$LAB/conf/topology.sh
    dfs.namenode.replication.work.multiplier.per.iteration=10"
  CLEAN=1 "$E2E_HDFS/up.sh"
}

# A rack is cut off without notice: frames are lost in both directions.
cut_rack() { ip link set "rack$(($1 % RACKS + 1))" nomaster; }
heal_rack() {
  local is_last=$(($1 + 1 == FAULT_COUNT))
  [ "$is_last" = 1 ] || sleep "$LONG_S"
  ip link set "rack$(($1 % RACKS + 1))" master "$BRIDGE"
  wait_data_nodes
  [ "$is_last" = 1 ] || { wait_replicas; sleep "$LONG_S"; }
}

# demo CASE P50_MS MAX_MS OPTION...
demo() {
  local name=$1 p50_max=$2 max_max=$3
  shift 3
  echo "== $name"
  "$BASALT" demo --hdfs-conf "$LAB/conf/hdfs" --kills "$FAULT_COUNT" "$@" \
    --fault-command "'$E2E_HDFS/rack.sh' cut_rack \$FAULT" --repair-command "'$E2E_HDFS/rack.sh' heal_rack \$FAULT" \
    --json "$results/$name.json" --report "$results/$name.html"
  python3 "$E2E_HDFS/judge.py" "$results/$name.json" "$p50_max" "$max_max"
}

case ${1:-} in
  cut_rack|heal_rack) "$@"; exit ;;
esac
if [ "${APART:-}" != 1 ]; then
  export APART=1 BASALT=${BASALT:-$PWD/${CARGO_TARGET_DIR:-target}/release/basalt}
  "$LAB_SCRIPTS/install.sh" hdfs
  apart "$E2E_HDFS/rack.sh" "$@"
fi
results=${RESULTS:-$LAB/results}
mkdir -p "$results"
trap '"$E2E_HDFS/down.sh"' EXIT
up
for case in "${@:-rack}"; do
  case $case in
    rack)
      rm -rf "$results/data"
      demo rack 3000 3000 --fault none --data "$results/data"
      none_died "$results/data/logs" ;;
    server) demo server 3000 10000 ;;
    *) fail "no such case: $case" ;;
  esac
done
