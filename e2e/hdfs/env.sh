# env.sh: the HDFS that the tests of this folder use: 1 NameNode and 3 DataNodes as separate
# processes on 127.0.0.1, from Maven (e2e/lab/hbase), with the settings that a short failover needs.
# Sourced by the other scripts. A LAB_INSTANCE and a PORT_BASE of its own keep it apart from others.

E2E_HDFS=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
export LAB_INSTANCE=${LAB_INSTANCE:-hdfs} PORT_BASE=${PORT_BASE:-29000}
export DATA_NODES=${DATA_NODES:-3} HEARTBEAT_S=${HEARTBEAT_S:-1} STORAGE=hdfs
. "$E2E_HDFS/../lab/hbase/env.sh"

# Stale after 3 s (the least that 1 s heartbeats allow), dead after 20 s.
write_settings() {
  mkdir -p "$LAB/conf"
  cat >"$LAB/conf/extra-hdfs.xml" <<'EOF'
  <property><name>dfs.namenode.avoid.read.stale.datanode</name><value>true</value></property>
  <property><name>dfs.namenode.avoid.write.stale.datanode</name><value>true</value></property>
  <property><name>dfs.namenode.stale.datanode.interval</name><value>3000</value></property>
  <property><name>dfs.namenode.heartbeat.recheck-interval</name><value>5000</value></property>
  <property><name>dfs.namenode.datanode.registration.ip-hostname-check</name><value>false</value></property>
  <property><name>dfs.client.block.write.replace-datanode-on-failure.policy</name><value>NEVER</value></property>
EOF
}
