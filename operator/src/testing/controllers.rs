//! The Kubernetes controllers that the operator relies on, in their simplest form: StatefulSets
//! with `OnDelete` and `Parallel`, kubelets, disruption budgets, the garbage collector.

use std::time::Duration;

use md5::{Digest, Md5};
use serde_json::{Value, json};

use super::api_server::{ApiServer, Key, State};

/// The interval between two rounds of the controllers.
const PERIOD: Duration = Duration::from_millis(200);
/// The number of rounds after which a pod is ready, and after which a terminating pod is gone.
const LOOKS_TO_START: u64 = 2;
const LOOKS_TO_STOP: u64 = 2;
/// The number of rounds since a pod was created or asked to terminate.
const LOOKS: &str = "test/looks";
/// Keeps a pod from becoming ready.
pub(crate) const BROKEN: &str = "test/broken";

/// Runs the controllers forever.
pub(crate) async fn run(server: ApiServer) {
    // The version at which a round changed nothing. Until the version changes, there is nothing to
    // do.
    let mut settled = None;
    loop {
        let before = server.lock().version;
        if settled != Some(before) {
            step(&mut server.lock());
            let after = server.lock().version;
            settled = (after == before).then_some(before);
            if after != before {
                server.notify();
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Whether `object` has all `labels`.
pub(super) fn selects(labels: &Value, object: &Value) -> bool {
    let labels = labels.as_object().into_iter().flatten();
    labels.into_iter().all(|(name, value)| object["metadata"]["labels"][name] == *value)
}

pub(super) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

fn step(state: &mut State) {
    let of = |state: &State, plural: &str| -> Vec<(Key, Value)> {
        let found = state.objects.iter().filter(|(key, _)| key.plural == plural);
        found.map(|(key, object)| (key.clone(), object.clone())).collect()
    };
    for (key, set) in of(state, "statefulsets") {
        run_set(state, &key, &set);
    }
    for (key, pod) in of(state, "pods") {
        run_pod(state, &key, &pod);
    }
    for (key, budget) in of(state, "poddisruptionbudgets") {
        run_budget(state, &key, &budget);
    }
    collect_garbage(state);
}

fn run_set(state: &mut State, key: &Key, set: &Value) {
    let text = set["spec"]["template"].to_string();
    let revision = format!("{}-{:.8}", key.name, format!("{:x}", Md5::digest(text)));
    let replicas = set["spec"]["replicas"].as_u64().unwrap_or(1);
    let uid = &set["metadata"]["uid"];
    for index in 0..replicas {
        let pod = Key::new("pods", &key.namespace, &format!("{}-{index}", key.name));
        if state.objects.contains_key(&pod) || set["metadata"]["deletionTimestamp"].is_string() {
            continue;
        }
        let mut object = set["spec"]["template"].clone();
        object["apiVersion"] = json!("v1");
        object["kind"] = json!("Pod");
        object["metadata"]["name"] = json!(pod.name);
        object["metadata"]["namespace"] = json!(pod.namespace);
        object["metadata"]["labels"]["controller-revision-hash"] = json!(revision);
        object["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "StatefulSet", "name": key.name, "uid": uid,
            "controller": true, "blockOwnerDeletion": true,
        }]);
        object["spec"]["nodeName"] = json!(format!("node-{index}"));
        state.create(&pod, object).unwrap();
    }
    let pods = state.objects.iter().filter(|(pod, object)| {
        pod.plural == "pods" && object["metadata"]["ownerReferences"][0]["uid"] == *uid
    });
    let surplus = pods.filter(|(pod, object)| {
        let index = pod.name.rsplit('-').next().and_then(|index| index.parse::<u64>().ok());
        index.is_some_and(|index| index >= replicas)
            && object["metadata"]["deletionTimestamp"].is_null()
    });
    for pod in surplus.map(|(pod, _)| pod.clone()).collect::<Vec<_>>() {
        state.delete(&pod, &json!({})).unwrap();
    }
    state
        .update(key, |set| {
            set["status"]["updateRevision"] = json!(revision);
            set["status"]["observedGeneration"] = set["metadata"]["generation"].clone();
            Ok(())
        })
        .unwrap();
}

fn run_pod(state: &mut State, key: &Key, pod: &Value) {
    let looks = pod["metadata"]["annotations"][LOOKS].as_str().map_or(0, |n| n.parse().unwrap());
    let is_leaving = pod["metadata"]["deletionTimestamp"].is_string();
    let was_leaving = pod["metadata"]["annotations"]["test/leaving"] == "yes";
    let looks: u64 = if is_leaving == was_leaving { looks + 1 } else { 0 };
    if is_leaving && looks >= LOOKS_TO_STOP {
        state.delete(key, &json!({ "gracePeriodSeconds": 0 })).unwrap();
        return;
    }
    let is_broken = pod["metadata"]["labels"][BROKEN].is_string();
    let is_ready = looks >= LOOKS_TO_START && !is_leaving && !is_broken;
    let counted = looks.min(LOOKS_TO_START.max(LOOKS_TO_STOP));
    let now = state.now.clone();
    state
        .update(key, |pod| {
            pod["metadata"]["annotations"][LOOKS] = json!(counted.to_string());
            pod["metadata"]["annotations"]["test/leaving"] =
                json!(if is_leaving { "yes" } else { "no" });
            pod["status"]["podIP"] = json!(address(&key.name));
            if pod["status"]["startTime"].is_null() {
                pod["status"]["startTime"] = json!(now);
            }
            let ready = if is_ready { "True" } else { "False" };
            pod["status"]["conditions"] = json!([{ "type": "Ready", "status": ready }]);
            Ok(())
        })
        .unwrap();
}

/// The address of a pod. A replacement gets the same address, because nothing depends on it.
pub(super) fn address(pod: &str) -> String {
    let digest = Md5::digest(pod);
    format!("10.1.{}.{}", digest[0], digest[1])
}

fn run_budget(state: &mut State, key: &Key, budget: &Value) {
    let selector = &budget["spec"]["selector"]["matchLabels"];
    let pods = state.objects.iter().filter(|(pod, object)| {
        pod.plural == "pods" && pod.namespace == key.namespace && selects(selector, object)
    });
    let healthy =
        pods.filter(|(_, pod)| is_ready(pod) && pod["metadata"]["deletionTimestamp"].is_null());
    let healthy = i64::try_from(healthy.count()).unwrap();
    // The scale of the set that owns the selected pods.
    let set = state.objects.iter().find(|(set, object)| {
        set.plural == "statefulsets"
            && set.namespace == key.namespace
            && selects(selector, &object["spec"]["template"])
    });
    let expected = set.and_then(|(_, set)| set["spec"]["replicas"].as_i64()).unwrap_or(0);
    let unavailable = budget["spec"]["maxUnavailable"].as_i64().unwrap_or(0);
    let allowed = (healthy - (expected - unavailable)).max(0);
    state
        .update(key, |budget| {
            budget["status"]["disruptionsAllowed"] = json!(allowed);
            budget["status"]["observedGeneration"] = budget["metadata"]["generation"].clone();
            Ok(())
        })
        .unwrap();
}

fn collect_garbage(state: &mut State) {
    let uids: Vec<Value> =
        state.objects.values().map(|object| object["metadata"]["uid"].clone()).collect();
    let orphaned = state.objects.iter().filter(|(_, object)| {
        let owners = object["metadata"]["ownerReferences"].as_array();
        owners.is_some_and(|owners| {
            !owners.is_empty() && owners.iter().all(|owner| !uids.contains(&owner["uid"]))
        }) && object["metadata"]["deletionTimestamp"].is_null()
    });
    for key in orphaned.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
        state.delete(&key, &json!({})).unwrap();
    }
}
