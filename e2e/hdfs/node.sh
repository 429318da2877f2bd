#!/bin/bash
# node.sh kill|freeze|thaw|start|ensure I: acts on DataNode I (nn: the NameNode);
# node.sh enter-safe-mode|leave-safe-mode nn;
# node.sh small|fill|large I: gives DataNode I a new, empty disk of 1.5 GB in memory; fills that disk;
#   gives DataNode I its old disk back. Needs root.
#   kill: SIGKILL; freeze, thaw: SIGSTOP, SIGCONT; start: a new process on the same data, after
#   the old one has ended; returns when it listens; ensure: start unless it runs, and on its old disk
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
[ $# = 2 ] || fail "usage: node.sh kill|freeze|thaw|start|ensure|small|fill|large|enter-safe-mode|leave-safe-mode I"
if [ "$2" = nn ]; then name=nn; else name=dn$2; fi
case $1 in
  ensure)
    # A process that was killed a moment ago may still be visible.
    sleep 0.2
    if mountpoint -q "$LAB/data/$name"; then exec "$0" large "$2"; fi
    if running "$name"; then send "$name" CONT; else exec "$0" start "$2"; fi ;;
  kill) send "$name" KILL ;;
  freeze) send "$name" STOP ;;
  thaw) send "$name" CONT ;;
  start)
    for _ in $(seq 50); do running "$name" || break; sleep 0.2; done
    if [ "$name" = nn ]; then
      start_name_node
      wait_port nn "$NAME_NODE_PORT" "$HDFS_HOST"
    else
      start_data_node "$2"
      wait_port "$name" "$(data_node_ipc_port "$2")" "$(data_node_host "$2")"
    fi ;;
  small)
    "$0" kill "$2"
    mount -t tmpfs -o size=1500m,mode=755 basalt-e2e "$LAB/data/$name"
    "$0" start "$2" ;;
  fill)
    # Leaves a little space, so that the disk becomes full in the middle of a write and not before.
    fallocate -l $(($(df --output=avail -B1 "$LAB/data/$name" | tail -1) - 1000000)) "$LAB/data/$name/ballast" ;;
  large)
    "$0" kill "$2"
    for _ in $(seq 50); do umount "$LAB/data/$name" 2>/dev/null && break; sleep 0.2; done
    "$0" start "$2" ;;
  enter-safe-mode|leave-safe-mode)
    "$JAVA" $JDK17_OPENS -cp "$HDFS_CLASSPATH" org.apache.hadoop.hdfs.tools.DFSAdmin -safemode "${1%%-*}" ;;
  *) fail "no such action: $1" ;;
esac
