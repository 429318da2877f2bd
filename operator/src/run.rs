//! The life of the operator: it waits for the Lease, and reconciles until it is told to stop.

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

/// A round that was done.
type Done<K> = (ObjectRef<kube::core::DeserializeGuard<K>>, Action);

/// How many resources of a kind are reconciled at a time.
const CONCURRENCY: u16 = 8;
/// After this time without an event a watch is begun anew, in seconds: one that is stuck holds
/// nothing up for longer.
const WATCH_S: u32 = 60;
/// How often is looked for a definition that is missing.
const DEFINITION_PERIOD: Duration = Duration::from_secs(2);
/// Of how many such attempts one is logged.
const DEFINITION_LOG_EVERY: u32 = 30;
/// Changes that come closer together are one.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Runs the operator until `stop`.
///
/// # Errors
/// There is no way to an API server, or another operator has the Lease.
// Boxed: this crate, and not each one that calls it, compiles what it does.
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
    // The client would ask again for minutes where a budget refuses an eviction (429); a round is
    // tried again as a whole, and says so in the status.
    config.default_retry = false;
    let client = Client::try_from(config).asked(|| "finding the API server".to_owned())?;
    run_with(client, options, seams, stop, ready).await
}

/// [`run()`] with an API server that was found.
pub(crate) async fn run_with(
    client: Client,
    options: Options,
    seams: Seams,
    stop: Shutdown,
    ready: fn(),
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
    tracing::info!(identity = options.identity, "acquired the Lease");
    let working = stop.child_token();
    // Nothing of it outlives this function, however that ends.
    let _ended = working.clone().drop_guard();
    let work = work(&options, &client, &seams, &working);
    tokio::select! {
        biased;
        held = election.hold(&stop) => {
            working.cancel();
            held
        }
        // Asked to stop, it gives the Lease back, so that the next one need not wait.
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
        // Nodes are in no namespace: there is no right to see them.
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

/// Waits until the API server knows the kind of `api`, and this process may list it.
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

/// How everything is watched.
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

/// Logs and counts what went wrong beside the rounds themselves.
fn note<K: Resource<DynamicType = ()>>(
    round: Result<Done<K>, controller::Error<Error, watcher::Error>>,
) {
    match round {
        // One that failed was logged where it was handled.
        Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
        // It was deleted before its turn came.
        Err(controller::Error::ObjectNotFound(_)) => {}
        Err(error) => watch_failed(&K::kind(&()), &error),
    }
}

/// The cluster that a pod belongs to.
fn cluster_of(pod: Pod) -> Option<ObjectRef<WatchedCluster>> {
    let cluster = pod.labels().get(names::INSTANCE_LABEL)?;
    Some(ObjectRef::new(cluster).within(&pod.namespace()?))
}
