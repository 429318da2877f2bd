#!/bin/bash
# node.sh kill|freeze|thaw|start I: what happens to DataNode I (nn: to the NameNode).
#   kill: SIGKILL; freeze, thaw: SIGSTOP, SIGCONT; start: a new process on the same data.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
[ $# = 2 ] || fail "usage: node.sh kill|freeze|thaw|start I"
if [ "$2" = nn ]; then name=nn; else name=dn$2; fi
case $1 in
  kill) send "$name" KILL ;;
  freeze) send "$name" STOP ;;
  thaw) send "$name" CONT ;;
  start)
    running "$name" && exit 0
    renice -n 10 -p $$ >/dev/null
    if [ "$name" = nn ]; then start_name_node; else start_data_node "$2"; fi ;;
  *) fail "no such action: $1" ;;
esac
