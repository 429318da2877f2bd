//! A member from start to stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use basalt_fs::SharedFileSystem;
use basalt_planted::{Rule, is_off};
use basalt_runtime::{Listener, Seams, Shutdown, grpc};
use futures::future::BoxFuture;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{SnapshotPolicy, StepDownPolicy};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::service::interceptor::InterceptedService;

use crate::config::{BoundAddresses, Config};
use crate::ensemble::{Ensemble, EnsembleService, RecordStore, Standing};
use crate::error::Error;
use crate::expiry::Expiry;
use crate::member::{Latency, Leadership, Member};
use crate::metrics;
use crate::outgoing::QueueBudget;
use crate::proposals::Proposals;
use crate::raft::{
    Gate, PeerService, Peers, Raft, RaftNetwork, StateMachine, Terms, incoming, with_random,
};
use crate::replica::Replica;
use crate::wire::v1::ensemble_server::EnsembleServer;
use crate::wire::v1::peer_server::PeerServer;
use crate::{connection, ensemble, folder, identity, leader_contact};

/// How many requests of one member may be in progress.
const PEER_REQUESTS_MAX: u32 = 256;
/// The longest greeting that is accepted.
const GREETING_BYTES_MAX: usize = 4 << 10;
/// How long consensus may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a snapshot may take to be sent and installed.
const INSTALL_SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a member until `shutdown`, or until it cannot continue. A clean stop hands over leadership.
///
/// # Errors
/// See [`Error`]. A restart is safe after any of them.
// Boxed, so that the future is compiled in this crate and not in each of its callers.
pub fn run(
    config: Config,
    seams: Seams,
    files: SharedFileSystem,
    shutdown: Shutdown,
) -> BoxFuture<'static, Result<(), Error>> {
    let random = seams.random.clone();
    Box::pin(with_random(random, serve(config, seams, files, shutdown)))
}

async fn serve(
    mut config: Config,
    seams: Seams,
    files: SharedFileSystem,
    shutdown: Shutdown,
) -> Result<(), Error> {
    config.check()?;
    // Listen before the data is touched: a port in use shows that the member is already running.
    let peer_listener = seams.network.listen(config.peer_listen).await;
    let peer_listener = peer_listener.map_err(Error::Listen)?;
    let client_listener = seams.network.listen(config.client_listen).await;
    let client_listener = client_listener.map_err(Error::Listen)?;
    let bound = BoundAddresses {
        peer: peer_listener.local_address().map_err(Error::Listen)?,
        client: client_listener.local_address().map_err(Error::Listen)?,
    };
    let ready = config.ready.take();
    let mut tasks = JoinSet::new();
    let member = tokio::select! {
        biased;
        // A full disk may delay the start for a long time.
        () = shutdown.cancelled() => return Ok(()),
        member = start(config, seams, files, &mut tasks) => member?,
    };
    tasks.spawn(serve_peers(Arc::clone(&member), peer_listener));
    // Clients are served on other threads, so that Raft has the threads of this task to itself.
    let clients = Shutdown::new();
    let _close_on_return = clients.clone().drop_guard();
    let accepting = connection::accept_all(Arc::clone(&member), client_listener);
    let accepting =
        member.seams.threads.serving.spawn(clients.clone().run_until_cancelled_owned(accepting));
    tracing::info!(member = member.id(), peer = %bound.peer, client = %bound.client, "started");
    if let Some(ready) = ready {
        // The receiver may be gone.
        let _gone = ready.send(bound);
    }

    let stopped = tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        Some(ended) = tasks.join_next() => match ended {
            Ok(outcome) => outcome,
            Err(error) => Err(stopped_by(format!("a task failed: {error}"))),
        },
    };
    clients.cancel();
    // Client connections are closed before anything else stops.
    let _stopped = accepting.await;
    if stopped.is_ok() {
        hand_over(&member).await;
    }
    member.log.room().stop_waiting();
    // Ignore the outcome: consensus has stopped, or is no longer waited for.
    let _stopped = tokio::time::timeout(STOP_TIMEOUT, member.raft.shutdown()).await;
    // The caller may start this member again after this returns, so the ports must be free by then.
    tasks.shutdown().await;
    tracing::info!(member = member.id(), "stopped");
    stopped
}

