//! The life of the operator: it waits for the Lease, and reconciles until it is asked to stop.

use std::sync::Arc;
use std::time::Duration;

use basalt_api::{BasaltCluster, BasaltTable};
use basalt_runtime::{Seams, Shutdown};
use futures::StreamExt;
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::runtime::controller::Action;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, controller, watcher};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::cluster::{Applied, Evictions, drift, reconcile, terminated_containers};
use crate::context::{Context, Nodes, WatchedCluster, WatchedTable, watch_failed};
use crate::error::{Error, ResultExt};
use crate::lease::Election;
use crate::{names, table};

/// The operator's options.
#[derive(Clone, Debug)]
pub struct Options {
    /// The operator's own namespace, which contains its Lease.
    pub namespace: String,
    /// The name of its pod, which identifies the holder of the Lease.
    pub identity: String,
    /// The only namespace that it watches. `None` means all namespaces.
    pub watch_namespace: Option<String>,
    /// The image tag for clusters that name none.
    pub default_tag: String,
}

/// A finished round.
type Done<K> = (ObjectRef<kube::core::DeserializeGuard<K>>, Action);

/// The maximum number of resources of a kind that are reconciled at the same time.
const CONCURRENCY: u16 = 8;
/// A watch is restarted after this time without an event, in seconds. A watch that is stuck delays
/// nothing for longer.
const WATCH_S: u32 = 60;
/// How often to check whether a missing CRD exists.
const DEFINITION_PERIOD: Duration = Duration::from_secs(2);
/// One of this many failed checks is logged.
const DEFINITION_LOG_EVERY: u32 = 30;
/// Changes within this time are handled together.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Runs the operator until `stop`.
///
/// # Errors
/// There is no access to an API server, or another operator has taken the Lease.
// Boxed, so that this crate compiles the future, and not each crate that calls it.
pub fn run(
    options: Options,
    seams: Seams,
    stop: Shutdown,
    ready: fn(),
) -> BoxFuture<'static, Result<(), Error>> {
    Box::pin(run_here(options, seams, stop, ready))
}

async fn run_here(
    options: Options,
    seams: Seams,
    stop: Shutdown,
    ready: fn(),
) -> Result<(), Error> {
    let found = Config::infer().await.map_err(kube::Error::InferConfig);
    let mut config = found.asked(|| "finding the API server".to_owned())?;
    // By default the client would retry for minutes when a budget rejects an eviction (429).
    // Instead, the whole round is tried again, and the status shows it.
    config.default_retry = false;
    let client = Client::try_from(config).asked(|| "finding the API server".to_owned())?;
    run_with(client, options, seams, stop, ready).await
}

/// Like [`run()`], with a given client of the API server.
pub(crate) async fn run_with(
    client: Client,
    options: Options,
    seams: Seams,
    stop: Shutdown,
    ready: fn(),
) -> Result<(), Error> {
    let election =
        Election::new(client.clone(), &options.namespace, &options.identity, seams.clock.clone());
    // An operator that waits for the Lease is as ready as it can be.
    ready();
    tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        () = election.acquire() => {}
    }
    tracing::info!(identity = options.identity, "acquired the Lease");
    let working = stop.child_token();
    // However this function ends, none of its work continues.
    let _ended = working.clone().drop_guard();
    let work = work(&options, &client, &seams, &working);
    tokio::select! {
        biased;
        held = election.hold(&stop) => {
            working.cancel();
            held
        }
        // When asked to stop, it releases the Lease, so that the next operator need not wait.
        () = work => election.hold(&stop).await,
    }
}

/// Reconciles until `working` is cancelled.
async fn work(options: &Options, client: &Client, seams: &Seams, working: &Shutdown) {
    tokio::select! {
        biased;
        () = working.cancelled() => return,
        () = wait_for_definition(api::<BasaltCluster>(options, client.clone())) => {}
    }
    tokio::select! {
        biased;
        () = working.cancelled() => return,
        () = wait_for_definition(api::<BasaltTable>(options, client.clone())) => {}
    }
    let reporter = Reporter {
        controller: names::FIELD_MANAGER.to_owned(),
        instance: Some(options.identity.clone()),
    };
    let nodes = match options.watch_namespace {
        None => Nodes::watch(client.clone(), working.clone()),
        // Nodes belong to no namespace, so there is no permission to read them.
        Some(_) => Nodes::unseen(),
    };
    let clusters = Controller::new(api::<WatchedCluster>(options, client.clone()), watching());
    let tables = Controller::new(api::<WatchedTable>(options, client.clone()), watching());
    let context = Arc::new(Context {
        client: client.clone(),
        recorder: Recorder::new(client.clone(), reporter),
        default_tag: options.default_tag.clone(),
        applied: Applied::default(),
        evictions: Evictions::default(),
        seams: seams.clone(),
        nodes,
        clusters: clusters.store(),
        tables: tables.store(),
    });
    let namespace = options.watch_namespace.clone();
    let network = seams.network.clone();
    tokio::spawn(terminated_containers::watch(client.clone(), namespace, network, working.clone()));
    tokio::join!(
        run_clusters(clusters, options, Arc::clone(&context), working.clone()),
        run_tables(tables, context, working.clone()),
    );
}

/// Waits until the API server knows the CRD of `api`, and this process may list its resources.
async fn wait_for_definition<K>(api: Api<K>)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let kind = K::kind(&());
    for attempt in 0_u32.. {
        let Err(error) = api.list_metadata(&ListParams::default().limit(1)).await else { return };
        if attempt % DEFINITION_LOG_EVERY == 0 {
            tracing::warn!(
                %kind,
                %error,
                "the kind cannot be listed: is its CRD installed?"
            );
        }
        tokio::time::sleep(DEFINITION_PERIOD).await;
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

/// The configuration of all watches.
fn watching() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_S)
}

async fn run_clusters(
    clusters: Controller<WatchedCluster>,
    options: &Options,
    context: Arc<Context>,
    stop: Shutdown,
) {
    let ours = watching().labels(names::PODS_SELECTOR);
    let client = || context.client.clone();
    let changed = drift::watch(&context, options.watch_namespace.as_deref(), &ours);
    let rounds = clusters
        .with_config(config())
        .owns(api::<StatefulSet>(options, client()), ours.clone())
        .watches(api::<Pod>(options, client()), ours, cluster_of)
        .reconcile_on(changed)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile::reconcile, reconcile::on_error, Arc::clone(&context));
    rounds.for_each(|round| async { note::<BasaltCluster>(round) }).await;
}

async fn run_tables(tables: Controller<WatchedTable>, context: Arc<Context>, stop: Shutdown) {
    let rounds = tables.with_config(config()).graceful_shutdown_on(stop.cancelled_owned()).run(
        table::reconcile,
        table::on_error,
        context,
    );
    rounds.for_each(|round| async { note::<BasaltTable>(round) }).await;
}

/// Logs and counts errors outside the rounds themselves.
fn note<K: Resource<DynamicType = ()>>(
    round: Result<Done<K>, controller::Error<Error, watcher::Error>>,
) {
    match round {
        // A failed round was already logged where it was handled.
        Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
        // The resource was deleted before its round.
        Err(controller::Error::ObjectNotFound(_)) => {}
        Err(error) => watch_failed(&K::kind(&()), &error),
    }
}

/// The cluster that a pod belongs to.
fn cluster_of(pod: Pod) -> Option<ObjectRef<WatchedCluster>> {
    let cluster = pod.labels().get(names::INSTANCE_LABEL)?;
    Some(ObjectRef::new(cluster).within(&pod.namespace()?))
}
