//! The life of a master process: it campaigns, and is active until it is deposed or stops.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::feature_level::OnRecord;
use basalt_cluster::pb::master_peer_server::MasterPeerServer;
use basalt_cluster::{Catalog, Nodes, catalog, feature_level, pb};
use basalt_fs::SharedFileSystem;
use basalt_model::{FeatureLevel, MasterEpoch, ServerName};
use basalt_runtime::{Listener, Seams, Shutdown, WITNESS, grpc, until_stuck};
use basalt_zk::proto::{CreateMode, ErrorCode, Stat};
use basalt_zk::{Client, Op, Options, State};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::DropGuard;
use tokio_util::task::TaskTracker;

use crate::client_nodes::ClientNodes;
use crate::config::{BoundAddresses, Config, DeclaredTable, MasterTimers};
use crate::election::{Candidate, LeaseGuard, campaign};
use crate::epoch_guarded_store::{self, EpochGuardedStore};
use crate::error::{CommitError, Error, StepError};
use crate::locks::Locks;
use crate::orders::Orders;
use crate::peer::Peer;
use crate::procedure::{self, ProcedureStore, SubmitError};
use crate::regions::Claims;
use crate::term::{Files, Term, TermState};
use crate::view::View;
use crate::views::Views;
use crate::{bootstrap, housekeeping, reconcile, rpc, served_regions};

/// The pause before a request to the coordinator is repeated.
const PAUSE: Duration = Duration::from_millis(200);
/// The pause before a full disk is checked again.
const ROOM_PAUSE: Duration = Duration::from_secs(1);
/// How often to log that the catalog does not show yet everything that earlier masters wrote.
const CATALOG_WAIT: Duration = Duration::from_secs(1);
/// How many regions the balancer and drains move at once.
const MOVES_AT_ONCE: usize = 4;
/// Region servers that start together register within this time of one another.
const SERVERS_QUIET: Duration = Duration::from_millis(500);
/// The longest wait for region servers before declared tables are created.
const SERVERS_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long tasks may take to end after the master stops.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// The state of a master process, whether it is active or not.
struct Master {
    server: ServerName,
    peer_address: String,
    client: Client,
    nodes: Nodes,
    client_nodes: ClientNodes,
    cluster_id: String,
    catalog: Catalog,
    files: SharedFileSystem,
    seams: Seams,
    info_port: u16,
    timers: MasterTimers,
    declared_tables: Vec<DeclaredTable>,
    guard: LeaseGuard,
    feature_level: FeatureLevel,
    storage_deviations: Option<watch::Receiver<Option<Vec<String>>>>,
}

/// Runs a master until `shutdown`, or until it cannot or must not continue. Its process must then
/// be started again.
///
/// # Errors
/// The reason why it stopped; see [`Error`].
// Boxed, so that its code is compiled in this crate and not in each crate that calls it.
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
    let rpc_listener = seams.network.listen(config.rpc_listen).await?;
    let peer_listener = seams.network.listen(config.peer_listen).await?;
    let addresses =
        BoundAddresses { rpc: rpc_listener.local_address()?, peer: peer_listener.local_address()? };
    let ready = config.ready.take();
    let Some(client) = connect(&config, &seams, &shutdown).await else { return Ok(()) };
    let _watched = watch_serving_threads(&config, &seams, &client);
    let starting = async {
        let master = start(&config, &seams, files, &client, addresses).await?;
        if let Some(ready) = ready {
            // The receiver may be gone.
            let _ = ready.send(addresses);
        }
        serve(master, rpc_listener, peer_listener, &shutdown).await
    };
    let ended = tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        ended = starting => ended,
    };
    // Closing the session deletes the ephemeral nodes, so a standby master takes over at once.
    client.close().await;
    ended
}

