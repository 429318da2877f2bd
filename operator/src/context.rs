//! What every reconciler has at hand.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_runtime::{Seams, Shutdown};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::core::PartialObjectMeta;
use kube::runtime::events::{Event, Recorder};
use kube::runtime::reflector::{self, ObjectRef, Store, reflector};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The operator's way to the API server and the machine.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) seams: Seams,
    pub(crate) recorder: Recorder,
    /// The tag of the image where a cluster names none.
    pub(crate) default_tag: String,
    pub(crate) applied: Applied,
    pub(crate) nodes: Nodes,
}

/// The nodes, watched, for their racks. Empty where the operator has no right to see them.
#[derive(Clone)]
pub(crate) struct Nodes(pub(crate) Store<PartialObjectMeta<Node>>);

/// What was applied for each cluster, so that it is not written again each time that it is looked
/// at. What somebody changed or deleted by hand is mended when it has become old.
#[derive(Default)]
pub(crate) struct Applied(Mutex<BTreeMap<String, (String, Instant)>>);

/// After this time everything is applied again.
const APPLIED_AGE_MAX: Duration = Duration::from_mins(5);

// === impl Context ===

impl Context {
    /// Publishes an Event. One that is lost is only logged: it tells, and decides nothing.
    pub(crate) async fn publish(&self, event: &Event, about: &ObjectReference) {
        if let Err(error) = self.recorder.publish(event, about).await {
            tracing::warn!(reason = event.reason, %error, "an Event was not published");
        }
    }
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
                    tracing::warn!(%error, "watching nodes: trying again");
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

    /// None at all.
    pub(crate) fn unseen() -> Self {
        Self(reflector::store().0)
    }

    /// What `node` has under `label`.
    pub(crate) fn rack(&self, node: &str, label: &str) -> Option<String> {
        self.0.get(&ObjectRef::new(node))?.metadata.labels.as_ref()?.get(label).cloned()
    }
}

// === impl Applied ===

impl Applied {
    /// Whether objects with this fingerprint were applied lately for the cluster with this uid.
    pub(crate) fn is_fresh(&self, uid: &str, fingerprint: &str) -> bool {
        let applied = self.0.lock();
        applied
            .get(uid)
            .is_some_and(|(known, since)| known == fingerprint && since.elapsed() < APPLIED_AGE_MAX)
    }

    /// They have just been applied.
    pub(crate) fn note(&self, uid: &str, fingerprint: String) {
        self.0.lock().insert(uid.to_owned(), (fingerprint, Instant::now()));
    }

    /// The cluster is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}
