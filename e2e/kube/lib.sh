# shellcheck shell=bash
# lib.sh: common functions of the steps of run.sh. Sourced.

W=${BASALT_LAB:-$HOME/.cache/basalt-lab}/kube
NAMESPACE=${NAMESPACE:-basalt-e2e}
CLUSTER=demo
PATH=$W/bin:$PATH

say() { printf '[kube] %s\n' "$*"; }
now_ms() { date +%s%3N; }
k() { kubectl -n "$NAMESPACE" "$@"; }

# until_true SECONDS COMMAND...: waits until the command succeeds.
until_true() {
  local limit=$(($(now_ms) + $1 * 1000)); shift
  until "$@" >/dev/null 2>&1; do
    [ "$(now_ms)" -lt "$limit" ] || { say "waited in vain for: $*"; return 1; }
    sleep 0.2
  done
}

# condition KIND/NAME TYPE: prints True, False or nothing.
condition() { k get "$1" -o jsonpath="{.status.conditions[?(@.type==\"$2\")].status}"; }
is() { [ "$(condition "$1" "$2")" = True ]; }
phase() { k get basaltcluster "$CLUSTER" -o jsonpath='{.status.phase}'; }
is_phase() { [ "$(phase)" = "$1" ]; }
recoveries() { k get basaltcluster "$CLUSTER" -o jsonpath='{range .status.recoveries[*]}{.at}{"\n"}{end}' | wc -l; }

# pods ROLE: prints the names of its pods.
pods() { k get pods -l "app.kubernetes.io/instance=$CLUSTER,app.kubernetes.io/component=$1" -o name; }
# endpoints ROLE PORT: prints host:port of each of its pods, separated by commas.
endpoints() {
  k get pods -l "app.kubernetes.io/instance=$CLUSTER,app.kubernetes.io/component=$1" \
    -o jsonpath="{range .items[*]}{.status.podIP}:$2 {end}" | tr ' ' ',' | sed 's/,*$//'
}
# pod_at HOST:PORT: prints the name of the pod that has this address.
pod_at() {
  k get pods -o jsonpath='{range .items[*]}{.status.podIP} {.metadata.name}{"\n"}{end}' |
    awk -v ip="${1%:*}" '$1 == ip { print $2 }'
}
# lease_holder: prints the pod of the master that holds the Lease.
lease_holder() {
  local holder
  holder=$(k get lease "$CLUSTER-master" -o jsonpath='{.spec.holderIdentity}')
  echo "${holder%_*}"
}
# process_at HOST:PORT ROLE: prints the pid of that pod's process on this machine (the lab's nodes
# are namespaces).
process_at() {
  local pid
  for pid in $(pgrep -f "basalt $2 --config /etc/basalt" || true); do
    tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -qx "POD_IP=${1%:*}" && echo "$pid"
  done | head -n 1
}

# probe NAME ARGUMENTS...: measures, writes RESULTS/NAME.json, and prints the most important
# figures.
probe() {
  local name=$1; shift
  basalt probe --patience 1m --zk "$(endpoints coordinator 2181)" --table "${TABLE:-basalt_probe}" \
    --json "$RESULTS/$name.json" --report "$RESULTS/$name.html" "$@" >"$RESULTS/$name.log" 2>&1 ||
    { tail -n 20 "$RESULTS/$name.log"; return 1; }
  figures "$RESULTS/$name.json"
}

# figures FILE: prints the most important figures of a probe's report.
figures() {
  python3 - "$1" <<'P'
import json, sys
r = json.load(open(sys.argv[1]))
s = r["summary"]
print("[kube]   faults %d, write outage ms %s, read outage ms %s, bystander failures %s, acked %s, lost %s" % (
    len(r["faults"]), s.get("write_outage_ms"), s.get("read_outage_ms"),
    s.get("bystander_failures"), s.get("acked"), s.get("lost")))
taken_over = sorted(f["phases_ms"]["total"] for f in r["faults"] if f["victim"].endswith("-master"))
if taken_over:
    print("[kube]   another master after ms: p50 %.0f, max %.0f" % (
        taken_over[len(taken_over) // 2], taken_over[-1]))
for fault in r["faults"]:
    print("[kube]   %(victim)s at %(at_ms).0f ms, %(regions)d regions: write %(write_outage_ms)s" % fault)
P
}
