//! A server with its controllers and processes, and operators that are started and killed.

use std::sync::Arc;
use std::time::Duration;

use basalt_runtime::{Clock, ClockSource, Random, Seams, Shutdown, Threads};
use serde_json::{Value, json};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep};

use super::ApiServer;
use super::controllers;
use super::processes::Processes;
use crate::run::{Options, run_with};

/// The namespace of the tests' clusters.
pub(crate) const NAMESPACE: &str = "prod";
/// How often a test checks a condition.
const LOOK: Duration = Duration::from_millis(100);

/// Everything that a test of the operator needs.
pub(crate) struct World {
    pub(crate) server: ApiServer,
    pub(crate) processes: Processes,
    controllers: AbortHandle,
    lives: std::cell::Cell<usize>,
}

/// The clock of the API server, which the operator uses too.
struct ServerClock(ApiServer);

/// A running operator. Dropping it kills the operator.
pub(crate) struct Operator(JoinHandle<()>);

// === impl World ===

impl World {
    pub(crate) fn new() -> Self {
        let server = ApiServer::new();
        let controllers = tokio::spawn(controllers::run(server.clone())).abort_handle();
        for index in 0..5 {
            let zone = json!({ "topology.kubernetes.io/zone": format!("zone-{index}") });
            server.write(
                "nodes",
                json!({
                    "apiVersion": "v1", "kind": "Node",
                    "metadata": { "name": format!("node-{index}"), "labels": zone },
                }),
            );
        }
        let world = Self {
            processes: Processes::new(server.clone()),
            server,
            controllers,
            lives: 0.into(),
        };
        world.write_claim("demo-data");
        world
    }

    /// Starts an operator. The previous one must have ended.
    pub(crate) fn operator(&self) -> Operator {
        self.lives.set(self.lives.get() + 1);
        let seams = Seams {
            clock: Clock::new(ServerClock(self.server.clone())),
            random: Random::from_seed(1),
            network: self.processes.network(),
            threads: Threads::default(),
        };
        let options = Options {
            namespace: "basalt-system".to_owned(),
            // The same pod, so the next operator acquires the Lease immediately.
            identity: "basalt-operator".to_owned(),
            watch_namespace: None,
            default_tag: "1.2.3".to_owned(),
        };
        let client = self.server.client();
        Operator(tokio::spawn(async move {
            run_with(client, options, seams, Shutdown::new(), || ()).await.unwrap();
        }))
    }

    pub(crate) fn write_claim(&self, name: &str) {
        self.server.write(
            "persistentvolumeclaims",
            json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": { "name": name, "namespace": NAMESPACE },
            }),
        );
    }

    /// Writes a cluster with these fields in its spec, and with the claim `demo-data`.
    pub(crate) fn write_cluster(&self, name: &str, spec: Value) {
        let mut object = json!({
            "apiVersion": "basalt.db/v1alpha1", "kind": "BasaltCluster",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": { "storage": { "shared": { "claim": "demo-data" } } },
        });
        // `null` is kept: it removes the field from the existing object.
        for (field, value) in spec.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        self.server.write("basaltclusters", object);
    }

    pub(crate) fn cluster(&self, name: &str) -> Value {
        self.server.get("basaltclusters", NAMESPACE, name).unwrap_or_default()
    }

    pub(crate) fn phase(&self, name: &str) -> String {
        self.cluster(name)["status"]["phase"].as_str().unwrap_or_default().to_owned()
    }

    /// Status, reason and message of a condition.
    pub(crate) fn condition(&self, cluster: &str, kind: &str) -> (String, String, String) {
        let cluster = self.cluster(cluster);
        let conditions = cluster["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.into_iter().find(|c| c["type"] == kind).unwrap_or_default();
        let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    /// Waits until `holds`, at most `seconds` of the tests' clock.
    pub(crate) async fn until(&self, seconds: u64, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while !holds(self) {
            assert!(
                Instant::now() < end,
                "not within {seconds} s: {what}; the clusters: {:#}",
                json!(self.server.list("basaltclusters")),
            );
            sleep(LOOK).await;
        }
    }

    pub(crate) async fn until_ready(&self, cluster: &str) {
        self.until(120, "the cluster is ready as it is written", |world| {
            let object = world.cluster(cluster);
            object["status"]["phase"] == "Ready"
                && object["status"]["observedGeneration"] == object["metadata"]["generation"]
        })
        .await;
    }

    /// The uids of a cluster's pods, by name.
    pub(crate) fn pods(&self) -> Vec<(String, String)> {
        let pods = self.server.list("pods");
        let text = |pod: &Value, name: &str| pod["metadata"][name].as_str().unwrap().to_owned();
        pods.iter().map(|pod| (text(pod, "name"), text(pod, "uid"))).collect()
    }

    /// All objects, without values that differ between runs: uids, versions, times.
    pub(crate) fn end_state(&self) -> Vec<String> {
        let kinds = [
            "basaltclusters",
            "basalttables",
            "configmaps",
            "leases",
            "networkpolicies",
            "persistentvolumeclaims",
            "poddisruptionbudgets",
            "podmonitors",
            "pods",
            "rolebindings",
            "roles",
            "serviceaccounts",
            "services",
            "statefulsets",
        ];
        let objects = kinds.iter().flat_map(|plural| {
            self.server.list(plural).into_iter().map(move |object| (plural, object))
        });
        let kept = objects.filter(|(_, object)| object["metadata"]["name"] != "basalt-operator");
        kept.map(|(plural, mut object)| {
            without_what_differs(&mut object);
            format!("{plural} {object:#}")
        })
        .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.controllers.abort();
    }
}

fn without_what_differs(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let differing = [
                "uid",
                "resourceVersion",
                "creationTimestamp",
                "generation",
                "observedGeneration",
                "lastTransitionTime",
                "startTime",
                "test/looks",
                "test/leaving",
            ];
            fields.retain(|name, _| !differing.contains(&name.as_str()));
            fields.values_mut().for_each(without_what_differs);
        }
        Value::Array(list) => list.iter_mut().for_each(without_what_differs),
        _ => {}
    }
}

// === impl ServerClock ===

impl ClockSource for ServerClock {
    fn boot_time(&self) -> Duration {
        self.0.age()
    }

    fn wall_ms(&self) -> u64 {
        self.0.wall_ms()
    }
}

// === impl Operator ===

impl Operator {
    /// Kills the operator, and waits until all its tasks have ended.
    pub(crate) async fn kill(self) {
        self.0.abort();
        tokio::task::yield_now().await;
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) fn notify() -> Arc<tokio::sync::Notify> {
    Arc::default()
}
