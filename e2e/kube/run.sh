#!/bin/bash
# run.sh: Basalt on a real Kubernetes, from `helm install` to the cost of a lost server.
#
# Without KUBECONFIG the lab of this folder is built (once) and started: 3 nodes in 3 zones. With
# KUBECONFIG that cluster is used. Its pods must be reachable from here, the image must be present,
# and the claims demo-data (ReadWriteMany) and report must exist in $NAMESPACE. kill -9 needs the
# lab, whose processes are on this machine.
#   BASALT     a static `basalt`; without it one is built (target x86_64-unknown-linux-musl)
#   KILLS      how many times each fault is injected, default 3 (9 for the published figures)
#   STEPS      the steps to run, default all; see below
#   KEEP=1     leave everything running
#   RESULTS    the folder for reports and logs, default a new folder under /tmp
# Prints "[kube] ok STEP" or "[kube] FAILED STEP". Exits with 0 only if every step is ok.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
. ./lib.sh

STEPS=${STEPS:-install available table probe force-delete kill kill-master term-master scale roll
  roll-operator upgrade java api-away lost-node cut-node bad hygiene hdfs}
KILLS=${KILLS:-3}
RESULTS=${RESULTS:-$(mktemp -d /tmp/basalt-kube.XXXXXX)}
IMAGE=${IMAGE:-basalt:0.1.0}
ROOT=$(cd ../.. && pwd)
mkdir -p "$RESULTS"
export RESULTS NAMESPACE IMAGE
# Exported for a run within this run.
export USES_LAB=${USES_LAB-$([ -z "${KUBECONFIG:-}" ] && echo 1 || true)}
uses_lab=$USES_LAB
failed=0

# --- the ground ------------------------------------------------------------------------------------

need_packages() {
  local package missing=()
  for package in containerd runc containernetworking-plugins conntrack nftables iproute2 openssl bc curl; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}

need_basalt() {
  local target=x86_64-unknown-linux-musl
  if [ -z "${BASALT:-}" ]; then
    (cd "$ROOT" && cargo build --release --target $target -p basalt)
    BASALT=${CARGO_TARGET_DIR:-$ROOT/target}/$target/release/basalt
  fi
  export BASALT
  mkdir -p "$RESULTS/bin"
  ln -sfn "$(readlink -f "$BASALT")" "$RESULTS/bin/basalt"
  PATH=$RESULTS/bin:$PATH
}

start_lab() {
  need_packages
  [ -x "$W/bin/helm" ] || ./build.sh
  export KUBECONFIG=$W/run/admin.conf
  # A container's restart is a part of what is measured, but the kubelet's back-off is not.
  local volume
  if ! kubectl get nodes >/dev/null 2>&1; then
    # The data belongs to a cluster whose API server is gone, so nothing needs it.
    rm -rf "$W/volumes"
    CRASHMAX=${CRASHMAX:-2s} ./up.sh 3
  fi
  ./image.sh "$BASALT" "$IMAGE"
  for volume in demo-data member-0 member-1 member-2 report; do
    mkdir -p "$W/volumes/$volume"
    chown 65532:65532 "$W/volumes/$volume"
  done
}

prepare_namespace() {
  kubectl create namespace "$1" --dry-run=client -o yaml | kubectl apply -f - >/dev/null
  kubectl label --overwrite namespace "$1" pod-security.kubernetes.io/enforce=restricted >/dev/null
}

prepare_namespaces() {
  prepare_namespace basalt-system
  prepare_namespace "$NAMESPACE"
  [ -z "$uses_lab" ] ||
    sed "s#NAMESPACE#$NAMESPACE#; s#VOLUMES#$W/volumes#" volumes.yaml | kubectl apply -f - >/dev/null
}

finish() {
  local code=$?
  [ "$code" -eq 0 ] || story >"$RESULTS/story.log" 2>&1 || true
  if [ -z "${KEEP:-}" ]; then
    if [ -n "$uses_lab" ]; then ./down.sh; else
      k delete basalttable,basaltcluster --all --wait=true --timeout=60s || true
      helm uninstall -n basalt-system basalt-operator || true
    fi
  fi
  say "results: $RESULTS"
}

