# env.sh: the HDFS that the tests of this folder use: 1 NameNode and 3 DataNodes as separate
# processes on 127.0.0.1, from Maven (e2e/lab/hbase), with the settings that a short failover needs.
# Sourced by the other scripts. A LAB_INSTANCE and a PORT_BASE of its own keep it apart from others.

E2E_HDFS=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
export LAB_INSTANCE=${LAB_INSTANCE:-hdfs} PORT_BASE=${PORT_BASE:-29000}
export DATA_NODES=${DATA_NODES:-3} HEARTBEAT_S=${HEARTBEAT_S:-1} STORAGE=hdfs
. "$E2E_HDFS/../lab/hbase/env.sh"

# What a failover target of 3 s needs, as the operator's ConfigMap <cluster>-hdfs has it; a DataNode is
# dead after 20 s.
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
    dfs.client.socket-timeout=1000 \
    dfs.datanode.socket.write.timeout=1000 \
    ipc.client.connect.timeout=200 \
    ipc.client.connect.max.retries=1 \
    ipc.client.connect.max.retries.on.timeouts=1 \
    dfs.client.block.write.replace-datanode-on-failure.policy=NEVER \
    dfs.namenode.datanode.registration.ip-hostname-check=false; do
    echo "  <property><name>${setting%%=*}</name><value>${setting#*=}</value></property>"
  done >"$LAB/conf/extra-hdfs.xml"
}
