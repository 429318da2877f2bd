#!/bin/bash
# configure.sh: writes the instance's conf/ folders (zk, hdfs, hbase) from the settings of env.sh.
# up.sh calls it. More properties: put <property> elements into $LAB/conf/extra.xml (HBase) and
# $LAB/conf/extra-hdfs.xml (HDFS).
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
mkdir -p "$LAB"/conf/{zk,hdfs,hbase} "$LAB/data"
# The web servers do not start without these folders on the class path.
mkdir -p "$LAB"/conf/hdfs/webapps/{hdfs,datanode,journal,static}/WEB-INF
mkdir -p "$LAB"/conf/hbase/hbase-webapps/{master,regionserver,static}/WEB-INF

property() { echo "  <property><name>$1</name><value>$2</value></property>"; }
configuration() { echo '<configuration>'; cat; echo '</configuration>'; }

cat >"$LAB/conf/zk/zoo.cfg" <<EOF
tickTime=$TICK_MS
dataDir=$LAB/data/zk
clientPort=$ZK_PORT
clientPortAddress=127.0.0.1
maxClientCnxns=300
4lw.commands.whitelist=*
EOF

core_site() {
  property fs.defaultFS "hdfs://$HDFS_HOST:$NAME_NODE_PORT"
  if [ "$MODE" = tuned ]; then
    property ipc.client.connect.timeout 3000
    property ipc.client.connect.max.retries.on.timeouts 2
  fi
}

hdfs_site() {
  property dfs.replication "$((DATA_NODES < 3 ? DATA_NODES : 3))"
  property dfs.namenode.name.dir "file://$LAB/data/nn"
  property dfs.namenode.rpc-address "$HDFS_HOST:$NAME_NODE_PORT"
  property dfs.namenode.http-address "$HDFS_HOST:$NAME_NODE_WEB_PORT"
  property dfs.namenode.safemode.extension 0
  property dfs.permissions.enabled false
  property dfs.datanode.hostname localhost
  property dfs.heartbeat.interval "$HEARTBEAT_S"
  property dfs.datanode.max.transfer.threads 8192
  property dfs.namenode.handler.count 20
  if [ "$MODE" = tuned ]; then
    property dfs.client.socket-timeout 10000
    property dfs.datanode.socket.write.timeout 10000
    property dfs.namenode.avoid.read.stale.datanode true
    property dfs.namenode.avoid.write.stale.datanode true
    property dfs.namenode.stale.datanode.interval 20000
  fi
  if [ -f "$LAB/conf/extra-hdfs.xml" ]; then cat "$LAB/conf/extra-hdfs.xml"; fi
}

hbase_site() {
  if [ "$STORAGE" = local ]; then
    property hbase.rootdir "file://$LAB/data/hbase"
    # With the checksumming local file system a killed server loses acknowledged data. The raw one
    # passes each hflush to the kernel.
    property fs.file.impl org.apache.hadoop.fs.RawLocalFileSystem
    property hbase.wal.provider filesystem
    property hbase.unsafe.stream.capability.enforce false
  else
    property hbase.rootdir "hdfs://$HDFS_HOST:$NAME_NODE_PORT/hbase"
    property hbase.unsafe.stream.capability.enforce true
  fi
  property hbase.cluster.distributed true
  property hbase.zookeeper.quorum 127.0.0.1
  property hbase.zookeeper.property.clientPort "$ZK_PORT"
  property zookeeper.znode.parent "$ZNODE_PARENT"
  property zookeeper.session.timeout "$SESSION_MS"
  property hbase.master.hostname localhost
  property hbase.unsafe.regionserver.hostname localhost
  property hbase.master.ipc.address 127.0.0.1
  property hbase.regionserver.ipc.address 127.0.0.1
  property hbase.master.info.bindAddress 127.0.0.1
  property hbase.regionserver.info.bindAddress 127.0.0.1
  property hbase.tmp.dir "$LAB/data/tmp"
  # The codecs that come with HBase, because Hadoop's own need its native library.
  local codec=org.apache.hadoop.hbase.io.compress
  property hbase.io.compress.snappy.codec $codec.xerial.SnappyCodec
  property hbase.io.compress.lz4.codec $codec.lz4.Lz4Codec
  property hbase.io.compress.zstd.codec $codec.zstd.ZstdCodec
  if [ "$MODE" = tuned ]; then
    property hbase.lease.recovery.dfs.timeout 23000
    property hbase.lease.recovery.first.pause 1000
  fi
  if [ -f "$LAB/conf/extra.xml" ]; then cat "$LAB/conf/extra.xml"; fi
}

core_site | configuration >"$LAB/conf/hdfs/core-site.xml"
hdfs_site | configuration >"$LAB/conf/hdfs/hdfs-site.xml"
hbase_site | configuration >"$LAB/conf/hbase/hbase-site.xml"
rm -f "$LAB"/conf/hbase/{core,hdfs}-site.xml
if [ "$STORAGE" = hdfs ]; then cp "$LAB"/conf/hdfs/*-site.xml "$LAB/conf/hbase/"; fi

cat >"$LAB/conf/hbase/log4j2.properties" <<'EOF'
status=warn
rootLogger.level=INFO
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.target=SYSTEM_ERR
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{ISO8601} %-5p [%t] %c{2}: %m%n
EOF
cat >"$LAB/conf/hdfs/log4j.properties" <<'EOF'
log4j.rootLogger=INFO,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{ISO8601} %-5p %c{2} - %m%n
EOF
cat >"$LAB/conf/zk/logback.xml" <<'EOF'
<configuration>
  <appender name="console" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{ISO8601} %-5p %c{1} - %m%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="console"/></root>
</configuration>
EOF