# Collects what helps to analyse a failure.
story() {
  k get basalt,sts,pods,pvc,events -o wide
  k describe basaltcluster
  kubectl -n basalt-system logs deploy/basalt-operator --tail=200
  local pod
  for pod in $(k get pods -o name); do echo "== $pod"; k logs "$pod" --tail=60; k logs "$pod" -p --tail=60; done
}

# --- the steps -------------------------------------------------------------------------------------

step_install() {
  helm upgrade --install basalt-operator "$ROOT/charts/basalt-operator" -n basalt-system \
    --set image.repository="${IMAGE%:*}" --set image.tag="${IMAGE##*:}" --wait --timeout 60s >/dev/null
}

# From the start of `helm install` and `kubectl apply`: at most 60 s, with the images present.
step_available() {
  k apply -f "$ROOT/examples/cluster.yaml" >/dev/null
  until_true 60 is "basaltcluster/$CLUSTER" Available
  say "  available $(($(now_ms) - began)) ms after helm install began"
  until_true 60 is_phase Ready
}

step_table() {
  until_true 60 is basalttable/usertable Ready
  [ "$(k get basalttable usertable -o jsonpath='{.status.regions}')" = 12 ]
}

step_probe() { probe probe --duration 10s; }

step_force_delete() {
  probe force-delete --faults "$KILLS" --calm 8s --fault-kind kill-regionserver \
    --fault-command "$PWD/fault.sh force-delete regionserver" \
    --repair-command "$PWD/fault.sh wait-ready regionserver"
}

# Kills only the process, as a crash does: the container ends, and the pod stays.
step_kill() {
  probe kill --faults "$KILLS" --calm 8s --fault-kind kill-regionserver \
    --fault-command "$PWD/fault.sh kill regionserver" \
    --repair-command "$PWD/fault.sh wait-ready regionserver"
  k get basaltcluster "$CLUSTER" -o jsonpath='{range .status.recoveries[*]}[kube]   {.server} {.cause} total {.totalMs} ms{"\n"}{end}'
  [ "$(recoveries)" -ge 1 ]
}

step_kill_master() { end_master kill; }
step_term_master() { end_master delete; }
# end_master HOW: no request may fail.
end_master() {
  local kind=kill-master
  [ "$1" = kill ] || kind=term-master
  probe "$kind" --faults "$KILLS" --calm 6s --fault-kind "$kind" \
    --fault-command "$PWD/fault.sh $1 master" \
    --repair-command "$PWD/fault.sh wait-ready master"
  none_failed "$kind"
  # The Lease names the pod of the active master, and the Service routes only to it.
  until_true 30 holds_lease
  until_true 30 leads_to_active
}

holds_lease() {
  local active
  active=$(k get basaltcluster "$CLUSTER" -o jsonpath='{.status.activeMaster}')
  [ -n "$active" ] && [ "$(lease_holder)" = "$active" ]
}

leads_to_active() {
  local active
  active=$(k get pod "$(k get basaltcluster "$CLUSTER" -o jsonpath='{.status.activeMaster}')" -o jsonpath='{.status.podIP}')
  [ "$(k get endpoints "$CLUSTER-active-master" -o jsonpath='{.subsets[*].addresses[*].ip}')" = "$active" ]
}

# none_failed NAME: checks that no request failed in a region that was not on a victim.
none_failed() {
  python3 -c 'import json, sys; sys.exit(json.load(open(sys.argv[1]))["summary"]["bystander_failures"] > 0)' \
    "$RESULTS/$1.json" || { say "  requests failed in regions that no fault concerned"; return 1; }
}

# The time of the last recovery. Empty before the first.
last_recovery() { k get basaltcluster "$CLUSTER" -o jsonpath='{range .status.recoveries[*]}{.at}{"\n"}{end}' | sed -n 1p; }

# available_since: when the cluster became available, with a quorum, a master and a region server.
available_since() { k get basaltcluster "$CLUSTER" -o jsonpath='{.status.conditions[?(@.type=="Available")].lastTransitionTime}'; }

