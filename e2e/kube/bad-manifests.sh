#!/bin/bash
# bad-manifests.sh: invalid manifests. Each is rejected when it is applied, or reported by a
# condition. Both name the field. The running cluster is not affected: its pods are the same before
# and after.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
. ./lib.sh
wrong=0
count=0

# cluster PATCH: prints a BasaltCluster named `bad` with the spec PATCH merged over a valid spec.
cluster() {
  python3 - "$1" <<'P'
import json, sys
spec = {"storage": {"shared": {"claim": "bad-data"}}}
spec.update(json.loads(sys.argv[1]))
print(json.dumps({"apiVersion": "basalt.db/v1alpha1", "kind": "BasaltCluster",
                  "metadata": {"name": spec.pop("_name", "bad")}, "spec": spec}))
P
}
table() {
  python3 - "$1" <<'P'
import json, sys
spec = {"clusterRef": {"name": "demo"}, "families": [{"name": "f"}]}
spec.update(json.loads(sys.argv[1]))
print(json.dumps({"apiVersion": "basalt.db/v1alpha1", "kind": "BasaltTable",
                  "metadata": {"name": spec.pop("_name", "bad")}, "spec": spec}))
P
}

# refused WHAT WORD KIND PATCH: checks that the API server rejects it with a message that contains
# WORD.
refused() {
  local what=$1 word=$2 answer; count=$((count + 1))
  if answer=$("$3" "$4" | k apply -f - 2>&1); then
    say "  $what was taken"; wrong=$((wrong + 1))
    "$3" "$4" | k delete --wait=false -f - >/dev/null
  elif ! grep -qF "$word" <<<"$answer"; then
    say "  $what: no \"$word\" in: $answer"; wrong=$((wrong + 1))
  fi
}

# shown WHAT WORD KIND PATCH: checks that it is accepted, and that a condition contains WORD.
shown() {
  local what=$1 word=$2 resource=basaltcluster name=bad; count=$((count + 1))
  [ "$3" = cluster ] || resource=basalttable
  "$3" "$4" | k apply -f - >/dev/null
  says() { k get "$resource" "$name" -o jsonpath='{.status.conditions[*].message}' | grep -qF "$word"; }
  until_true 15 says || { say "  $what: $(k get $resource $name -o jsonpath='{.status}')"; wrong=$((wrong + 1)); }
  k delete "$resource" "$name" --wait=true --timeout=30s >/dev/null
}

# changed WHAT WORD PATCH BACK: checks that a change of the running cluster is accepted and a
# condition contains WORD. BACK undoes the change.
changed() {
  local what=$1 word=$2; count=$((count + 1))
  k patch basaltcluster demo --type merge -p "$3" >/dev/null
  says() { k get basaltcluster demo -o jsonpath='{.status.conditions[*].message}' | grep -qF "$word"; }
  until_true 15 says || { say "  $what: $(k get basaltcluster demo -o jsonpath='{.status}')"; wrong=$((wrong + 1)); }
  k patch basaltcluster demo --type merge -p "$4" >/dev/null
  until_true 30 is_phase Ready || { say "  $what could not be undone"; wrong=$((wrong + 1)); }
}

# forbidden WHAT WORD RESOURCE PATCH: checks that a change of the running cluster is rejected.
forbidden() {
  local what=$1 word=$2 answer; count=$((count + 1))
  if answer=$(k patch "$3" --type merge -p "$4" 2>&1); then
    say "  $what was taken"; wrong=$((wrong + 1))
  elif ! grep -qF "$word" <<<"$answer"; then
    say "  $what: no \"$word\" in: $answer"; wrong=$((wrong + 1))
  fi
}

before=$(k get pods -o jsonpath='{.items[*].metadata.uid}')

