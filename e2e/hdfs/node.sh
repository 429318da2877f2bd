#!/bin/bash
# node.sh kill|freeze|thaw|start|ensure I: what happens to DataNode I (nn: to the NameNode).
#   kill: SIGKILL; freeze, thaw: SIGSTOP, SIGCONT; start: a new process on the same data, once
#   the old one is gone; returns when it listens; ensure: start unless it runs.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
[ $# = 2 ] || fail "usage: node.sh kill|freeze|thaw|start|ensure I"
if [ "$2" = nn ]; then name=nn; else name=dn$2; fi
case $1 in
  ensure)
    # One that was killed a moment ago may still be seen.
    sleep 0.2
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
      wait_port "$name" "$(data_node_ipc_port "$2")" "$HDFS_HOST"
    fi ;;
  *) fail "no such action: $1" ;;
esac
