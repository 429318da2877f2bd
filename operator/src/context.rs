//! The shared context of all reconcilers.

use std::collections::BTreeMap;

use basalt_api::{BasaltCluster, BasaltTable};
use basalt_runtime::{Seams, Shutdown};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::events::{Event, Recorder};
use kube::runtime::reflector::{self, ObjectRef, Store, reflector};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};

use crate::cluster::{Applied, Evictions};

/// A cluster in a watch. A cluster that cannot be read is an error in its place and does not affect
/// others.
pub(crate) type WatchedCluster = DeserializeGuard<BasaltCluster>;
/// A table in a watch.
pub(crate) type WatchedTable = DeserializeGuard<BasaltTable>;

/// The operator's access to the API server and the machine.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) seams: Seams,
    pub(crate) recorder: Recorder,
    /// The image tag for clusters that name none.
    pub(crate) default_tag: String,
    pub(crate) applied: Applied,
    pub(crate) evictions: Evictions,
    pub(crate) nodes: Nodes,
    /// All clusters, from a watch.
    pub(crate) clusters: Store<WatchedCluster>,
    /// All tables, from a watch.
    pub(crate) tables: Store<WatchedTable>,
}

/// The nodes, from a watch, for their racks. Empty if the operator has no permission to read them.
#[derive(Clone)]
pub(crate) struct Nodes(pub(crate) Store<PartialObjectMeta<Node>>);

// === impl Context ===

impl Context {
    /// Publishes an Event. A failure is only logged, because nothing depends on Events.
    pub(crate) async fn publish(&self, event: &Event, about: &ObjectReference) {
        if let Err(error) = self.recorder.publish(event, about).await {
            tracing::warn!(reason = event.reason, %error, "publishing an Event failed");
        }
    }
}

/// Counts the outcome of one round of an object of kind `K`, and the objects that cannot be read.
pub(crate) fn count_round<K>(store: &Store<DeserializeGuard<K>>, is_ok: bool)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let kind = K::kind(&()).into_owned();
    let outcome = if is_ok { "ok" } else { "error" };
    let unreadable = store.state().iter().filter(|object| object.0.is_err()).count();
    let unreadable = u32::try_from(unreadable).unwrap_or(u32::MAX);
    metrics::gauge!("basalt_operator_unreadable_objects", "kind" => kind.clone())
        .set(f64::from(unreadable));
    metrics::counter!("basalt_operator_rounds_total", "kind" => kind, "outcome" => outcome)
        .increment(1);
}

/// Logs and counts an error of a watch. The watch itself tries again.
pub(crate) fn watch_failed(kind: &str, error: &dyn std::error::Error) {
    tracing::warn!(kind, %error, "a watch failed: trying again");
    metrics::counter!("basalt_operator_watch_errors_total", "kind" => kind.to_owned()).increment(1);
}

// === impl Nodes ===

impl Nodes {
    /// Watches all nodes until `stop`.
    pub(crate) fn watch(client: Client, stop: Shutdown) -> Self {
        let (nodes, writer) = reflector::store();
        let nodes_of_all = Api::<PartialObjectMeta<Node>>::all(client);
        let events = watcher(nodes_of_all, watcher::Config::default());
        let events = reflector(writer, events.default_backoff());
        tokio::spawn(async move {
            let seen = events.for_each(|event| async {
                if let Err(error) = event {
                    watch_failed("Node", &error);
                }
            });
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = seen => {}
            }
        });
        Self(nodes)
    }

    /// No nodes at all.
    pub(crate) fn unseen() -> Self {
        Self(reflector::store().0)
    }

    /// The value of the node's label `label`.
    pub(crate) fn rack(&self, node: &str, label: &str) -> Option<String> {
        self.0.get(&ObjectRef::new(node))?.metadata.labels.as_ref()?.get(label).cloned()
    }
}

/// The objects of `store` in `namespace`, by name.
pub(crate) fn in_namespace<K>(
    store: &Store<DeserializeGuard<K>>,
    namespace: &str,
) -> BTreeMap<String, std::sync::Arc<DeserializeGuard<K>>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let all = store.state().into_iter();
    let here = all.filter(|object| object.meta().namespace.as_deref() == Some(namespace));
    here.filter_map(|object| Some((object.meta().name.clone()?, object))).collect()
}