/// Reads the data on disk, and starts the tasks that everything else depends on.
async fn start(
    config: Config,
    seams: Seams,
    files: SharedFileSystem,
    tasks: &mut JoinSet<Result<(), Error>>,
) -> Result<Arc<Member>, Error> {
    identity::claim(&files, &config.data, &config.cluster, config.member_id).await?;
    let opened = folder::open(&files, &config, &seams).await?;
    let replica = Arc::new(Replica::new(
        config.member_id,
        Proposals::new(config.member_id, opened.life),
        opened.state,
        opened.meta.last_log_id,
        opened.meta.last_membership,
        config.limits.watch_bytes_max,
    ));
    let peers = connect_peers(&config, &seams, &opened.ensemble)?;
    let writer = opened.writer;
    tasks.spawn(async move { writer.run().await.map_err(Error::File) });
    let log = opened.log;
    let terms = Terms::new(log.clone());
    let raft = Raft::new(
        config.member_id,
        Arc::new(raft_config(&config)?),
        RaftNetwork::new(peers.clone(), config.member_id, terms.clone()),
        log.clone(),
        StateMachine::new(Arc::clone(&replica), opened.snapshots),
    );
    let raft = raft.await.map_err(stopped_by)?;
    let standing = Standing::new(opened.record, opened.life, log.durable_entries());
    let (leadership_sender, leadership) = watch::channel(Leadership::default());
    let limits = config.limits;
    let member = Arc::new(Member {
        config,
        seams,
        raft,
        log,
        replica,
        peers,
        leadership,
        expiry: Expiry::default(),
        rejoin: opened.rejoin,
        ensemble: opened.ensemble,
        standing,
        checkpoints: Mutex::default(),
        short_of_room: Mutex::default(),
        unreachable: Mutex::default(),
        state_differs: AtomicBool::new(false),
        state_is_compared: AtomicBool::new(false),
        terms,
        touched: Mutex::default(),
        serving: watch::Sender::new(false),
        contact: Mutex::new(Instant::now()),
        connection_count: AtomicUsize::new(0),
        queued: Arc::new(QueueBudget::new(limits.queued_bytes_max, limits.connections_max)),
        incoming: Semaphore::new(limits.incoming_bytes_max.min(Semaphore::MAX_PERMITS)),
        latency: Latency::default(),
    });
    spawn_tasks(&member, leadership_sender, opened.records, tasks);
    Ok(member)
}

/// Starts the background tasks of a member.
fn spawn_tasks(
    member: &Arc<Member>,
    leadership: watch::Sender<Leadership>,
    records: RecordStore,
    tasks: &mut JoinSet<Result<(), Error>>,
) {
    tasks.spawn(follow_leadership(Arc::clone(member), leadership));
    let shared = Arc::clone(member);
    tasks.spawn(async move {
        metrics::report(shared).await;
        Ok(())
    });
    let shared = Arc::clone(member);
    tasks.spawn(async move {
        shared.propose_all().await;
        Ok(())
    });
    let shared = Arc::clone(member);
    tasks.spawn(async move { ensemble::run(&shared, records).await });
    let shared = Arc::clone(member);
    tasks.spawn(async move {
        leader_contact::run(&shared).await;
        Ok(())
    });
    let shared = Arc::clone(member);
    tasks.spawn(async move {
        shared.expiry.run(&shared).await;
        Ok(())
    });
}

fn connect_peers(config: &Config, seams: &Seams, ensemble: &Ensemble) -> Result<Peers, Error> {
    let others: BTreeMap<u64, String> = config
        .members
        .iter()
        .filter(|(member, _)| **member != config.member_id)
        .map(|(member, addresses)| (*member, addresses.peer_address.clone()))
        .collect();
    let request_timeout = config.timers.peer_request_timeout();
    Peers::new(&seams.network, &config.cluster, &others, request_timeout, ensemble)
        .map_err(|problem| Error::Config { problem })
}

/// Converts the configuration for openraft. Its election timeout counts from the end of the
/// leader's lease, which is as long as its longest election timeout. Ours counts from the leader's
/// last sign of life.
fn raft_config(config: &Config) -> Result<openraft::Config, Error> {
    let (timers, limits) = (&config.timers, &config.limits);
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let lease = timers.leader_lease();
    let raft_config = openraft::Config {
        cluster_name: config.cluster.clone(),
        heartbeat_interval: millis(timers.heartbeat_interval),
        election_timeout_min: millis(timers.election_timeout_min.saturating_sub(lease)),
        election_timeout_max: millis(lease),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(limits.snapshot_entries),
        max_in_snapshot_log_to_keep: limits.snapshot_entries_kept,
        replication_lag_threshold: limits.snapshot_entries.saturating_mul(2),
        install_snapshot_timeout: millis(INSTALL_SNAPSHOT_TIMEOUT),
        backoff: "20ms 50ms 100ms ...200ms".to_owned(),
        enable_pre_vote: Some(true),
        // Enabled once it is settled that this member takes part; see `ensemble`.
        enable_elect: false,
        // The state is in memory, so a leader that has just started must first learn what is
        // committed.
        enable_leader_restore: Some(false),
        // A member that has lost its disk starts with an empty one; see `rejoin` for why that is
        // safe.
        allow_log_reversion: Some(true),
        // A follower's disk need not wait for ours.
        broadcast_submitted_on_append: Some(true),
        removed_leader_step_down: StepDownPolicy::Never,
        // A leader that gets no answer from a quorum stops sending for a while. Followers that
        // still hear it, although it does not hear them, then elect another leader.
        quorum_loss_probe_interval: Some(millis(lease) * 2),
        ..openraft::Config::default()
    };
    raft_config.validate().map_err(|error| Error::Config { problem: error.to_string() })
}

