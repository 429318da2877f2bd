//! The lifecycle of a region server: it starts, serves, and ends in one of three ways.
//!
//! A clean stop hands its regions over. A server that has been declared dead, or whose log has
//! failed, ends at once, because recovery is the well-tested path. A killed server just ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::{Nodes, catalog, feature_level, pb};
use basalt_fs::SharedFileSystem;
use basalt_hbase_rpc::{ServerOptions, Service};
use basalt_model::{ServerName, paths};
use basalt_runtime::{Listener, Seams, Shutdown, grpc};
use basalt_storage::block_cache::BlockCache;
use basalt_storage::wal::{self, Wal, WalConfig};
use basalt_zk::proto::ErrorCode;
use basalt_zk::{Client, Options};
use futures::future::BoxFuture;
use prost::Message as _;
use tracing::{error, info, warn};

use crate::block_locality;
use crate::config::{Addresses, Config};
use crate::lease::ServingLease;
use crate::liveness::{self, Dead, Renewals};
use crate::log_list;
use crate::metrics;
use crate::orders::Orders;
use crate::region::{MemstoresTotal, RegionServices};
use crate::rpc::Rpc;
use crate::schedulers::{self, Limits};
use crate::server::Server;
use crate::stop;
use crate::timestamps::TimestampClock;

/// The pause before the coordinator or the cluster's record is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The pause before a full disk is tried again.
const ROOM_PAUSE: Duration = Duration::from_secs(1);

