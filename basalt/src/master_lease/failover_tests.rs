//! Real masters with a real coordinator. The keepers of a Lease use an API server of a few lines.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use basalt_cluster::{Nodes, pb};
use basalt_fs::{MemoryFileSystem, SharedFileSystem};
use basalt_model::FeatureLevel;
use basalt_runtime::Shutdown;
use basalt_zk::{Client as Session, Options};
use prost::Message;
use tokio::runtime::{Builder, Runtime};

use super::tests::{PACE, Server};
use super::*;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Cluster {
    coordinator: String,
    disk: MemoryFileSystem,
    session: Session,
    server: Server,
    masters: Vec<Process>,
}

/// A master in a runtime of its own. Dropping the runtime closes its sockets without a message.
struct Process {
    runtime: Option<Runtime>,
    stop: Shutdown,
}

// === impl Cluster ===

impl Cluster {
    /// With the masters `a`, which is active, and `b`, on standby.
    async fn start() -> Self {
        let disk = MemoryFileSystem::new();
        let coordinator = start_coordinator(disk.as_writer(1));
        let seams = Seams::system();
        let options = Options { connect_timeout: Some(PATIENCE), ..Options::default() };
        let members = [coordinator.clone()];
        let session = Session::connect(&seams, &members, PATIENCE, options).await.unwrap();
        let server = Server::with_lease_of("");
        let mut cluster = Self { coordinator, disk, session, server, masters: Vec::new() };
        cluster.add_master("a");
        cluster.is_active("a", 1).await;
        cluster.add_master("b");
        let masters = Nodes::below("/basalt").masters();
        until("b stands by", async || {
            cluster.session.get_children(&masters).await.unwrap().0.len() == 2
        })
        .await;
        // The master opens its stream a moment later.
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster
    }

    fn add_master(&mut self, identity: &'static str) {
        let files: SharedFileSystem = Arc::new(self.disk.as_writer(2 + self.masters.len() as u64));
        let (guard, keeper) = LeaseGuard::new(identity.to_owned());
        let config = config(&self.coordinator, guard);
        let (server, stop) = (self.server.clone(), Shutdown::new());
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shutdown = stop.clone();
        runtime.spawn(async move {
            let keeping = tokio::spawn(server.keeper(identity, PACE, keeper).run());
            let ended = basalt_master::run(config, Seams::system(), files, shutdown).await;
            println!("{identity} ended: {ended:?}");
            keeping.await.unwrap();
        });
        self.masters.push(Process { runtime: Some(runtime), stop });
    }

    async fn active(&self) -> Option<pb::MasterRecord> {
        let (data, _) = self.session.get_data(&Nodes::below("/basalt").master()).await.ok()?;
        pb::MasterRecord::decode(data).ok()
    }

    /// Waits until `identity` is active with `epoch`.
    async fn is_active(&self, identity: &str, epoch: u64) {
        until(&format!("{identity} is active"), async || {
            let active = self.active().await;
            active.is_some_and(|it| it.lease_holder == identity && it.epoch == epoch)
        })
        .await;
    }

    async fn holds(&self, identity: &str) {
        until(&format!("{identity:?} holds the Lease"), async || self.server.holder() == identity)
            .await;
    }
}

// === impl Process ===

impl Process {
    /// Like `kill -9`.
    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start_coordinator(files: MemoryFileSystem) -> String {
    let free = || -> SocketAddr { TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    let (client_listen, peer_listen) = (free(), free());
    let member = basalt_coordinator::Member {
        peer_address: peer_listen.to_string(),
        client_address: client_listen.to_string(),
    };
    let config = basalt_coordinator::Config {
        cluster: "test".to_owned(),
        member_id: 1,
        peer_listen,
        client_listen,
        members: [(1, member)].into(),
        data: "/coordinator".into(),
        timers: basalt_coordinator::CoordinatorTimers::default(),
        limits: basalt_coordinator::Limits::default(),
        ready: None,
    };
    let files: SharedFileSystem = Arc::new(files);
    tokio::spawn(basalt_coordinator::run(config, Seams::system(), files, Shutdown::new()));
    client_listen.to_string()
}

fn config(coordinator: &str, guard: LeaseGuard) -> basalt_master::Config {
    let any = "127.0.0.1:0".parse().unwrap();
    basalt_master::Config {
        cluster_name: "test".to_owned(),
        rpc_listen: any,
        advertised_host: "127.0.0.1".to_owned(),
        peer_listen: any,
        info_port: 0,
        coordinators: vec![coordinator.to_owned()],
        nodes_parent: "/basalt".to_owned(),
        client_parent: "/hbase".to_owned(),
        // No session expires here: deaths are detected by the streams.
        timers: basalt_master::MasterTimers { session_timeout: PATIENCE, ..Default::default() },
        declared_tables: Vec::new(),
        rack: String::new(),
        instance: "master".to_owned(),
        guard,
        storage_deviations: None,
        feature_level: FeatureLevel::NEWEST,
        ready: None,
    }
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_master_is_followed_by_the_standby_which_takes_the_lease_over() {
    let mut cluster = Cluster::start().await;
    cluster.holds("a").await;
    let killed = Instant::now();
    cluster.masters[0].kill();
    cluster.is_active("b", 2).await;
    println!("b active {:?} after a was killed", killed.elapsed());
    assert_eq!(cluster.server.holder(), "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_stopped_gives_up_the_seat_and_the_last_one_gives_the_lease_back() {
    let cluster = Cluster::start().await;
    let stopped = Instant::now();
    cluster.masters[0].stop.cancel();
    cluster.is_active("b", 2).await;
    println!("b active {:?} after a was stopped", stopped.elapsed());
    assert_eq!(cluster.server.holder(), "b");
    cluster.masters[1].stop.cancel();
    cluster.holds("").await;
    assert_eq!(cluster.active().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_api_server_away_the_active_master_goes_on_and_is_followed_if_it_dies() {
    let mut cluster = Cluster::start().await;
    cluster.server.go_away(true);
    tokio::time::sleep(PACE.unreachable_after() * 2).await;
    cluster.is_active("a", 1).await;
    cluster.masters[0].kill();
    cluster.is_active("b", 2).await;
    assert_eq!(cluster.server.holder(), "a");
    cluster.server.go_away(false);
    cluster.holds("b").await;
    cluster.is_active("b", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_whose_lease_was_taken_ends_and_the_seat_goes_to_who_can_take_the_lease() {
    let cluster = Cluster::start().await;
    cluster.server.written_by("a stranger");
    // No process renews the Lease. After it has expired, `b` takes it.
    cluster.is_active("b", 2).await;
    assert_eq!(cluster.server.holder(), "b");
}
