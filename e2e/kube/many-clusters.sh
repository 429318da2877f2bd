#!/bin/bash
# many-clusters.sh [CLUSTERS [PODS]]: the cost of one operator with many clusters (default: 20
# clusters of 300 pods). Runs the lab's API server without nodes, the operator and one small `basalt
# local` as processes of this machine. many-clusters.py reports every pod as ready. BASALT: as for
# run.sh. Needs the ports 2181, 16000 and so on. Takes 10 to 20 minutes with 6,000 pods.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
. ./lib.sh
: "${BASALT:?a program basalt}"
RESULTS=${RESULTS:-$(mktemp -d /tmp/basalt-many.XXXXXX)}
mkdir -p "$RESULTS"
pids=()
finish() {
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  ./down.sh
  say "results: $RESULTS"
}
trap finish EXIT
QPS=300 DNS=0 ./up.sh 0
export KUBECONFIG=$W/run/admin.conf
cat >"$RESULTS/cluster.yaml" <<Y
apiVersion: basalt.db/v1alpha1
kind: BasaltCluster
metadata: { name: answering }
spec:
  coordinator: { replicas: 1 }
  masters: { replicas: 1 }
  regionServers: { replicas: 1 }
  storage: { shared: { claim: data } }
Y
"$BASALT" local -f "$RESULTS/cluster.yaml" --data "$RESULTS/data" >"$RESULTS/local.log" 2>&1 &
pids+=($!)
kubectl apply --server-side -f ../../crds/ >/dev/null
kubectl create namespace basalt-system >/dev/null
POD_NAMESPACE=basalt-system POD_NAME=operator "$BASALT" operator --default-tag=none >"$RESULTS/operator.log" 2>&1 &
pids+=($!)
OPERATOR=$! ./many-clusters.py "${1:-20}" "${2:-300}"