/// Why a region server ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server cannot listen on an address.
    #[error(transparent)]
    Listen(#[from] std::io::Error),
    /// The log could not be created, or has failed.
    #[error("write-ahead log: {0}")]
    Wal(#[from] wal::Error),
    /// The coordinator returned an error.
    #[error("coordinator: {0}")]
    Coordinator(#[from] basalt_zk::Error),
    /// The cluster's records cannot be read.
    #[error(transparent)]
    Records(#[from] basalt_cluster::Error),
    /// It has been declared dead.
    #[error("{0}; other servers serve its regions now, and this process exits")]
    DeclaredDead(String),
    /// Its regions can only be recovered from its log.
    #[error("{0}; this process exits, and its log is recovered")]
    MustEnd(String),
}

struct Listeners {
    rpc: Box<dyn Listener>,
    peer: Box<dyn Listener>,
    addresses: Addresses,
}

/// Runs a region server until `shutdown`, or until it must end.
///
/// # Errors
/// It could not start, has been declared dead, or its log failed.
// Boxed so that its code is compiled in this crate and not in each crate that calls it.
pub fn run(
    config: Config,
    seams: Seams,
    files: SharedFileSystem,
    shutdown: Shutdown,
) -> BoxFuture<'static, Result<(), Error>> {
    Box::pin(run_here(config, seams, files, shutdown))
}

async fn run_here(
    mut config: Config,
    seams: Seams,
    files: SharedFileSystem,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let listeners = listen(&config, &seams).await?;
    let addresses = listeners.addresses;
    let Some(client) = until_stopped(&shutdown, connect(&config, &seams)).await else {
        return Ok(());
    };
    let nodes = Nodes::below(&config.nodes_parent);
    let Some(cluster_id) = until_stopped(&shutdown, cluster_id(&client, &nodes)).await else {
        return Ok(());
    };
    // A process that may not register creates no log. Its name contains the time at which it was
    // admitted.
    let admitted = feature_level::until_admitted(&client, &nodes, config.feature_level);
    match until_stopped(&shutdown, admitted).await {
        None => {
            client.close().await;
            return Ok(());
        }
        Some(admitted) => drop(admitted?),
    }
    let name = ServerName {
        host: config.host.clone(),
        port: addresses.rpc.port(),
        start_code: seams.clock.wall_ms(),
    };
    let abort = Shutdown::new();
    let server = start(&config, &seams, files, name, client, nodes, &cluster_id, &abort).await?;
    let record = register(&server, &config, addresses.peer).await?;
    info!(server = %server.name, "registered");
    let ready = config.ready.take();
    let result = serve(&server, &config, listeners, record, ready, &shutdown).await;
    abort.cancel();
    result
}

async fn listen(config: &Config, seams: &Seams) -> Result<Listeners, Error> {
    let rpc = seams.network.listen(config.rpc_listen).await?;
    let peer = seams.network.listen(config.peer_listen).await?;
    let addresses = Addresses { rpc: rpc.local_address()?, peer: peer.local_address()? };
    Ok(Listeners { rpc, peer, addresses })
}

/// `None` if a stop is requested before `wait` has finished.
async fn until_stopped<T>(shutdown: &Shutdown, wait: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        value = wait => Some(value),
    }
}

/// Connects to the coordinator; retries until it succeeds.
async fn connect(config: &Config, seams: &Seams) -> Client {
    // A renewal must not wait for a silent coordinator longer than the lease allows.
    let options = Options { silence_max: Some(config.renewal_interval * 2), ..Options::default() };
    loop {
        let attempt =
            Client::connect(seams, &config.coordinators, config.session_timeout, options.clone());
        match attempt.await {
            Ok(client) => return client,
            Err(error) => warn!(%error, "not connected to the coordinator yet"),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// The id of the cluster. Waits until a master has created it.
async fn cluster_id(client: &Client, nodes: &Nodes) -> String {
    loop {
        match client.get_data(&nodes.cluster()).await {
            Ok((data, _)) => match pb::ClusterRecord::decode(data) {
                Ok(record) => return record.cluster_id,
                Err(error) => warn!(%error, "the cluster's record cannot be decoded"),
            },
            Err(error) if error.code() == Some(ErrorCode::NoNode) => {}
            Err(error) => warn!(%error, "could not read the cluster's record"),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

#[expect(clippy::too_many_arguments, reason = "called once; each is another part of the server")]
async fn start(
    config: &Config,
    seams: &Seams,
    files: SharedFileSystem,
    name: ServerName,
    client: Client,
    nodes: Nodes,
    cluster_id: &str,
    abort: &Shutdown,
) -> Result<Arc<Server>, Error> {
    let wal_config =
        WalConfig { roll_bytes: config.wal_roll_bytes, is_listed: true, ..WalConfig::default() };
    let clock = seams.clock.clone();
    let wal = loop {
        let (files, config, clock) = (Arc::clone(&files), wal_config.clone(), clock.clone());
        match Wal::create(files, &name, cluster_id, config, clock).await {
            Err(error) if error.is_storage_full() => {
                warn!(%error, "no space for a log; waiting for space");
                tokio::time::sleep(ROOM_PAUSE).await;
            }
            made => break made?,
        }
    };
    let catalog = catalog::follow(client.clone(), nodes.clone()).await?;
    let shared = RegionServices {
        seams: seams.clone(),
        files,
        wal: Arc::new(wal),
        blocks: Arc::new(BlockCache::new(config.block_cache_bytes)),
        lease: ServingLease::new(seams.clock.clone(), config.lease),
        timestamps: TimestampClock::new(seams.clock.clone(), config.clock_bound),
        memstores: Arc::new(MemstoresTotal::new(config.memstores_bytes_max.saturating_mul(2))),
        config: config.region.clone(),
    };
    Ok(Arc::new(Server::new(name, shared, client, nodes, catalog, abort.clone())))
}

/// Registers the server. From now on, a master may assign regions to it.
async fn register(
    server: &Server,
    config: &Config,
    peer: SocketAddr,
) -> Result<pb::ServerRecord, Error> {
    let record = pb::ServerRecord {
        peer_address: format!("{}:{}", config.host, peer.port()),
        boot_id: server.shared.files.boot_id().to_owned(),
        instance: config.instance.clone(),
        rack: config.rack.clone(),
        feature_level: config.feature_level.0,
        ..pb::ServerRecord::default()
    };
    log_list::register(server, config.feature_level, record.encode_to_vec().into()).await?;
    // A master that had not seen this server for a long time may have taken its log for that of an
    // unknown server.
    let folder = paths::server_logs(&server.name);
    if !server.shared.files.exists(&folder).await.map_err(wal::Error::from)? {
        return Err(wal::Error::Fenced { folder }.into());
    }
    Ok(record)
}

async fn serve(
    server: &Arc<Server>,
    config: &Config,
    listeners: Listeners,
    record: pb::ServerRecord,
    ready: Option<tokio::sync::oneshot::Sender<Addresses>>,
    shutdown: &Shutdown,
) -> Result<(), Error> {
    let abort = &server.abort;
    spawn_listeners(server, config, listeners.rpc, listeners.peer);
    spawn_tasks(server, config, shutdown);
    let renewals = Renewals {
        interval: config.renewal_interval,
        // A process that is silent this long has lost its session. A process that answers no
        // requests is no better.
        standstill_max: config.session_timeout,
    };
    let mut alive = server.shared.seams.threads.liveness.spawn(liveness::keep_alive(
        Arc::clone(server),
        record,
        renewals,
        shutdown.clone(),
        abort.clone(),
    ));
    if let Some(ready) = ready {
        // The receiver may have been dropped.
        let _ = ready.send(listeners.addresses);
    }
    let wal = Arc::clone(&server.shared.wal);
    tokio::select! {
        biased;
        ended = &mut alive => match ended {
            Ok(Err(dead)) => Err(declared_dead(dead)),
            Ok(Ok(())) => server.end_reason().map_or(Ok(()), |reason| Err(Error::MustEnd(reason))),
            Err(dropped) => Err(Error::DeclaredDead(format!("the liveness task ended: {dropped}"))),
        },
        failure = wal.failed() => {
            error!(%failure, "the log failed; which of the last edits are durable is unknown");
            Err(failure.into())
        }
        () = shutdown.cancelled() => {
            let stopped = tokio::time::timeout(config.stop_timeout, stop::hand_over(server));
            match stopped.await {
                Ok(()) => info!("stopped cleanly"),
                Err(_) => warn!(limit = ?config.stop_timeout, "not all regions were handed over"),
            }
            Ok(())
        }
    }
}

/// Serves clients and accepts orders from masters.
fn spawn_listeners(
    server: &Arc<Server>,
    config: &Config,
    rpc: Box<dyn Listener>,
    peer: Box<dyn Listener>,
) {
    let abort = &server.abort;
    let options = ServerOptions {
        calls_max: config.calls_max,
        ..ServerOptions::new([Service::Client, Service::Admin, Service::ClientMeta])
    };
    let handler = Arc::new(Rpc::new(Arc::clone(server)));
    tokio::spawn(Rpc::expire_scanners(Arc::downgrade(&handler)));
    let (catalog, patience) = (server.catalog.clone(), config.session_timeout);
    let answering = basalt_hbase_rpc::serve(rpc, handler, options, abort.clone());
    tokio::spawn(async move {
        // The catalog was read before this server was registered. A client that has since learned
        // that its table exists must find it here as well. If the coordinator does not answer, the
        // catalog is used as it is.
        let _ = tokio::time::timeout(patience, catalog.catch_up()).await;
        answering.await;
    });
    let orders = grpc::server()
        .add_service(Orders::service(Arc::clone(server)))
        .serve_with_incoming_shutdown(grpc::incoming(peer), abort.clone().cancelled_owned());
    tokio::spawn(orders);
}

/// Starts the background tasks of a server, except those that keep its lease and its session.
fn spawn_tasks(server: &Arc<Server>, config: &Config, shutdown: &Shutdown) {
    let abort = &server.abort;
    let limits = Limits {
        wal_files_max: config.wal_files_max,
        memstores_bytes_max: config.memstores_bytes_max,
    };
    tokio::spawn(schedulers::flush_when_due(Arc::clone(server), limits, abort.clone()));
    tokio::spawn(log_list::keep(Arc::clone(server), abort.clone()));
    tokio::spawn(metrics::report(Arc::clone(server)));
    let places = block_locality::watch(Arc::clone(server));
    tokio::spawn(abort.clone().run_until_cancelled_owned(places));
    tokio::spawn(schedulers::compact_when_due(Arc::clone(server), shutdown.clone()));
}

fn declared_dead(dead: Dead) -> Error {
    Error::DeclaredDead(dead.to_string())
}