/// Keeps the other tasks' knowledge of the leader up to date. Ends when consensus does. A leader
/// that a quorum has not confirmed for as long as an election takes steps down: for all tasks of
/// this member there is no leader until it is confirmed again, or another is elected.
async fn follow_leadership(
    member: Arc<Member>,
    leadership: watch::Sender<Leadership>,
) -> Result<(), Error> {
    let mut metrics = member.raft.metrics();
    let patience = member.config.timers.election_timeout_max;
    let is_alone = member.config.members.len() == 1;
    let (mut known_term, mut last_acknowledged) = (None, None);
    let mut confirmed = Instant::now();
    loop {
        let (mut now, acknowledged, running) = {
            let metrics = metrics.borrow_and_update();
            let now = Leadership { term: metrics.current_term, leader: metrics.current_leader };
            let acknowledged = metrics.last_quorum_acked;
            (now, acknowledged, metrics.running_state.clone())
        };
        running.map_err(stopped_by)?;
        let leads = now.leader == Some(member.id());
        let led_term = leads.then_some(now.term);
        let is_new_term = std::mem::replace(&mut known_term, led_term) != led_term;
        let is_acknowledged =
            std::mem::replace(&mut last_acknowledged, acknowledged) != acknowledged;
        if is_new_term || is_acknowledged || is_alone {
            confirmed = Instant::now();
        }
        if leads && confirmed.elapsed() > patience && !is_off(Rule::QuorumTime) {
            now.leader = None;
        }
        leadership.send_if_modified(|known| update_leadership(&member, known, now));
        tokio::select! {
            biased;
            changed = metrics.changed() => changed.map_err(stopped_by)?,
            // The loss of a quorum is not reported as a change, so look again after a while.
            () = tokio::time::sleep(member.config.timers.heartbeat_interval), if leads => {}
        }
    }
}

/// Replaces `known` with `now`. Returns whether they differ.
fn update_leadership(member: &Member, known: &mut Leadership, now: Leadership) -> bool {
    if *known == now {
        return false;
    }
    let (member_id, term) = (member.id(), now.term);
    if known.term == term && known.leader == Some(member_id) && now.leader.is_none() {
        tracing::warn!(member = member_id, term, "stepped down: no quorum confirms this leader");
    } else {
        tracing::info!(member = member_id, term, leader = now.leader, "leader");
    }
    *known = now;
    true
}

async fn serve_peers(member: Arc<Member>, listener: Box<dyn Listener>) -> Result<(), Error> {
    let service = PeerServer::new(PeerService::new(Arc::clone(&member)))
        .max_decoding_message_size(grpc::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(grpc::MESSAGE_BYTES_MAX);
    let service = InterceptedService::new(service, Gate::for_peers(Arc::clone(&member)));
    let greetings = EnsembleServer::new(EnsembleService::new(Arc::clone(&member)))
        .max_decoding_message_size(GREETING_BYTES_MAX);
    let greetings = InterceptedService::new(greetings, Gate::for_greetings(member));
    tonic::transport::Server::builder()
        .max_concurrent_streams(PEER_REQUESTS_MAX)
        // This frees the place of a machine that is gone.
        .http2_keepalive_interval(Some(grpc::KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(grpc::KEEP_ALIVE_TIMEOUT))
        .add_service(service)
        .add_service(greetings)
        .serve_with_incoming(incoming::incoming(listener))
        .await?;
    Err(stopped_by("no more connections of members are accepted"))
}

/// Makes the member with the most complete log the leader, if this member leads.
pub(crate) async fn hand_over(member: &Member) {
    if !member.leads() {
        return;
    }
    let successor = {
        let metrics = member.raft.metrics();
        let metrics = metrics.borrow_watched();
        let others = metrics.replication.iter().flatten();
        others
            .filter(|(other, _)| **other != member.id())
            .max_by_key(|(_, matched)| **matched)
            .map(|(other, _)| *other)
    };
    let Some(successor) = successor else {
        return;
    };
    let mut leadership = member.leadership.clone();
    let handing_over = async {
        let is_other = |now: &Leadership| now.leader.is_some_and(|l| l != member.id());
        member.raft.trigger().transfer_leader(successor).await.is_ok()
            && leadership.wait_for(is_other).await.is_ok()
    };
    let timeout = member.config.timers.election_timeout_max * 2;
    match tokio::time::timeout(timeout, handing_over).await {
        Ok(true) => tracing::info!(successor, "handed leadership over"),
        Ok(false) => tracing::warn!(successor, "consensus has stopped: an election follows"),
        Err(_) => tracing::warn!(successor, "leadership was not taken over: an election follows"),
    }
}

fn stopped_by(problem: impl ToString) -> Error {
    Error::Consensus { problem: problem.to_string() }
}