/// Opens a session, however long the coordinator is unavailable. Returns `None` if `shutdown` is
/// cancelled first.
async fn connect(config: &Config, seams: &Seams, shutdown: &Shutdown) -> Option<Client> {
    loop {
        let connecting = Client::connect(
            seams,
            &config.coordinators,
            config.timers.session_timeout,
            Options::default(),
        );
        let connected = tokio::select! {
            biased;
            () = shutdown.cancelled() => return None,
            connected = connecting => connected,
        };
        match connected {
            Ok(client) => return Some(client),
            Err(error) => tracing::warn!(%error, "not connected to the coordinator yet"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Closes the session when the serving threads have been stuck for the session timeout, because a
/// master that answers no requests must give way to another one. Dropping the returned guard ends
/// the watch.
fn watch_serving_threads(config: &Config, seams: &Seams, client: &Client) -> DropGuard {
    let serving = seams.threads.serving.clone();
    let limit = config.timers.session_timeout;
    let (client, done) = (client.clone(), Shutdown::new());
    let watch = done.clone().run_until_cancelled_owned(async move {
        until_stuck(&serving, limit).await;
        tracing::error!(?limit, "the serving threads have run no tasks: giving up the session");
        client.close().await;
    });
    // The watch ends with the process, or is cancelled.
    drop(seams.threads.liveness.spawn(watch));
    done.drop_guard()
}

/// Prepares the cluster and registers this master.
async fn start(
    config: &Config,
    seams: &Seams,
    files: SharedFileSystem,
    client: &Client,
    addresses: BoundAddresses,
) -> Result<Master, Error> {
    let server = ServerName {
        host: config.advertised_host.clone(),
        port: addresses.rpc.port(),
        start_code: seams.clock.wall_ms(),
    };
    let peer_address = format!("{}:{}", config.advertised_host, addresses.peer.port());
    let nodes = Nodes::below(&config.nodes_parent);
    let client_nodes = ClientNodes::below(&config.client_parent, server.clone());
    let cluster_id = loop {
        match bootstrap::prepare(
            client,
            &nodes,
            &client_nodes,
            &files,
            seams,
            &server,
            config.feature_level,
        )
        .await
        {
            Err(Error::Coordinator(error)) if error.is_outcome_unknown() => {
                tracing::warn!(%error, "preparing the cluster: outcome unknown; retrying");
                tokio::time::sleep(PAUSE).await;
            }
            Err(Error::Storage(error)) if error.is_storage_full() => {
                tracing::warn!(%error, "no space to prepare the storage root; waiting");
                tokio::time::sleep(ROOM_PAUSE).await;
            }
            prepared => break prepared?,
        }
    };
    let record = pb::ServerRecord {
        peer_address: peer_address.clone(),
        boot_id: files.boot_id().to_owned(),
        instance: config.instance.clone(),
        rack: config.rack.clone(),
        info_port: config.info_port.into(),
        draining: false,
        load: None,
        feature_level: config.feature_level.0,
    };
    register(client, &nodes, &server, &record).await?;
    let catalog = catalog::follow(client.clone(), nodes.clone()).await?;
    tracing::info!(%server, cluster = config.cluster_name, cluster_id, "master started");
    Ok(Master {
        server,
        peer_address,
        client: client.clone(),
        nodes,
        client_nodes,
        cluster_id,
        catalog,
        files,
        seams: seams.clone(),
        info_port: config.info_port,
        timers: config.timers,
        declared_tables: config.declared_tables.clone(),
        guard: config.guard.clone(),
        feature_level: config.feature_level,
        storage_deviations: config.storage_deviations.clone(),
    })
}

async fn register(
    client: &Client,
    nodes: &Nodes,
    server: &ServerName,
    record: &pb::ServerRecord,
) -> Result<(), Error> {
    let (path, data) = (nodes.standby(server), Bytes::from(record.encode_to_vec()));
    let known = FeatureLevel(record.feature_level);
    loop {
        let level = feature_level::until_admitted(client, nodes, known).await?;
        let (path, data) = (path.clone(), data.clone());
        let create = Op::Create { path, data, mode: CreateMode::Ephemeral };
        match client.multi(vec![create, level.check(nodes)]).await {
            Ok(_) => return Ok(()),
            // An earlier attempt created it: the name contains our start time.
            Err(error) if error.code() == Some(ErrorCode::NodeExists) => return Ok(()),
            // The level was raised, or is about to be.
            Err(error) if error.code() == Some(ErrorCode::BadVersion) => {}
            Err(error) if error.is_outcome_unknown() => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Serves requests on all ports, and campaigns until the master must stop.
async fn serve(
    master: Master,
    rpc_listener: Box<dyn Listener>,
    peer_listener: Box<dyn Listener>,
    shutdown: &Shutdown,
) -> Result<(), Error> {
    let (term_sender, term_receiver) = watch::channel(None);
    let stopping = shutdown.child_token();
    let _stop_on_return = stopping.clone().drop_guard();
    let answering = tokio::spawn(rpc::serve(
        rpc_listener,
        rpc::MasterRpc::new(
            master.server.clone(),
            master.client.clone(),
            master.nodes.clone(),
            master.catalog.clone(),
            term_receiver.clone(),
        ),
        stopping.clone(),
    ));
    let peer = Peer {
        server: master.server.clone(),
        catalog: master.catalog.clone(),
        term: term_receiver,
        storage_deviations: master.storage_deviations.clone(),
    };
    let peers =
        grpc::server().add_service(MasterPeerServer::new(peer)).serve_with_incoming_shutdown(
            grpc::incoming(peer_listener),
            stopping.clone().cancelled_owned(),
        );
    let ended = tokio::select! {
        biased;
        () = session_end(&master.client) => {
            Err(Error::SessionLost { server: master.server.clone() })
        }
        ended = lead(&master, &term_sender, &stopping) => ended,
        ended = peers => ended.map_err(Error::Peer),
        ended = answering => Err(Error::Rpc(format!("the server ended: {ended:?}"))),
    };
    let term = term_sender.borrow().clone();
    if let Some(term) = term {
        term.store.term().cancel();
        term.tasks.close();
        // Tasks that do not end in time end with the process.
        let _ = tokio::time::timeout(STOP_WAIT, term.tasks.wait()).await;
    }
    ended
}

/// Ends when the session ends.
async fn session_end(client: &Client) {
    let mut state = client.state();
    let is_over = |state: &State| matches!(state, State::Expired | State::Closed);
    // An error means that the session's task has ended, which is the same.
    let _ = state.wait_for(is_over).await;
}

/// Waits until this master is active, and leads until it is deposed.
async fn lead(
    master: &Master,
    term_sender: &watch::Sender<Option<Arc<Term>>>,
    stopping: &Shutdown,
) -> Result<(), Error> {
    let candidate = Candidate {
        server: master.server.clone(),
        peer_address: master.peer_address.clone(),
        info_port: master.info_port,
        client: master.client.clone(),
        nodes: master.nodes.clone(),
        network: master.seams.network.clone(),
        connect_timeout: master.timers.connect_timeout,
        guard: master.guard.clone(),
    };
    let epoch = campaign(&candidate).await?;
    let deposed = || Error::Deposed { server: master.server.clone(), epoch };
    tracing::trace!(target: WITNESS, epoch = epoch.0, "active");
    tracing::info!(server = %master.server, %epoch, "became the active master");
    let term = loop {
        match begin(master, epoch, stopping.child_token()).await {
            Ok(term) => break term,
            Err(Beginning::Failed(error)) => return Err(error),
            Err(Beginning::Step(error)) if error.is_deposed() => return Err(deposed()),
            Err(Beginning::Step(error)) => {
                tracing::warn!(%error, "could not begin the term; retrying");
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
    // In the order in which the procedures were submitted, and before any region moves, because
    // each procedure requests its locks here.
    for (id, _) in term.procedure_store.unfinished() {
        procedure::execute(&term, id);
    }
    term.spawn(procedure::show_earlier_ends(Arc::clone(&term)));
    term.spawn(reconcile::run(Arc::clone(&term)));
    term.spawn(served_regions::run(Arc::clone(&term)));
    term.spawn(housekeeping::run(Arc::clone(&term)));
    term.spawn(crate::feature_level::run(Arc::clone(&term)));
    term.spawn(create_declared(Arc::clone(&term), master.declared_tables.clone()));
    term_sender.send_replace(Some(Arc::clone(&term)));
    tracing::info!(server = %master.server, %epoch, "ready to serve clients");
    tokio::select! {
        biased;
        () = term.store.term().cancelled() => Err(deposed()),
        holder = master.guard.lost() => {
            Err(Error::LeaseLost { server: master.server.clone(), epoch, holder })
        }
    }
}

/// Why a term could not begin.
enum Beginning {
    /// The master must stop.
    Failed(Error),
    /// The step can be repeated.
    Step(StepError),
}

impl<E: Into<StepError>> From<E> for Beginning {
    fn from(error: E) -> Self {
        Self::Step(error.into())
    }
}

/// Why a term whose epoch was not recorded cannot begin. If the root has recorded a higher epoch
/// than the coordinator's present one, the coordinator has lost the data of the cluster that used
/// the root. Otherwise the higher epoch belongs to another master.
async fn not_recorded(master: &Master, error: Error) -> Beginning {
    let in_root = match error {
        Error::ForgottenEpochs { in_root, .. } => in_root,
        // Repeated while the disk is full.
        Error::Storage(error) if error.is_storage_full() => return Beginning::Step(error.into()),
        error => return Beginning::Failed(error),
    };
    match bootstrap::newest_epoch(&master.client, &master.nodes).await {
        Ok(newest) if newest.0 >= in_root => Beginning::Step(CommitError::Deposed.into()),
        Ok(newest) => {
            let in_coordinator = newest.0;
            Beginning::Failed(Error::ForgottenEpochs { in_root, in_coordinator })
        }
        Err(Error::Coordinator(error)) => Beginning::Step(error.into()),
        Err(error) => Beginning::Failed(error),
    }
}

/// Begins a term. Nothing is decided before the storage root has recorded its epoch and the catalog
/// shows what earlier masters left.
async fn begin(
    master: &Master,
    epoch: MasterEpoch,
    term: Shutdown,
) -> Result<Arc<Term>, Beginning> {
    if let Err(error) = bootstrap::record_epoch(&master.files, epoch).await {
        return Err(not_recorded(master, error).await);
    }
    let store = EpochGuardedStore::new(master.client.clone(), master.nodes.clone(), epoch, term);
    let client_nodes = master.client_nodes.clone();
    store
        .commit(vec![
            client_nodes.write_cluster_id(&master.cluster_id),
            client_nodes.write_master(master.info_port),
        ])
        .await?;
    // From here on, only this master writes the record.
    let level = OnRecord::read(store.client(), store.nodes()).await?.level;
    let procedure_store = ProcedureStore::load(&store, master.feature_level).await?;
    let recoveries = read_recoveries(&store).await?;
    let views = Views::new(master.catalog.clone());
    // Decisions are checked when they are committed. But a procedure ends when no region is left
    // for it, and an order to open a region contains the table as the catalog shows it.
    let mut catching_up = std::pin::pin!(master.catalog.catch_up());
    loop {
        // Ends with the session at the latest. A shorter limit would only begin anew.
        match tokio::time::timeout(CATALOG_WAIT, &mut catching_up).await {
            Ok(caught_up) => break caught_up?,
            Err(_) => tracing::warn!(%epoch, "waiting for the catalog to catch up"),
        }
    }
    let draining = read_draining(&store, &views.now()).await?;
    Ok(Arc::new(Term {
        server: master.server.clone(),
        store,
        views,
        orders: Orders::new(master.seams.network.clone(), master.timers.connect_timeout),
        procedure_store,
        claims: Claims::default(),
        moves: Claims::default(),
        locks: Locks::default(),
        moving: Semaphore::new(MOVES_AT_ONCE),
        catalogs_shown: watch::Sender::new(false),
        facts: Mutex::new(TermState { recoveries, draining, ..TermState::default() }),
        feature_level: Mutex::new(level),
        known_level: master.feature_level,
        reports: Mutex::default(),
        block_locality: Mutex::default(),
        timers: master.timers,
        files: Files(Arc::clone(&master.files)),
        clock: master.seams.clock.clone(),
        network: master.seams.network.clone(),
        submissions: tokio::sync::Mutex::new(()),
        planning: tokio::sync::Mutex::new(()),
        recording_losses: tokio::sync::Mutex::new(()),
        client_nodes,
        wake: Notify::new(),
        proved: Notify::new(),
        tasks: TaskTracker::new(),
    }))
}

async fn read_recoveries(
    store: &EpochGuardedStore,
) -> Result<BTreeMap<u64, pb::RecoveryRecord>, StepError> {
    let nodes = store.nodes();
    let (children, _) = store.client().get_children(&nodes.recoveries()).await?;
    let ids: Vec<u64> = children.iter().filter_map(|name| name.parse().ok()).collect();
    let paths: Vec<_> = ids.iter().map(|id| nodes.recovery(*id)).collect();
    let found = store.client().get_data_of_all(&paths).await?;
    // An unreadable report is only history, and must not stop the master.
    let reports = ids.into_iter().zip(found).filter_map(|(id, found)| {
        let (data, _) = found?;
        Some((id, pb::RecoveryRecord::decode(data).unwrap_or_default()))
    });
    Ok(reports.collect())
}

/// The region servers that are draining: they asked an earlier master to move their regions, and
/// their records say so. The catalog keeps only their first records.
async fn read_draining(
    store: &EpochGuardedStore,
    view: &View,
) -> Result<BTreeSet<ServerName>, StepError> {
    let servers: Vec<_> = view.servers.keys().cloned().collect();
    let paths: Vec<_> = servers.iter().map(|server| store.nodes().server(server)).collect();
    let found = store.client().get_data_of_all(&paths).await?;
    let is_draining = |found: Option<(Bytes, Stat)>| {
        let record = found.and_then(|(data, _)| pb::ServerRecord::decode(data).ok());
        record.is_some_and(|record| record.draining)
    };
    let answers = servers.into_iter().zip(found);
    Ok(answers.filter_map(|(server, found)| is_draining(found).then_some(server)).collect())
}

/// Creates the missing ones of the tables that are declared in the manifest.
async fn create_declared(term: Arc<Term>, tables: Vec<DeclaredTable>) {
    let is_missing =
        |table: &DeclaredTable| term.views.catalog().table(&table.descriptor.name).is_none();
    if tables.iter().any(is_missing) {
        wait_for_servers(&term).await;
    }
    for table in tables {
        while let Err(error) = create_if_missing(&term, &table).await {
            tracing::warn!(
                table = %table.descriptor.name,
                %error,
                "could not create a declared table; retrying"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Waits until no further region server has registered for a while. Otherwise the first one would
/// get all regions.
async fn wait_for_servers(term: &Term) {
    let deadline = Instant::now() + SERVERS_WAIT_MAX;
    let mut known = term.views.servers().len();
    while Instant::now() < deadline {
        let has_changed = |views: &Views| views.servers().len() != known;
        if !term.views.until(SERVERS_QUIET, has_changed).await && known > 0 {
            return;
        }
        known = term.views.servers().len();
    }
}

async fn create_if_missing(term: &Arc<Term>, table: &DeclaredTable) -> Result<(), SubmitError> {
    let name = &table.descriptor.name;
    if term.views.catalog().table(name).is_some() {
        return Ok(());
    }
    let namespace = term.store.nodes().namespace(name.namespace());
    // Other errors do not matter: either the namespace exists, or creating the table reports that
    // it does not.
    let made = term.store.commit(vec![epoch_guarded_store::create(namespace, Bytes::new())]).await;
    if matches!(made, Err(CommitError::Deposed)) {
        return Err(SubmitError::Deposed);
    }
    let (descriptor, keys) = (table.descriptor.clone(), table.split_keys.clone());
    match term.create_table(descriptor, keys, None).await {
        Err(SubmitError::Refused(exception))
            if exception.kind() == basalt_hbase_rpc::ExceptionKind::TableExists => {}
        created => {
            created?;
        }
    }
    Ok(())
}
