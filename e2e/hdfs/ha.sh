#!/bin/bash
# ha.sh [CASE...]: `basalt demo` on an HDFS with two NameNodes, three JournalNodes and three
# DataNodes. Starts HDFS first and stops it afterwards (KEEP=1: keeps it running). No process of
# Basalt is killed. Its logs are rolled every MB, so that it needs the NameNode all the time. Fails
# if an acknowledged write is lost, a region server died, or writes did not resume within 2 s after
# the standby became active.
#   failover  the active NameNode is killed (SIGKILL), and the other one is made active; FAULT_COUNT times
set -euo pipefail
export LAB_INSTANCE=${LAB_INSTANCE:-hdfs-ha} PORT_BASE=${PORT_BASE:-31000}
. "$(dirname "$(readlink -f "$0")")/env.sh"
cd "$E2E_HDFS/../.."
BASALT=${BASALT:-${CARGO_TARGET_DIR:-target}/release/basalt}
results=${RESULTS:-$LAB/results}
rpc_port() { echo $((PORT_BASE + 899 + $1)); }
web_port() { echo $((PORT_BASE + 869 + $1)); }
journal_port() { echo $((PORT_BASE + 480 + $1)); }
journal_web_port() { echo $((PORT_BASE + 485 + $1)); }
hdfs_class() { "$JAVA" -Xmx128m $JDK17_OPENS -cp "$HDFS_CLASSPATH" "$@"; }
name_node() { # name_node I OPTION...
  local i=$1; shift
  echo "$JAVA" -Xmx384m $JDK17_OPENS -cp "$HDFS_CLASSPATH" \
    org.apache.hadoop.hdfs.server.namenode.NameNode -Ddfs.ha.namenode.id="nn$i" \
    -Ddfs.namenode.name.dir="file://$LAB/data/nn$i" "$@"
}
start_ha_name_node() { start "nn$1" $(name_node "$1"); wait_port "nn$1" "$(rpc_port "$1")"; }
admin() { hdfs_class org.apache.hadoop.hdfs.tools.DFSHAAdmin "$@"; }

configure() {
  property() { echo "  <property><name>$1</name><value>$2</value></property>"; }
  local i edits=
  for i in 1 2 3; do edits="$edits;127.0.0.1:$(journal_port "$i")"; done
  mkdir -p "$LAB/conf" "$results"
  write_settings
  {
    property dfs.nameservices prod
    property dfs.ha.namenodes.prod nn1,nn2
    for i in 1 2; do
      property dfs.namenode.rpc-address.prod.nn$i "127.0.0.1:$(rpc_port $i)"
      property dfs.namenode.http-address.prod.nn$i "127.0.0.1:$(web_port $i)"
    done
    property dfs.namenode.shared.edits.dir "qjournal://${edits#;}/prod"
    property dfs.client.failover.proxy.provider.prod \
      org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider
    property dfs.ha.fencing.methods 'shell(/bin/true)'
    property dfs.ha.tail-edits.period 1s
  } >>"$LAB/conf/extra-hdfs.xml"
  bash "$LAB_SCRIPTS/configure.sh"
  # Usually the lab has a single NameNode.
  sed -i "s#hdfs://127.0.0.1:$NAME_NODE_PORT#hdfs://prod#" "$LAB/conf/hdfs/core-site.xml"
  sed -i '/>dfs.namenode.rpc-address</d; />dfs.namenode.http-address</d; />dfs.namenode.name.dir</d' \
    "$LAB/conf/hdfs/hdfs-site.xml"
}

up() {
  rm -rf "${LAB:?}/data"
  "$LAB_SCRIPTS/install.sh" hdfs
  configure
  local i
  for i in 1 2 3; do
    start "jn$i" "$JAVA" -Xmx128m $JDK17_OPENS -cp "$HDFS_CLASSPATH" \
      org.apache.hadoop.hdfs.qjournal.server.JournalNode \
      "-Ddfs.journalnode.edits.dir=$LAB/data/jn$i" \
      "-Ddfs.journalnode.rpc-address=127.0.0.1:$(journal_port "$i")" \
      "-Ddfs.journalnode.http-address=127.0.0.1:$(journal_web_port "$i")"
  done
  for i in 1 2 3; do wait_port "jn$i" "$(journal_port "$i")"; done
  # shellcheck disable=SC2091  # name_node prints a command
  $(name_node 1 -format -nonInteractive -force) >"$LAB/logs/format.log" 2>&1
  start_ha_name_node 1
  # shellcheck disable=SC2091  # name_node prints a command
  $(name_node 2 -bootstrapStandby -nonInteractive) >"$LAB/logs/bootstrap.log" 2>&1
  start_ha_name_node 2
  admin -transitionToActive nn1
  for i in $(seq "$DATA_NODES"); do start_data_node "$i"; done
  for i in $(seq "$DATA_NODES"); do wait_port "dn$i" "$(data_node_ipc_port "$i")"; done
}

# Injects a fault; $1 is its number. Records when the standby became active.
fail_over() {
  local old=$(($1 % 2 + 1)) new=$((($1 + 1) % 2 + 1))
  echo "killing nn$old"
  send "nn$old" KILL
  # Without --forceactive the dead NameNode is asked first, and its silence counts as a refusal.
  admin -transitionToActive --forceactive "nn$new"
  echo "nn$new active at $(date +%s%3N)" | tee -a "$results/failovers"
}
bring_back() { start_ha_name_node $(($1 % 2 + 1)); }

case ${1:-} in
  fail_over|bring_back) "$@"; exit ;;
esac
[ "${KEEP:-}" = 1 ] || trap '"$LAB_SCRIPTS/down.sh"; for i in 1 2 3; do send "jn$i" KILL || true; done' EXIT
[ "${UP:-}" = 1 ] || up
manifest=$results/manifest.yaml
write_rolling_manifest "$manifest"
rm -rf "$results/failovers" "$results/data"
"$BASALT" demo -f "$manifest" --hdfs-conf "$LAB/conf/hdfs" --data "$results/data" --kills "${FAULT_COUNT:-3}" --fault none \
  --fault-command "'$E2E_HDFS/ha.sh' fail_over \$FAULT" --repair-command "'$E2E_HDFS/ha.sh' bring_back \$FAULT" \
  --json "$results/failover.json" --report "$results/failover.html"
none_died "$results/data/logs"
python3 "$E2E_HDFS/judge.py" "$results/failover.json" 2000 2000
