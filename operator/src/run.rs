//! The life of the operator: it waits for the Lease, and reconciles until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use basalt_api::{BasaltCluster, BasaltTable};
use basalt_runtime::{Seams, Shutdown};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, controller, watcher};
use kube::{Api, Client, Resource, ResourceExt};

use crate::cluster::{ended, reconcile};
use crate::context::{Applied, Context, Nodes};
use crate::error::{Asked, Error};
use crate::lease::Election;
use crate::{names, table};

/// What the operator is told when it starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its own namespace, where its Lease lies.
    pub namespace: String,
    /// The name of its pod: who holds the Lease.
    pub identity: String,
    /// The only namespace that it looks at; without one all.
    pub watch_namespace: Option<String>,
    /// The tag of the image where a cluster names none.
    pub default_tag: String,
}

/// How many resources of a kind are reconciled at a time.
const CONCURRENCY: u16 = 8;
/// Changes that come closer together are one.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Runs the operator until `stop`.
///
/// # Errors
/// There is no way to an API server, or another operator has the Lease.
pub async fn run(
    options: Options,
    seams: Seams,
    stop: Shutdown,
    ready: impl FnOnce(),
) -> Result<(), Error> {
    let client = Client::try_default().await.asked(|| "finding the API server".to_owned())?;
    run_with(client, options, seams, stop, ready).await
}

/// [`run()`] with an API server that was found.
pub(crate) async fn run_with(
    client: Client,
    options: Options,
    seams: Seams,
    stop: Shutdown,
    ready: impl FnOnce(),
) -> Result<(), Error> {
    let election =
        Election::new(client.clone(), &options.namespace, &options.identity, seams.clock.clone());
    // One that waits is as ready as it can be.
    ready();
    tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        () = election.acquire() => {}
    }
    tracing::info!(identity = options.identity, "in charge");
    let reporter = Reporter {
        controller: names::FIELD_MANAGER.to_owned(),
        instance: Some(options.identity.clone()),
    };
    let working = stop.child_token();
    // Nothing of it outlives this function, however that ends.
    let _ended = working.clone().drop_guard();
    let nodes = match options.watch_namespace {
        None => Nodes::watch(client.clone(), working.clone()),
        // Nodes are in no namespace: there is no right to see them.
        Some(_) => Nodes::unseen(),
    };
    let context = Arc::new(Context {
        client: client.clone(),
        recorder: Recorder::new(client.clone(), reporter),
        default_tag: options.default_tag.clone(),
        applied: Applied::default(),
        seams: seams.clone(),
        nodes,
    });
    let watching = options.watch_namespace.clone();
    tokio::spawn(ended::watch(client, watching, seams.network, working.clone()));
    let clusters = run_clusters(&options, Arc::clone(&context), working.clone());
    let tables = run_tables(&options, context, working.clone());
    let work = async { tokio::join!(clusters, tables) };
    tokio::select! {
        biased;
        held = election.hold(&stop) => {
            working.cancel();
            held
        }
        _ = work => Ok(()),
    }
}

fn api<K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>>(
    options: &Options,
    client: Client,
) -> Api<K> {
    match &options.watch_namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}

fn config() -> controller::Config {
    controller::Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE)
}

async fn run_clusters(options: &Options, context: Arc<Context>, stop: Shutdown) {
    let all = watcher::Config::default;
    let ours = all().labels(names::PODS_SELECTOR);
    let client = || context.client.clone();
    let rounds = Controller::new(api::<BasaltCluster>(options, client()), all())
        .with_config(config())
        .owns(api::<StatefulSet>(options, client()), ours.clone())
        .watches(api::<Pod>(options, client()), ours, cluster_of)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile::reconcile, reconcile::on_error, Arc::clone(&context));
    // What went wrong was logged where it was handled.
    rounds.for_each(|_| async {}).await;
}

async fn run_tables(options: &Options, context: Arc<Context>, stop: Shutdown) {
    let rounds = Controller::new(
        api::<BasaltTable>(options, context.client.clone()),
        watcher::Config::default(),
    )
    .with_config(config())
    .graceful_shutdown_on(stop.cancelled_owned())
    .run(table::reconcile, table::on_error, context);
    rounds.for_each(|_| async {}).await;
}

/// The cluster that a pod belongs to.
fn cluster_of(pod: Pod) -> Option<ObjectRef<BasaltCluster>> {
    let cluster = pod.labels().get(names::INSTANCE_LABEL)?;
    Some(ObjectRef::new(cluster).within(&pod.namespace()?))
}