# planned NAME SECONDS CHANGE...: makes the change while a probe runs in the cluster. The probe
# finds the members of the coordinator by their Service, because all of them get new addresses. No
# request may fail, and nothing may be lost or recovered. Prints how long regions were unavailable.
planned() {
  local name=$1 seconds=$2 before after since; shift 2
  before=$(last_recovery)
  since=$(available_since)
  k delete job probe-probe --ignore-not-found >/dev/null
  rm -f "$W/volumes/report/report.json"
  helm template probe "$ROOT/charts/basalt-mttr" -n "$NAMESPACE" -s templates/probe.yaml \
    --set cluster="$CLUSTER",image.repository="${IMAGE%:*}",image.tag="${IMAGE##*:}" \
    --set probe.duration="${seconds}s",report.claim=report | k apply -f - >/dev/null
  sleep 5
  "$@"
  say "  $name done after $(($(now_ms) - from)) ms"
  k wait --for=condition=Complete job/probe-probe --timeout="$((seconds + 60))s" >/dev/null ||
    { k logs job/probe-probe --tail=20; return 1; }
  if [ -n "$uses_lab" ]; then
    cp "$W/volumes/report/report.json" "$RESULTS/$name.json"
    figures "$RESULTS/$name.json"
  else
    k logs job/probe-probe --tail=12
  fi
  after=$(last_recovery)
  [ "$before" = "$after" ] || { say "  a recovery was recorded at $after"; return 1; }
  [ "$since" = "$(available_since)" ] || { say "  the cluster was not available for a while"; return 1; }
  [ -z "$uses_lab" ] || none_failed "$name"
}

ready_with() { [ "$(k get basaltcluster "$CLUSTER" -o jsonpath='{.status.phase} {.status.readyMembers} {.status.observedGeneration}')" = "Ready $1/$1 $(k get basaltcluster "$CLUSTER" -o jsonpath='{.metadata.generation}')" ]; }
scale_to() { k scale basaltcluster "$CLUSTER" --replicas="$1" >/dev/null; until_true 120 ready_with $((5 + $1)); }
scale_out_and_in() { scale_to 5; sleep 8; scale_to 3; }
step_scale() { planned scale 60 scale_out_and_in; }

