# shellcheck shell=bash
# shellcheck disable=SC2034  # those that source this file use what is set here
# env.sh: settings, ports, class paths and process helpers of the HBase lab. Sourced by the other
# scripts, and by tests that start or kill a single server (`. env.sh; start_region_server 2`).
#
# The distributions are shared ($BASALT_LAB/hbase/dist). Each LAB_INSTANCE has its own
# configuration, data, logs and processes, so several labs can run side by side with different
# PORT_BASEs.
# All servers listen on 127.0.0.1 only (HDFS: on HDFS_HOST).

LAB_SCRIPTS=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
BASALT_LAB=${BASALT_LAB:-$HOME/.cache/basalt-lab}
LAB_DIST=$BASALT_LAB/hbase/dist
LAB_INSTANCE=${LAB_INSTANCE:-main}
LAB=$BASALT_LAB/hbase/instances/$LAB_INSTANCE

# What runs.
MODE=${MODE:-default}            # default | tuned (the known advice for short recovery)
STORAGE=${STORAGE:-hdfs}         # hdfs | local (a folder of this machine, no HDFS processes)
MASTERS=${MASTERS:-2}
REGION_SERVERS=${REGION_SERVERS:-3}
DATA_NODES=${DATA_NODES:-3}
MASTER_HEAP=${MASTER_HEAP:-320m}
REGION_SERVER_HEAP=${REGION_SERVER_HEAP:-512m}
EXTRA_JVM=${EXTRA_JVM:-}         # more JVM options for masters and region servers
HEARTBEAT_S=${HEARTBEAT_S:-3}    # of the DataNodes
RACKS=${RACKS:-0}                # that the DataNodes are dealt to; 0: none. Each is a network namespace
                                 # rack1, rack2, ... that the caller has made, with the address of rack_host
if [ "$MODE" = tuned ]; then
  TICK_MS=${TICK_MS:-2000} SESSION_MS=${SESSION_MS:-20000}
else
  TICK_MS=${TICK_MS:-6000} SESSION_MS=${SESSION_MS:-90000}
fi

# Ports: each is PORT_BASE plus a fixed offset. Single ones can be set as well.
PORT_BASE=${PORT_BASE:-27000}
HDFS_HOST=${HDFS_HOST:-127.0.0.1}
ZK_PORT=${ZK_PORT:-$((PORT_BASE + 181))}
ZNODE_PARENT=${ZNODE_PARENT:-/hbase}
NAME_NODE_PORT=${NAME_NODE_PORT:-$((PORT_BASE + 900))}
NAME_NODE_WEB_PORT=${NAME_NODE_WEB_PORT:-$((PORT_BASE + 870))}
master_port() { echo $((PORT_BASE + $1)); }
master_web_port() { echo $((PORT_BASE + 10 + $1)); }
region_server_port() { echo $((PORT_BASE + 20 + $1)); }
region_server_web_port() { echo $((PORT_BASE + 30 + $1)); }
data_node_port() { echo $((PORT_BASE + 560 + $1)); }
data_node_ipc_port() { echo $((PORT_BASE + 570 + $1)); }
data_node_web_port() { echo $((PORT_BASE + 580 + $1)); }
rack_host() { echo "10.79.$1.1"; }
rack_of() { echo $((($1 - 1) % RACKS + 1)); } # rack_of DATA_NODE
data_node_host() { if [ "$RACKS" = 0 ]; then echo "$HDFS_HOST"; else rack_host "$(rack_of "$1")"; fi; }
bootstrap_servers() {
  local i out=
  for i in $(seq "$MASTERS"); do out=$out,localhost:$(master_port "$i"); done
  echo "${out#,}"
}

JAVA=${JAVA_HOME:+$JAVA_HOME/bin/}java
# The internals that Hadoop and HBase access under JDK 17.
JDK17_OPENS="--add-exports java.base/jdk.internal.misc=ALL-UNNAMED
  --add-exports java.security.jgss/sun.security.krb5=ALL-UNNAMED
  -Dorg.apache.hbase.thirdparty.io.netty.tryReflectionSetAccessible=true
  -Dio.netty.tryReflectionSetAccessible=true"
for package in java.lang java.lang.reflect java.util java.util.concurrent java.net java.nio java.io \
  java.text sun.nio.ch; do
  JDK17_OPENS="$JDK17_OPENS --add-opens java.base/$package=ALL-UNNAMED"
done
ZK_CLASSPATH="$LAB/conf/zk:$LAB_DIST/zk/lib/*"
HDFS_CLASSPATH="$LAB/conf/hdfs:$LAB_DIST/hdfs/lib/*"
HBASE_CLASSPATH="$LAB/conf/hbase:$LAB_DIST/hbase/lib/*"

