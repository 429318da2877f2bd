#!/bin/bash
# fault.sh force-delete|kill|wait-ready ROLE: what the probe runs as a fault or a repair; $VICTIM is the
# host:port of the server that is concerned.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib.sh"
role=$2
case $1 in
# What chaos-mesh's pod-kill does.
force-delete) k delete pod "$(pod_at "$VICTIM")" --grace-period=0 --force >/dev/null 2>&1 ;;
kill) kill -9 "$(process_at "$VICTIM" "$role")" ;;
# The cluster as it was, and some seconds for the kubelet's back-off not to add up.
wait-ready) until_true 120 is_phase Ready ;;
*) echo "no such fault: $1" >&2; exit 2 ;;
esac
