//! Reports to the active master that the container of a region server has terminated. The report is
//! sent at once, without waiting for a reconcile.
//!
//! Each start of a container writes its instance into the termination log, and the kubelet quotes
//! it when that container has ended. So it is certain which life of the process is over, although
//! the process cannot know the id of its container (docs/decisions/0008). A request to delete a pod
//! proves nothing. Neither does a silent node, nor a pod that disappears without a terminated
//! state. A state that the kubelet made up because it could not find the container is no proof
//! either.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use basalt_api::role_file::RoleName;
use basalt_cluster::pb;
use basalt_runtime::{Network, Shutdown};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::observe;
use crate::names;

/// How long a master may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause between two attempts to notify the masters.
const PAUSE: Duration = Duration::from_millis(200);
/// The number of attempts: an election may be in progress.
const ATTEMPTS_MAX: u32 = 50;
/// The maximum number of concurrent notifications. A death that is not reported is noticed later,
/// by the end of the server's stream or of its session.
const NOTIFICATIONS_MAX: usize = 256;
/// The maximum length of an instance that is accepted.
const INSTANCE_BYTES_MAX: usize = 256;

/// The reasons that a kubelet or a container runtime gives after it has lost track of a container,
/// for example after a restart of the machine or of the runtime. The process may still run.
const REASONS_UNKNOWN: [&str; 2] = ["Unknown", "ContainerStatusUnknown"];

/// The state of all pods.
#[derive(Debug, Default)]
struct Pods {
    /// The addresses of the masters of each cluster, by namespace and cluster, then by pod.
    masters: BTreeMap<(String, String), BTreeMap<String, String>>,
    /// The instances whose end was reported, by the uid of their pod.
    notified: BTreeMap<String, BTreeSet<String>>,
}

/// A container that has terminated.
#[derive(Clone, Debug, Eq, PartialEq)]
struct TerminatedContainer {
    pod: String,
    instance: String,
    exit_code: i32,
    cluster: (String, String),
}

/// Watches the pods and notifies the masters, until asked to stop.
pub(crate) async fn watch(
    client: Client,
    namespace: Option<String>,
    network: Network,
    stop: Shutdown,
) {
    let api: Api<Pod> = match &namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let config = watcher::Config::default().labels(names::PODS_SELECTOR);
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut pods = Pods::default();
    let mut notifications = JoinSet::new();
    loop {
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(_) = notifications.join_next() => continue,
            event = events.try_next() => event,
        };
        let terminated = match event {
            Ok(Some(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod))) => pods.see(&pod),
            Ok(Some(watcher::Event::Delete(pod))) => pods.see_last(&pod),
            Ok(Some(_)) => Vec::new(),
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "watching pods failed: trying again");
                Vec::new()
            }
        };
        for container in terminated {
            tracing::info!(
                pod = container.pod,
                instance = container.instance,
                exit_code = container.exit_code,
                "the kubelet reports that a region server's process has ended"
            );
            let masters = pods.masters.get(&container.cluster).cloned().unwrap_or_default();
            if notifications.len() < NOTIFICATIONS_MAX {
                let addresses = masters.into_values().collect();
                notifications.spawn(notify_masters(network.clone(), addresses, container.instance));
            }
        }
    }
}