# --- processes -----------------------------------------------------------------------------------

fail() { echo "$(basename "$0"): $*" >&2; exit 1; }

# A pid file contains the pid and its start time, so that a reused pid is never mistaken for ours.
start_time() { awk '{ sub(/.*\) /, ""); print $20 }' "/proc/$1/stat" 2>/dev/null; }

start() { # start NAME COMMAND...
  local name=$1 pid; shift
  running "$name" && fail "$name already runs (pid $(pid_of "$name")) in $LAB"
  mkdir -p "$LAB/run" "$LAB/logs"
  setsid "$@" >"$LAB/logs/$name.log" 2>&1 </dev/null &
  pid=$!
  echo "$pid $(start_time $pid)" >"$LAB/run/$name.pid"
  disown "$pid"
}

pid_of() { cut -d' ' -f1 "$LAB/run/$1.pid" 2>/dev/null; }

running() {
  local pid started
  [ -f "$LAB/run/$1.pid" ] || return 1
  read -r pid started <"$LAB/run/$1.pid" || return 1
  [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ]
}

send() { running "$1" && kill "-$2" "$(pid_of "$1")"; } # send NAME SIGNAL

# wait_port NAME PORT [HOST]: waits until it listens. Fails if the process has ended or after 60 s.
wait_port() {
  local _
  for _ in $(seq 240); do
    (exec 3<>"/dev/tcp/${3:-127.0.0.1}/$2") 2>/dev/null && return 0
    running "$1" || break
    sleep 0.25
  done
  tail -5 "$LAB/logs/$1.log" >&2
  fail "$1 does not listen on port $2; its log: $LAB/logs/$1.log"
}

wait_port_free() { # wait_port_free PORT [HOST]: nobody else may be there before we start
  (exec 3<>"/dev/tcp/${2:-127.0.0.1}/$1") 2>/dev/null || return 0
  fail "port $1 is in use; set PORT_BASE (now $PORT_BASE)"
}

# --- one server each -----------------------------------------------------------------------------

start_zookeeper() {
  wait_port_free "$ZK_PORT"
  start zk "$JAVA" -Xmx128m -Dzookeeper.admin.enableServer=false -cp "$ZK_CLASSPATH" \
    org.apache.zookeeper.server.quorum.QuorumPeerMain "$LAB/conf/zk/zoo.cfg"
}

start_name_node() {
  wait_port_free "$NAME_NODE_PORT" "$HDFS_HOST"
  start nn "$JAVA" -Xmx384m $JDK17_OPENS -cp "$HDFS_CLASSPATH" \
    org.apache.hadoop.hdfs.server.namenode.NameNode "$@"
}

start_data_node() { # start_data_node I
  local host enter=
  host=$(data_node_host "$1")
  [ "$RACKS" = 0 ] || enter="ip netns exec rack$(rack_of "$1")"
  wait_port_free "$(data_node_port "$1")" "$host"
  start "dn$1" $enter "$JAVA" -Xmx384m $JDK17_OPENS -cp "$HDFS_CLASSPATH" \
    org.apache.hadoop.hdfs.server.datanode.DataNode \
    "-Ddfs.datanode.data.dir=file://$LAB/data/dn$1" \
    "-Ddfs.datanode.address=$host:$(data_node_port "$1")" \
    "-Ddfs.datanode.ipc.address=$host:$(data_node_ipc_port "$1")" \
    "-Ddfs.datanode.http.address=$host:$(data_node_web_port "$1")"
}

start_hbase() { # start_hbase NAME HEAP CLASS OPTION...; HBase wants its -D options before `start`
  local name=$1 heap=$2 class=$3; shift 3
  start "$name" "$JAVA" "-Xms$heap" "-Xmx$heap" -XX:+UseG1GC -XX:MaxGCPauseMillis=50 \
    $EXTRA_JVM $JDK17_OPENS -cp "$HBASE_CLASSPATH" "$class" "$@" start
}

start_master() { # start_master I
  wait_port_free "$(master_port "$1")"
  start_hbase "hm$1" "$MASTER_HEAP" org.apache.hadoop.hbase.master.HMaster \
    "-Dhbase.master.port=$(master_port "$1")" \
    "-Dhbase.master.info.port=$(master_web_port "$1")"
}

start_region_server() { # start_region_server I
  wait_port_free "$(region_server_port "$1")"
  start_hbase "rs$1" "$REGION_SERVER_HEAP" \
    org.apache.hadoop.hbase.regionserver.HRegionServer \
    "-Dhbase.regionserver.port=$(region_server_port "$1")" \
    "-Dhbase.regionserver.info.port=$(region_server_web_port "$1")"
}