# A changed log level changes the file of every role, so all 8 pods are replaced, one by one.
roll() { replace_all "{\"spec\":{\"logging\":{\"level\":\"info,e2e_$(now_ms)=debug\"}}}"; }
# A different image tag, as in an upgrade. The next call changes back to the first one.
upgrade() {
  local tag=${IMAGE##*:}-next running
  running=$(k get basaltcluster "$CLUSTER" -o jsonpath='{.spec.image.tag}')
  [ "$running" != "$tag" ] || tag=${IMAGE##*:}
  [ -z "$uses_lab" ] || ./image.sh "$BASALT" "${IMAGE%:*}:$tag" >/dev/null
  replace_all "{\"spec\":{\"image\":{\"tag\":\"$tag\"}}}"
  k get pods -l "app.kubernetes.io/instance=$CLUSTER" -o jsonpath='{.items[*].spec.containers[*].image}' |
    tr ' ' '\n' | sort -u | grep -qx "${IMAGE%:*}:$tag"
}
replace_all() {
  local pods_before
  pods_before=$(k get pods -l "app.kubernetes.io/instance=$CLUSTER" -o jsonpath='{.items[*].metadata.uid}')
  k patch basaltcluster "$CLUSTER" --type merge -p "$1" >/dev/null
  until_true 300 ready_with 8
  local uid
  for uid in $(k get pods -l "app.kubernetes.io/instance=$CLUSTER" -o jsonpath='{.items[*].metadata.uid}'); do
    case " $pods_before " in *" $uid "*) say "  a pod was not replaced"; return 1 ;; esac
  done
}
# The operator is killed three times in the meantime. Each new one waits for its Lease.
kill_operator() {
  for _ in 1 2 3; do
    sleep 6
    kubectl -n basalt-system delete pod -l app.kubernetes.io/name=basalt-operator \
      --grace-period=0 --force >/dev/null 2>&1
  done
}
roll_while_the_operator_dies() {
  kill_operator &
  roll
  wait
}
step_roll() { planned roll 75 roll; }
step_upgrade() { planned upgrade 75 upgrade; }
step_roll_operator() { planned roll-operator 150 roll_while_the_operator_dies; }

# All these changes while the stock Java client runs in the network of a node, where the addresses
# of the members' Services are reachable. No request of the client may fail, and nothing may be
# recovered.
step_java() {
  local quorum
  quorum=$(k get service -l "app.kubernetes.io/instance=$CLUSTER" -o jsonpath='{range .items[*]}{.metadata.name} {.spec.clusterIP}{"\n"}{end}' |
    awk '$1 ~ /-coordinator-[0-9]+$/ { print $2 }' | paste -sd,)
  ../java/build.sh >"$RESULTS/java-build.log" 2>&1
  before=$(last_recovery)
  nsenter --net=/run/netns/kn1 ../java/stock-client.sh --registry zk --zk-quorum "$quorum" --zk-port 2181 \
    --znode-parent /hbase --table e2e --json "$RESULTS/java.json" --seconds 240 --kill-max-s 230 \
    --kill "$PWD/run.sh changes" --kill-log "$RESULTS/java-changes.log" across-kill >"$RESULTS/java.log" 2>&1 || {
    cat "$RESULTS/java-changes.log"
    grep -m 3 '^FAILED' "$RESULTS/java.log" | cut -c1-300
    return 1
  }
  grep '^\[kube\]' "$RESULTS/java-changes.log"
  python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); print("[kube]  ", {k: v for k, v in r.items() if not isinstance(v, (list, dict))}, r.get("result"))' "$RESULTS/java.json" | cut -c1-600
  [ "$before" = "$(last_recovery)" ] || { say "  a recovery was recorded"; return 1; }
}
changes() {
  local change
  for change in roll_while_the_operator_dies upgrade scale_out_and_in; do
    from=$(now_ms)
    "$change"
    say "  $change: $(($(now_ms) - from)) ms"
  done
}

# The API server is paused for two minutes, and a region server dies in the meantime.
step_api_away() {
  local api; api=$(cat "$W/run/apiserver.pid")
  (sleep 3; kill -STOP "$api"; sleep 120; kill -CONT "$api") &
  probe api-away --faults 1 --calm 55s --fault-kind kill-regionserver \
    --fault-command "$PWD/fault.sh kill regionserver" --repair-command true || { kill -CONT "$api"; return 1; }
  wait
  none_failed api-away
  until_true 120 is_phase Ready
}

# A whole node with everything on it: a power loss, and in another step only a cut link.
step_lost_node() { lost_node lose-node; }
step_cut_node() { lost_node cut-node; }
lost_node() {
  probe "$1" --faults 1 --calm 5s --fault-kind kill-regionserver --fault-command "$PWD/fault.sh $1 regionserver" \
    --repair-command "$PWD/fault.sh wait-replaced regionserver"
  grep '^\[kube\]' "$RESULTS/$1.log" || true
}

step_bad() { ./bad-manifests.sh; }