/// Notifies the active master, whichever it is.
async fn notify_masters(network: Network, masters: Vec<String>, instance: String) {
    for _ in 0..ATTEMPTS_MAX {
        for address in &masters {
            let Some(mut client) = observe::master(&network, address) else { continue };
            let request = pb::ProcessEndedRequest { instance: instance.clone() };
            if let Ok(Ok(_)) = timeout(ANSWER_TIMEOUT, client.process_ended(request)).await {
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    tracing::warn!(instance, "no active master could be notified");
}

// === impl Pods ===

impl Pods {
    /// Records the current state of a pod. Returns its containers that have terminated since the
    /// last call.
    fn see(&mut self, pod: &Pod) -> Vec<TerminatedContainer> {
        let labels = pod.labels();
        let cluster = labels.get(names::INSTANCE_LABEL).cloned().unwrap_or_default();
        let cluster = (pod.namespace().unwrap_or_default(), cluster);
        let role = labels.get(names::COMPONENT_LABEL).map(String::as_str);
        if role == Some(RoleName::Master.subcommand()) {
            let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
            let masters = self.masters.entry(cluster).or_default();
            match address {
                Some(address) => masters.insert(pod.name_any(), address),
                None => masters.remove(&pod.name_any()),
            };
            return Vec::new();
        }
        if role != Some(RoleName::RegionServer.subcommand()) {
            return Vec::new();
        }
        let uid = pod.uid().unwrap_or_default();
        let current = terminated(pod);
        let notified = self.notified.entry(uid.clone()).or_default();
        // The kubelet never quotes an instance again that it no longer quotes.
        notified.retain(|instance| current.iter().any(|(known, _)| known == instance));
        let fresh = current.into_iter().filter(|(instance, _)| {
            // A container may only report processes of its own pod, because it writes the text
            // itself.
            instance.strip_prefix(&uid).is_some_and(|rest| rest.starts_with('/'))
                && notified.insert(instance.clone())
        });
        let container = |(instance, exit_code)| TerminatedContainer {
            pod: pod.name_any(),
            instance,
            exit_code,
            cluster: cluster.clone(),
        };
        fresh.map(container).collect()
    }

    /// Records that a pod is gone.
    fn see_last(&mut self, pod: &Pod) -> Vec<TerminatedContainer> {
        let terminated = self.see(pod);
        self.notified.remove(&pod.uid().unwrap_or_default());
        for masters in self.masters.values_mut() {
            if pod.labels().get(names::COMPONENT_LABEL).is_some_and(|r| r == "master") {
                masters.remove(&pod.name_any());
            }
        }
        self.masters.retain(|_, masters| !masters.is_empty());
        terminated
    }
}

/// The instances of a pod's container that the kubelet reports as ended, with their exit codes.
fn terminated(pod: &Pod) -> Vec<(String, i32)> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let states = statuses.filter(|status| status.name == names::CONTAINER).flat_map(|status| {
        [status.last_state.as_ref(), status.state.as_ref()].into_iter().flatten()
    });
    let is_known = |ended: &&ContainerStateTerminated| {
        !ended.reason.as_deref().is_some_and(|reason| REASONS_UNKNOWN.contains(&reason))
    };
    let ended = states.filter_map(|state| state.terminated.as_ref()).filter(is_known);
    let instance = |ended: &ContainerStateTerminated| {
        let message = ended.message.as_deref()?.trim();
        let fits = !message.is_empty() && message.len() <= INSTANCE_BYTES_MAX;
        // Without a container id no container existed, and no process ran.
        (fits && ended.container_id.is_some()).then(|| (message.to_owned(), ended.exit_code))
    };
    ended.filter_map(instance).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(state: Value, last_state: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": "demo-regionserver-0", "namespace": "prod", "uid": "u1",
                "labels": {
                    "app.kubernetes.io/instance": "demo",
                    "app.kubernetes.io/component": "regionserver",
                },
            },
            "status": { "containerStatuses": [{
                "name": "basalt", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": state, "lastState": last_state,
            }] },
        }))
        .unwrap()
    }

    fn terminated(instance: &str) -> Value {
        let ended = json!({ "exitCode": 137, "containerID": "c://1", "message": instance });
        json!({ "terminated": ended })
    }

    fn instances(containers: Vec<TerminatedContainer>) -> Vec<String> {
        containers.into_iter().map(|container| container.instance).collect()
    }

    #[test]
    fn a_terminated_container_is_reported_once_wherever_it_is_quoted() {
        let mut pods = Pods::default();
        let running = json!({ "running": {} });
        assert!(pods.see(&pod(running.clone(), json!({}))).is_empty());
        assert_eq!(instances(pods.see(&pod(terminated("u1/a"), json!({})))), ["u1/a"]);
        // The container was restarted. The kubelet now quotes the old one as the last state.
        assert!(pods.see(&pod(running, terminated("u1/a"))).is_empty());
        let both = pod(terminated("u1/b"), terminated("u1/a"));
        assert_eq!(instances(pods.see(&both)), ["u1/b"]);
        assert_eq!(pods.notified["u1"].len(), 2);
        let gone = pod(terminated("u1/c"), terminated("u1/b"));
        assert_eq!(instances(pods.see_last(&gone)), ["u1/c"]);
        assert!(pods.notified.is_empty());
    }

    #[test]
    fn a_deletion_request_and_a_waiting_container_say_nothing() {
        let mut pods = Pods::default();
        let mut leaving = pod(json!({ "running": {} }), json!({}));
        leaving.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        assert!(pods.see(&leaving).is_empty());
        assert!(pods.see(&pod(json!({ "waiting": {} }), json!({}))).is_empty());
    }

    #[test]
    fn a_kubelet_that_does_not_know_the_container_proves_no_death() {
        for reason in ["Unknown", "ContainerStatusUnknown"] {
            let mut pods = Pods::default();
            let mut guessed = terminated("u1/a");
            guessed["terminated"]["reason"] = json!(reason);
            assert!(pods.see(&pod(guessed.clone(), json!({}))).is_empty(), "{reason}");
            assert!(pods.see(&pod(json!({}), guessed)).is_empty(), "{reason}");
            // A later, proper state counts.
            let mut known = terminated("u1/a");
            known["terminated"]["reason"] = json!("OOMKilled");
            assert_eq!(instances(pods.see(&pod(known, json!({})))), ["u1/a"]);
        }
    }

    #[test]
    fn no_container_speaks_for_another_pod() {
        let mut pods = Pods::default();
        assert!(pods.see(&pod(terminated("u2/a"), json!({}))).is_empty());
        assert!(pods.see(&pod(terminated("u11/a"), json!({}))).is_empty());
        assert!(pods.see(&pod(terminated(""), json!({}))).is_empty());
    }
}
