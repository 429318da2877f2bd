# shellcheck shell=bash
# env.sh: the HDFS for the tests in this folder: 1 NameNode and 3 DataNodes as separate processes on
# 127.0.0.1, from Maven (e2e/lab/hbase), with the settings that a short failover needs. The other
# scripts source it. A separate LAB_INSTANCE and PORT_BASE keep it apart from other instances.

E2E_HDFS=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
export LAB_INSTANCE=${LAB_INSTANCE:-hdfs} PORT_BASE=${PORT_BASE:-29000}
export DATA_NODES=${DATA_NODES:-3} HEARTBEAT_S=${HEARTBEAT_S:-1} STORAGE=hdfs HDFS_HOST=${HDFS_HOST:-127.0.0.1}
. "$E2E_HDFS/../lab/hbase/env.sh"

# The settings that a failover target of 3 s needs, as in the operator's ConfigMap <cluster>-hdfs. A
# DataNode counts as dead after 20 s. EXTRA_HDFS: more settings, as name=value.
write_settings() {
  mkdir -p "$LAB/conf"
  local setting
  for setting in \
    dfs.namenode.avoid.read.stale.datanode=true \
    dfs.namenode.avoid.write.stale.datanode=true \
    dfs.namenode.redundancy.considerLoad=false \
    dfs.namenode.stale.datanode.interval=1200 \
    dfs.namenode.stale.datanode.minimum.interval=1 \
    dfs.namenode.heartbeat.recheck-interval=5000 \
    dfs.namenode.reconstruction.pending.timeout-sec=30 \
    dfs.client.socket-timeout=1000 \
    dfs.datanode.socket.write.timeout=1000 \
    ipc.client.connect.timeout=200 \
    ipc.client.connect.max.retries=1 \
    ipc.client.connect.max.retries.on.timeouts=1 \
    dfs.client.block.write.replace-datanode-on-failure.policy=NEVER \
    dfs.namenode.datanode.registration.ip-hostname-check=false \
    ${EXTRA_HDFS:-}; do
    echo "  <property><name>${setting%%=*}</name><value>${setting#*=}</value></property>"
  done >"$LAB/conf/extra-hdfs.xml"
}

# apart COMMAND...: runs it in its own network namespace, which nothing outside sees. HDFS_HOST is
# an address in that namespace. Needs root.
apart() {
  mkdir -p "$LAB/conf"
  # Java looks up the names of addresses. Here no other server could answer.
  {
    echo "127.0.0.1 localhost $(hostname)"
    echo "$HDFS_HOST hdfs"
    for host in $(seq 1 60); do echo "10.77.0.$host basalt-$host"; done
    for rack in $(seq "$RACKS"); do echo "$(rack_host "$rack") rack$rack"; done
  } >"$LAB/conf/hosts"
  : >"$LAB/conf/resolv.conf"
  exec unshare --net --mount bash -euo pipefail -c '
    mount --bind "$0/hosts" /etc/hosts
    mount --bind "$0/resolv.conf" /etc/resolv.conf
    ip link set lo up
    ip address add "$HDFS_HOST/32" dev lo
    exec "$@"' "$LAB/conf" "$@"
}

# name_node_says NAME: prints a metric of the NameNode.
name_node_says() {
  local page="http://$HDFS_HOST:$NAME_NODE_WEB_PORT/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState"
  curl -fs "$page" | sed -n "s/.*\"$1\" : \"\?\([A-Za-z0-9]*\).*/\1/p"
}

# Waits until the NameNode has left safe mode and knows all DataNodes.
wait_data_nodes() {
  local live state _
  for _ in $(seq 240); do
    live=$(name_node_says NumLiveDataNodes) state=$(name_node_says FSState)
    if [ "$live" = "$DATA_NODES" ] && [ "$state" = Operational ]; then return 0; fi
    sleep 0.25
  done
  fail "after 60 s ${live:-0} of $DATA_NODES DataNodes are live, the NameNode is ${state:-away}"
}

# Waits until the NameNode has copied every block that has too few replicas.
wait_replicas() {
  local few _
  for _ in $(seq 90); do
    few=$(($(name_node_says UnderReplicatedBlocks) + $(name_node_says PendingReplicationBlocks)))
    [ "$few" != 0 ] || return 0
    sleep 1
  done
  fail "after 90 s $few blocks still have too few replicas"
}

# none_died LOG_FOLDER: fails if a region server of a `basalt local` was started more than once.
none_died() {
  local log
  for log in "$1"/regionserver-*.log; do
    [ "$(grep -c 'basalt::role: starting' "$log")" = 1 ] || fail "a region server died: $log"
  done
}

# write_rolling_manifest FILE [NAMESERVICE]: writes examples/hdfs.yaml with logs that are rolled
# every MB.
write_rolling_manifest() {
  local rolled='config: { basalt.regionserver.wal.roll.bytes: "1048576" }'
  sed "s/regionServers: { replicas: 3 }/regionServers: { replicas: 3, $rolled }/
    s/nameservice: prod /nameservice: ${2:-prod} /" "$E2E_HDFS/../../examples/hdfs.yaml" >"$1"
  grep -q "$rolled" "$1" || fail "examples/hdfs.yaml has no line 'regionServers: { replicas: 3 }' to change"
}
