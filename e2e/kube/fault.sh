#!/bin/bash
# fault.sh force-delete|delete|kill|lose-node|cut-node|wait-ready|wait-replaced ROLE: the fault and
# repair commands of the probe. $VICTIM is the host:port of the affected server.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
. ./lib.sh
role=$2
# Faults of masters name no server: they affect the active master, whose pod the Lease names.
case ${VICTIM:-} in *-master)
  VICTIM=$(k get pod "$(lease_holder)" -o jsonpath='{.status.podIP}'):0 ;;
esac
another_uid() { [ "$(k get pod "$1" -o jsonpath='{.metadata.uid}')" != "$2" ]; }
case $1 in
# Like chaos-mesh's pod-kill.
force-delete) k delete pod "$(pod_at "$VICTIM")" --grace-period=0 --force >/dev/null 2>&1 ;;
# As Kubernetes asks a pod to terminate.
delete) k delete pod "$(pod_at "$VICTIM")" --wait=false >/dev/null ;;
kill) kill -9 "$(process_at "$VICTIM" "$role")" ;;
# A whole node of the lab at once, or only its link. Records the pod that was on it.
lose-node|cut-node)
  pod=$(pod_at "$VICTIM")
  node=$(k get pod "$pod" -o jsonpath='{.spec.nodeName}')
  echo "$pod $(k get pod "$pod" -o jsonpath='{.metadata.uid}') $node" >"$RESULTS/lost"
  case $1 in lose-node) ./node.sh kill "${node#n}" ;; cut-node) ./node.sh cut "${node#n}" ;; esac
  echo "[kube]   $pod was on $node" >&2 ;;
# The stuck pod is replaced while the node is still away. Then the node comes back.
wait-replaced)
  read -r pod uid node <"$RESULTS/lost"
  from=$(now_ms)
  until_true 120 another_uid "$pod" "$uid"
  echo "[kube]   $pod was replaced after $(($(now_ms) - from)) ms more" >&2
  if [ -e "/sys/fs/cgroup/freezer/kn${node#n}/cgroup.procs" ] && kill -0 "$(cat "$W/run/$node.pid")" 2>/dev/null
  then ./node.sh join "${node#n}"; else ./node.sh start "${node#n}"; fi
  kubectl wait --for=condition=Ready "node/$node" --timeout=90s >/dev/null
  until_true 180 is_phase Ready ;;
# Waits until the cluster is as before, and then some seconds so that the kubelet's back-off does
# not accumulate.
wait-ready) until_true 120 is_phase Ready ;;
*) echo "no such fault: $1" >&2; exit 2 ;;
esac