# kubectl prints the objects one after the other.
as_list() { python3 -c 'import json, sys; d = json.JSONDecoder(); t = sys.stdin.read().strip(); o = []
while t:
    one, end = d.raw_decode(t)
    o += one["items"] if one["kind"] == "List" else [one]
    t = t[end:].strip()
print(json.dumps({"items": o}))'; }

# The restricted pod security level is enforced in all steps. This step checks the charts and the
# objects that they create.
step_hygiene() {
  helm lint --strict "$ROOT/charts/basalt-operator" "$ROOT/charts/basalt-mttr" >/dev/null
  helm template basalt-operator "$ROOT/charts/basalt-operator" -n basalt-system |
    kubectl apply --dry-run=server -f - >/dev/null 2>&1
  helm template basalt-operator "$ROOT/charts/basalt-operator" -n basalt-system |
    kubectl create --dry-run=client -o json -f - | as_list | ./lint.py
  k get sts,svc,sa,pdb,role,rolebinding,job -o json | ./lint.py
  if [ -n "${CHAOS_MESH_CRDS:-}" ]; then
    kubectl apply --server-side -f "$CHAOS_MESH_CRDS" >/dev/null
    until_true 10 kubectl get podchaos -A
    helm template mttr "$ROOT/charts/basalt-mttr" -n "$NAMESPACE" |
      kubectl apply --dry-run=server --validate=strict -f - >/dev/null
  fi
}

# A second cluster, in a separate namespace, with its data on a real HDFS of this machine. No volume
# is shared, and the settings come from a ConfigMap. Only on the lab.
step_hdfs() {
  [ -n "$uses_lab" ] || { say "CANNOT RUN: pods reach an HDFS of this machine on the lab only"; return 1; }
  export NAMESPACE=basalt-hdfs LAB_INSTANCE=hdfs-kube HDFS_HOST=10.89.0.1
  trap '[ $? -eq 0 ] || story >"$RESULTS/hdfs-story.log" 2>&1 || true; ../hdfs/down.sh' EXIT
  CLEAN=1 ../hdfs/up.sh
  prepare_namespace "$NAMESPACE"
  local folder=$W/volumes/hdfs number conf=${BASALT_LAB:-$HOME/.cache/basalt-lab}/hbase/instances/hdfs-kube/conf/hdfs
  for number in 0 1 2; do
    mkdir -p "$folder/member-$number"
    chown 65532:65532 "$folder/member-$number"
  done
  awk 'BEGIN { RS = "---\n" } /member-demo/ { print "---"; print }' volumes.yaml |
    sed "s#NAMESPACE#$NAMESPACE#; s#VOLUMES#$folder#; s#{ name: demo-#{ name: hdfs-#" | kubectl apply -f - >/dev/null
  k create configmap hdfs-client --from-file="$conf/core-site.xml" --from-file="$conf/hdfs-site.xml" >/dev/null
  local from
  from=$(now_ms)
  sed "s#nameservice: prod #nameservice: \"$(sed -nE 's#.*hdfs://([^<]*)<.*#\1#p' "$conf/core-site.xml")\" #" \
    "$ROOT/examples/hdfs.yaml" | k apply -f - >/dev/null
  until_true 60 is "basaltcluster/$CLUSTER" Available
  say "  available after $(($(now_ms) - from)) ms"
  until_true 60 is basalttable/usertable Ready
  # The cluster serves as soon as two of three coordinators do, but the probe needs all of them.
  until_true 60 is_phase Ready
  # The settings of HDFS must fit the failover target, and the fence must have been rehearsed.
  until_true 90 is "basaltcluster/$CLUSTER" StorageTuned
  probe hdfs --faults "$KILLS" --calm 8s --fault-kind kill-regionserver \
    --fault-command "$PWD/fault.sh kill regionserver" \
    --repair-command "$PWD/fault.sh wait-ready regionserver"
  k delete basalttable,basaltcluster --all --wait=true --timeout=60s >/dev/null
}

# --- all of it -------------------------------------------------------------------------------------

if [ "${1:-}" = changes ]; then
  # Called by step java, during the stock client's run.
  changes
  exit
fi
trap finish EXIT
need_basalt
[ -z "$uses_lab" ] || start_lab
prepare_namespaces
began=$(now_ms)
for step in $STEPS; do
  from=$(now_ms)
  # In its own subshell and not in a condition. Otherwise a failed command in the step would not end
  # the step.
  set +e
  (set -e; "step_${step//-/_}")
  code=$?
  set -e
  if [ "$code" -eq 0 ]; then
    say "ok $step ($(($(now_ms) - from)) ms)"
  else
    say "FAILED $step ($(($(now_ms) - from)) ms)"
    failed=$((failed + 1))
    case $step in install|available) break ;; esac
  fi
done
[ "$failed" -eq 0 ]
