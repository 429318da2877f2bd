#!/bin/bash
# up.sh [zk] [hdfs] [hbase]: starts the named parts on 127.0.0.1, each server as a separate process,
# and waits until they serve. Without arguments: all parts that STORAGE needs. Settings: env.sh, for
# example
#   MODE=tuned SESSION_MS=6000 HEARTBEAT_S=1 up.sh     short recovery
#   STORAGE=local up.sh                                without HDFS: only ZooKeeper and HBase
#   LAB_INSTANCE=mine PORT_BASE=28000 up.sh            next to another lab
#   CLEAN=1 up.sh                                      delete all data first
# The settings are stored with the instance. Give the same LAB_INSTANCE to down.sh.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
if [ "$STORAGE" = local ]; then parts=${*:-zk hbase}; else parts=${*:-zk hdfs hbase}; fi
case $STORAGE in hdfs|local) ;; *) fail "STORAGE=$STORAGE (allowed: hdfs, local)";; esac
case $MODE in default|tuned) ;; *) fail "MODE=$MODE (allowed: default, tuned)";; esac

for pid_file in "$LAB"/run/*.pid; do
  [ -e "$pid_file" ] || continue
  name=$(basename "$pid_file" .pid)
  if running "$name" && [ "${CLEAN:-}" = 1 ]; then fail "CLEAN=1, but $name runs: down.sh first"; fi
done
if [ "${CLEAN:-}" = 1 ]; then rm -rf "${LAB:?}/data"; fi
"$LAB_SCRIPTS/install.sh" $parts
bash "$LAB_SCRIPTS/configure.sh"

up_zk() {
  start_zookeeper
  wait_port zk "$ZK_PORT"
}

up_hdfs() {
  if [ ! -d "$LAB/data/nn/current" ]; then
    mkdir -p "$LAB/logs"
    "$JAVA" $JDK17_OPENS -cp "$HDFS_CLASSPATH" \
      org.apache.hadoop.hdfs.server.namenode.NameNode -format -nonInteractive -force \
      >"$LAB/logs/format.log" 2>&1 || fail "format failed; its log: $LAB/logs/format.log"
  fi
  start_name_node
  wait_port nn "$NAME_NODE_PORT" "$HDFS_HOST"
  for i in $(seq "$DATA_NODES"); do start_data_node "$i"; done
  for i in $(seq "$DATA_NODES"); do
    wait_port "dn$i" "$(data_node_ipc_port "$i")" "$(data_node_host "$i")"
  done
}

up_hbase() {
  for i in $(seq "$MASTERS"); do start_master "$i"; done
  for i in $(seq "$REGION_SERVERS"); do start_region_server "$i"; done
  for i in $(seq "$MASTERS"); do wait_port "hm$i" "$(master_port "$i")"; done
  for i in $(seq "$REGION_SERVERS"); do wait_port "rs$i" "$(region_server_port "$i")"; done
  for _ in $(seq 480); do
    if grep -qs 'Master has completed initialization' "$LAB"/logs/hm*.log; then return 0; fi
    sleep 0.25
  done
  fail "no master became active within 120 s; logs: $LAB/logs"
}

for part in $parts; do
  SECONDS=0
  case $part in
    zk) up_zk ;;
    hdfs) up_hdfs ;;
    hbase) up_hbase ;;
    *) fail "no such part: $part (parts: zk hdfs hbase)" ;;
  esac
  echo "$part: up after $SECONDS s"
done
echo "zookeeper 127.0.0.1:$ZK_PORT$ZNODE_PARENT, bootstrap servers $(bootstrap_servers), in $LAB"