refused "two coordinators" "1, 3 or 5" cluster '{"coordinator":{"replicas":2}}'
refused "no masters" "from 1 to 9" cluster '{"masters":{"replicas":0}}'
refused "ten masters" "from 1 to 9" cluster '{"masters":{"replicas":10}}'
refused "no region servers" "from 1 to 1000" cluster '{"regionServers":{"replicas":0}}'
refused "too many region servers" "from 1 to 1000" cluster '{"regionServers":{"replicas":1001}}'
refused "a target of half a second" "from 1s to 10m" cluster '{"failover":{"target":"500ms"}}'
refused "a target of an hour" "from 1s to 10m" cluster '{"failover":{"target":"1h"}}'
refused "no storage kind" "exactly one" cluster '{"storage":{}}'
refused "two storage kinds" "exactly one" cluster '{"storage":{"shared":{"claim":"a"},"hdfs":{"nameservice":"n","configMap":"c","root":"/r"}}}'
refused "TLS" "spec.tls does not work yet" cluster '{"tls":{"on":true}}'
refused "access" "spec.access does not work yet" cluster '{"access":{"on":true}}'
refused "a long name" "at most 40" cluster '{"_name":"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"}'
refused "an unknown field" "regionservers" cluster '{"regionservers":{"replicas":3}}'
refused "text for a number" "replicas" cluster '{"masters":{"replicas":"two"}}'
refused "an unknown deletion policy" "deletionPolicy" cluster '{"deletionPolicy":"Shred"}'
refused "an unknown pull policy" "pullPolicy" cluster '{"image":{"pullPolicy":"Sometimes"}}'
shown "HDFS root" "spec.storage.hdfs.root" cluster '{"storage":{"hdfs":{"nameservice":"n","configMap":"c","root":"/r/../s"}}}'
shown "a foreign ZooKeeper" "spec.coordinator.external" cluster '{"coordinator":{"external":{"connect":"zk:2181","znodeParent":"/b"}}}'
shown "a lease longer than the session" "failover" cluster '{"failover":{"overrides":{"servingLease":"2s"}}}'
shown "a heartbeat longer than the election" "failover" cluster '{"failover":{"overrides":{"coordinatorHeartbeat":"2s"}}}'
shown "an unknown setting" "spec.regionServers.config.hbase.no.such" cluster '{"regionServers":{"config":{"hbase.no.such":"1"}}}'
shown "a setting out of range" "hbase.regionserver.maxlogs" cluster '{"regionServers":{"config":{"hbase.regionserver.maxlogs":"1"}}}'
shown "settings of the masters" "spec.masters.config" cluster '{"masters":{"config":{"a":"b"}}}'
shown "a pod monitor" "spec.metrics.podMonitor" cluster '{"metrics":{"podMonitor":true}}'
shown "no local racks" "spec.placement.localRacks" cluster '{"placement":{"localRacks":[]}}'
shown "an empty log level" "spec.logging.level" cluster '{"logging":{"level":""}}'
# The claim must stay, although the cluster's policy is Delete: it belongs to another cluster.
shown "the claim of another cluster" "spec.storage.shared.claim" cluster '{"deletionPolicy":"Delete","storage":{"shared":{"claim":"demo-data"}}}'
[ -z "$(k get pvc demo-data -o jsonpath='{.metadata.deletionTimestamp}')" ] ||
  { say "  the claim of another cluster was deleted"; wrong=$((wrong + 1)); }
# The API server accepts this cluster, but it cannot be read. It must not affect other clusters, and
# it can be deleted.
shown "an amount that is none" "spec.masters.resources.requests.cpu" cluster '{"masters":{"resources":{"requests":{"cpu":"lots"}}}}'
# An object of others with a name that the cluster needs: it is reported, and not touched.
k create service clusterip bad --tcp=80 >/dev/null
theirs=$(k get service bad -o jsonpath='{.metadata.uid} {.metadata.resourceVersion}')
shown "a Service of somebody else" "Service bad exists" cluster '{}'
[ "$(k get service bad -o jsonpath='{.metadata.uid} {.metadata.resourceVersion}')" = "$theirs" ] ||
  { say "  the Service of somebody else was touched"; wrong=$((wrong + 1)); }
k delete service bad >/dev/null
shown "a bad name of a claim" "spec.storage.shared.claim" cluster '{"storage":{"shared":{"claim":"Bad_Claim"}}}'
shown "a cluster without its claim" "spec.storage.shared.claim" cluster '{}'
refused "two replicas of regions" "must be 1" table '{"regionReplicas":2}'
refused "many regions without a split" "split is required" table '{"regions":{"count":5}}'
refused "a split of nothing" "exactly one" table '{"regions":{"count":5,"split":{}}}'
refused "no families" "families" table '{"families":[]}'
refused "a family twice" "Duplicate" table '{"families":[{"name":"f"},{"name":"f"}]}'
refused "no versions" "at least 1" table '{"families":[{"name":"f","versions":0}]}'
refused "an unknown compression" "compression" table '{"families":[{"name":"f","compression":"rar"}]}'
shown "a table of no cluster" "spec.clusterRef.name" table '{"clusterRef":{"name":"nobody"}}'
shown "a table that is there already" "spec.tableName" table '{"tableName":"usertable"}'
shown "another namespace" "spec.namespace" table '{"namespace":"other"}'
shown "descending split keys" "spec.regions.split.keys" table '{"regions":{"split":{"keys":["b","a"]}}}'
changed "five coordinators" "spec.coordinator.replicas" '{"spec":{"coordinator":{"replicas":5}}}' '{"spec":{"coordinator":{"replicas":3}}}'
changed "a member's volume" "spec.coordinator.storage.size" '{"spec":{"coordinator":{"storage":{"size":"2Gi"}}}}' '{"spec":{"coordinator":{"storage":{"size":"1024Mi"}}}}'
forbidden "another claim" "claim is immutable" basaltcluster/demo '{"spec":{"storage":{"shared":{"claim":"other"}}}}'
forbidden "another kind of storage" "immutable" basaltcluster/demo '{"spec":{"storage":{"shared":null,"hdfs":{"nameservice":"n","configMap":"c","root":"/r"}}}}'
forbidden "another number of regions" "spec.regions is immutable" basalttable/usertable '{"spec":{"regions":{"count":13}}}'
forbidden "another cluster of a table" "clusterRef is immutable" basalttable/usertable '{"spec":{"clusterRef":{"name":"b"}}}'
forbidden "another name of a table" "immutable" basalttable/usertable '{"spec":{"tableName":"b"}}'

after=$(k get pods -o jsonpath='{.items[*].metadata.uid}')
[ "$before" = "$after" ] || { say "  the running cluster was touched"; wrong=$((wrong + 1)); }
say "  $count bad manifests, $wrong not told as they should be"
[ "$wrong" -eq 0 ]
