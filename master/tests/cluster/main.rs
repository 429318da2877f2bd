//! Tests of masters with a real coordinator, and with region servers that speak the protocol but
//! keep no data.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test may print")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod clocks;
mod first_start;
mod lease;
mod lost_logs;
mod process;
mod region_server;
mod tables;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::pb::master_peer_client::MasterPeerClient;
use basalt_cluster::{Catalog, Nodes, catalog, pb as cluster};
use basalt_fs::{FileSystem, MemoryFileSystem, SharedFileSystem};
use basalt_hbase_rpc::{Connection, ConnectionOptions, Service, pb, schema};
use basalt_master::{Config, LeaseGuard, MasterTimers};
use basalt_model::{
    FamilyDescriptor, FeatureLevel, RegionState, ServerName, TableDescriptor, paths,
};
use basalt_runtime::{Seams, Shutdown, grpc};
use basalt_zk::proto::CreateMode;
use basalt_zk::{Client, Options};
use bytes::Bytes;
use prost::Message;
use tokio::time::Instant;

use process::{Process, free_port};
use region_server::{Controls, FakeRegionServer};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const CALL: Duration = Duration::from_secs(10);

struct Cluster {
    coordinator: String,
    disk: MemoryFileSystem,
    controls: Controls,
    client: Client,
    catalog: Catalog,
    masters: Vec<Process>,
    servers: Vec<FakeRegionServer>,
    _coordinator: Process,
}

// === impl Cluster ===

impl Cluster {
    async fn start(masters: usize, servers: usize) -> Self {
        Self::start_behind((0..masters).map(|_| LeaseGuard::without_lease()), servers).await
    }

    /// Starts a master with each of `guards`.
    async fn start_behind(guards: impl Iterator<Item = LeaseGuard>, servers: usize) -> Self {
        let disk = MemoryFileSystem::new();
        let (address, coordinator) = start_coordinator(disk.as_writer(1_000)).await;
        let masters: Vec<_> =
            guards.map(|guard| start_master(&address, disk.as_writer(2_000), guard)).collect();
        let seams = Seams::system();
        let client = Client::connect(
            &seams,
            std::slice::from_ref(&address),
            Duration::from_secs(30),
            Options { connect_timeout: Some(PATIENCE), ..Options::default() },
        );
        let client = client.await.unwrap();
        let nodes = Nodes::below("/basalt");
        until("the cluster is prepared", async || {
            client.exists(&nodes.master()).await.unwrap().is_some()
        })
        .await;
        let catalog = catalog::follow(client.clone(), nodes).await.unwrap();
        let mut cluster = Self {
            coordinator: address,
            disk,
            controls: Controls::default(),
            client,
            catalog,
            masters,
            servers: Vec::new(),
            _coordinator: coordinator,
        };
        for _ in 0..servers {
            cluster.add_server().await;
        }
        cluster
    }

    fn add_master(&mut self, writer: u64, guard: LeaseGuard) {
        self.masters.push(start_master(&self.coordinator, self.disk.as_writer(writer), guard));
    }

    async fn add_server(&mut self) {
        self.add_server_ahead(0).await;
    }

    /// Adds a server whose clock is ahead by `ahead_ms`.
    async fn add_server_ahead(&mut self, ahead_ms: i64) {
        let writer = self.servers.len() as u64 + 1;
        let server = FakeRegionServer::start(
            self.coordinator.clone(),
            self.disk.as_writer(writer),
            free_port(),
            self.controls.clone(),
            ahead_ms,
        );
        self.servers.push(server.await);
    }

    /// Like `kill -9`: sockets close, locks are freed, the session stays.
    fn kill_server(&mut self, index: usize) -> ServerName {
        self.servers[index].process.kill();
        self.disk.crash(index as u64 + 1, |unsynced| unsynced);
        self.servers[index].name.clone()
    }

    fn active(&self) -> Option<cluster::MasterRecord> {
        self.catalog.master()
    }

    /// Calls the active master. Retries while there is none.
    async fn call<M: Message + Default>(&self, method: &'static str, request: &impl Message) -> M {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcome = self.call_once(method, request).await;
            match outcome {
                Ok(answer) => return answer,
                Err(error) if Instant::now() > deadline => panic!("{method}: {error}"),
                Err(error) => println!("{method}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn call_once<M: Message + Default>(
        &self,
        method: &'static str,
        request: &impl Message,
    ) -> Result<M, String> {
        let active = self.active().ok_or("no active master")?;
        let server: ServerName = active.server_name.parse().unwrap();
        let options = ConnectionOptions::new(Service::Master, "test");
        let network = Seams::system().network;
        let connection = Connection::open(&network, &server.address(), &options)
            .await
            .map_err(|error| error.to_string())?;
        let answer = connection.call_decoded(method, request, &[], CALL).await;
        answer.map(|(message, _)| message).map_err(|error| error.to_string())
    }

    async fn create_table(&self, name: &str, regions: u8, nonce: u64) -> u64 {
        let request = create_request(name, (1..regions).map(|key| Bytes::from(vec![key])), nonce);
        let created: pb::CreateTableResponse = self.call("CreateTable", &request).await;
        created.proc_id()
    }

    async fn finished(&self, proc_id: u64) {
        use pb::get_procedure_result_response::State;
        let request = pb::GetProcedureResultRequest { proc_id };
        until("the procedure is finished", async || {
            let result: pb::GetProcedureResultResponse =
                self.call("getProcedureResult", &request).await;
            assert_ne!(result.state(), State::NotFound);
            assert_eq!(result.exception, None);
            result.state() == State::Finished
        })
        .await;
    }

    /// How many open regions each live server holds.
    fn open_regions(&self) -> BTreeMap<ServerName, usize> {
        let mut counts: BTreeMap<ServerName, usize> =
            self.catalog.servers().into_keys().map(|server| (server, 0)).collect();
        for region in self.catalog.regions().into_values() {
            if region.record.state == RegionState::Open
                && let Some(count) = region.record.server.as_ref().and_then(|s| counts.get_mut(s))
            {
                *count += 1;
            }
        }
        counts
    }

    async fn all_open(&self, count: usize) {
        until("all regions are open on living servers", async || {
            self.open_regions().values().sum::<usize>() == count
        })
        .await;
    }

    /// Waits until `dead` is known to be dead and all regions are open on the others.
    async fn all_open_without(&self, dead: &ServerName, count: usize) {
        until("all regions are open on the others", async || {
            let open = self.open_regions();
            !open.contains_key(dead) && open.values().sum::<usize>() == count
        })
        .await;
    }

    async fn peer(&self) -> MasterPeerClient<tonic::transport::Channel> {
        let address = self.active().unwrap().peer_address;
        let channel = grpc::channel(&Seams::system().network, &address, CALL).unwrap();
        MasterPeerClient::new(channel)
    }
}

async fn start_coordinator(files: MemoryFileSystem) -> (String, Process) {
    let (client, peer) = (free_port(), free_port());
    let member = basalt_coordinator::Member {
        peer_address: format!("127.0.0.1:{peer}"),
        client_address: format!("127.0.0.1:{client}"),
    };
    let config = basalt_coordinator::Config {
        cluster: "test".to_owned(),
        member_id: 1,
        peer_listen: member.peer_address.parse().unwrap(),
        client_listen: member.client_address.parse().unwrap(),
        members: [(1, member)].into(),
        data: "/coordinator".into(),
        timers: basalt_coordinator::CoordinatorTimers::default(),
        limits: basalt_coordinator::Limits::default(),
        ready: None,
    };
    let files: SharedFileSystem = Arc::new(files);
    let running = async move {
        let ended = basalt_coordinator::run(config, Seams::system(), files, Shutdown::new()).await;
        println!("the coordinator ended: {ended:?}");
    };
    (format!("127.0.0.1:{client}"), Process::start(running))
}

fn start_master(coordinator: &str, files: impl FileSystem, guard: LeaseGuard) -> Process {
    let any = "127.0.0.1:0".parse().unwrap();
    let config = Config {
        cluster_name: "test".to_owned(),
        rpc_listen: any,
        advertised_host: "127.0.0.1".to_owned(),
        peer_listen: any,
        info_port: 0,
        coordinators: vec![coordinator.to_owned()],
        nodes_parent: "/basalt".to_owned(),
        client_parent: "/hbase".to_owned(),
        // No session ends on its own here, so deaths are detected through the streams.
        timers: MasterTimers {
            session_timeout: Duration::from_secs(30),
            reopening_wait: Duration::from_secs(2),
            ..MasterTimers::default()
        },
        declared_tables: Vec::new(),
        rack: String::new(),
        instance: "master".to_owned(),
        guard,
        storage_deviations: None,
        feature_level: FeatureLevel::NEWEST,
        ready: None,
    };
    Process::start(async move {
        let files: SharedFileSystem = Arc::new(files);
        let ended = basalt_master::run(config, Seams::system(), files, Shutdown::new()).await;
        println!("a master ended: {ended:?}");
    })
}

fn create_request(
    name: &str,
    split_keys: impl IntoIterator<Item = Bytes>,
    nonce: u64,
) -> pb::CreateTableRequest {
    pb::CreateTableRequest {
        table_schema: schema::table_to_message(&descriptor(name)),
        split_keys: split_keys.into_iter().collect(),
        nonce_group: Some(7),
        nonce: Some(nonce),
    }
}

fn descriptor(name: &str) -> TableDescriptor {
    TableDescriptor {
        name: name.parse().unwrap(),
        families: [("f".to_owned(), FamilyDescriptor::new("f"))].into(),
        region_replication: 1,
        settings: BTreeMap::new(),
    }
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_regions_of_a_killed_server_are_served_by_the_others() {
    let mut cluster = Cluster::start(1, 3).await;
    let created = cluster.create_table("t", 12, 1).await;
    // The client did not receive the reply.
    assert_eq!(cluster.create_table("t", 12, 1).await, created);
    cluster.finished(created).await;
    cluster.all_open(12).await;
    assert!(cluster.open_regions().values().all(|count| *count == 4));

    let killed_at = Instant::now();
    let dead = cluster.kill_server(0);
    cluster.all_open_without(&dead, 12).await;
    println!("all regions open again after {:?}", killed_at.elapsed());
    assert!(cluster.open_regions().values().all(|count| *count == 6));
    let regions = cluster.catalog.regions();
    let moved = regions.values().filter(|region| region.record.unflushed == [dead.clone()]);
    assert_eq!(moved.count(), 4);
    let nodes = Nodes::below("/basalt");
    assert_eq!(cluster.client.exists(&nodes.server(&dead)).await.unwrap(), None);

    let recovery = std::sync::Mutex::new(None);
    until("the recovery is reported", async || {
        let mut peer = cluster.peer().await;
        let reply = peer.recoveries(cluster::RecoveriesRequest {}).await.unwrap().into_inner();
        *recovery.lock().unwrap() = reply.recoveries.last().filter(|last| last.done).cloned();
        recovery.lock().unwrap().is_some()
    })
    .await;
    let recovery = recovery.into_inner().unwrap().unwrap();
    println!("{recovery:?}");
    assert_eq!((recovery.regions, recovery.wal_bytes), (4, 600));
    assert_eq!(recovery.cause, "stream ended");

    // The logs stay until every region has flushed its edits in them.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(cluster.disk.exists(&paths::fenced_logs(&dead)).await.unwrap());
    for (name, region) in regions {
        let mut flushed = region.record.clone();
        flushed.unflushed.clear();
        let path = nodes.region(name);
        cluster.client.set_data(&path, flushed.encode(), None).await.unwrap();
    }
    until("the logs are deleted", async || {
        !cluster.disk.exists(&paths::fenced_logs(&dead)).await.unwrap()
            && cluster.client.exists(&nodes.fenced_server(&dead)).await.unwrap().is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_from_a_killed_master_and_goes_on_with_its_work() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.finished(cluster.create_table("t", 4, 1).await).await;
    let first = cluster.active().unwrap();
    cluster.add_master(2_001, LeaseGuard::without_lease());
    let nodes = Nodes::below("/basalt");
    until("the standby is registered", async || {
        cluster.client.get_children(&nodes.masters()).await.unwrap().0.len() == 2
    })
    .await;
    // Its stream opens a moment later.
    tokio::time::sleep(Duration::from_millis(300)).await;

    // A server dies, and the master that should recover it dies with it.
    let killed_at = Instant::now();
    let dead = cluster.kill_server(0);
    cluster.masters[0].kill();
    until("another master is active", async || {
        cluster.active().is_some_and(|active| active.epoch == first.epoch + 1)
    })
    .await;
    println!("another master active after {:?}", killed_at.elapsed());
    cluster.all_open_without(&dead, 4).await;
    println!("all regions open again after {:?}", killed_at.elapsed());
    assert_eq!(cluster.open_regions().into_values().collect::<Vec<_>>(), [4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_drained_loses_its_regions_and_leaves_without_a_recovery() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.finished(cluster.create_table("t", 6, 1).await).await;
    let leaving = cluster.servers[0].name.clone();
    let request = cluster::DrainRequest { server_name: leaving.to_string() };
    let reply = cluster.peer().await.drain(request).await.unwrap().into_inner();
    assert_eq!(reply.regions_left, 0);
    cluster.all_open(6).await;
    let nodes = Nodes::below("/basalt");
    cluster.client.delete(&nodes.server(&leaving), None).await.unwrap();
    cluster.kill_server(0);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let recoveries = cluster.peer().await.recoveries(cluster::RecoveriesRequest {}).await;
    assert_eq!(recoveries.unwrap().into_inner().recoveries, []);
    assert_eq!(cluster.open_regions().into_values().collect::<Vec<_>>(), [6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_master_knows_which_servers_are_leaving() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.finished(cluster.create_table("t", 6, 1).await).await;
    let first = cluster.active().unwrap().server_name;
    cluster.add_master(2_001, LeaseGuard::without_lease());
    let nodes = Nodes::below("/basalt");
    until("the standby has its catalog", async || {
        let (masters, _) = cluster.client.get_children(&nodes.masters()).await.unwrap();
        let Some(standby) = masters.into_iter().find(|name| *name != first) else { return false };
        let path = nodes.standby(&standby.parse().unwrap());
        let (data, _) = cluster.client.get_data(&path).await.unwrap();
        let address = cluster::ServerRecord::decode(data).unwrap().peer_address;
        let channel = grpc::channel(&Seams::system().network, &address, CALL).unwrap();
        // It answers no call before.
        MasterPeerClient::new(channel).catch_up(cluster::CatchUpRequest::default()).await.is_ok()
    })
    .await;
    let leaving = cluster.servers[0].name.clone();
    // Like a server that has been asked to stop, before it asks the master.
    let path = nodes.server(&leaving);
    let (data, _) = cluster.client.get_data(&path).await.unwrap();
    let record = cluster::ServerRecord::decode(data).unwrap();
    let record = cluster::ServerRecord { draining: true, ..record };
    cluster.client.set_data(&path, record.encode_to_vec().into(), None).await.unwrap();
    cluster.masters[0].kill();
    until("the regions are moved away from it", async || {
        let open = cluster.open_regions();
        open.get(&leaving) == Some(&0) && open.values().sum::<usize>() == 6
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_of_a_server_stops_no_master() {
    let mut cluster = Cluster::start(1, 1).await;
    let path = Nodes::below("/basalt").server(&"rs,16020,1".parse().unwrap());
    let garbage = Bytes::from_static(b"\xff\xff");
    cluster.client.create(&path, garbage, CreateMode::Persistent).await.unwrap();
    cluster.finished(cluster.create_table("t", 2, 1).await).await;
    cluster.masters[0].kill();
    cluster.add_master(2_001, LeaseGuard::without_lease());
    // Its end is shown only later, when the session of the killed master is over.
    cluster.create_table("u", 2, 2).await;
    cluster.all_open(4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_processes_killed_at_once_serve_again_when_they_are_started() {
    let mut cluster = Cluster::start(2, 2).await;
    cluster.finished(cluster.create_table("t", 6, 1).await).await;
    cluster.all_open(6).await;
    let dead = [cluster.kill_server(0), cluster.kill_server(1)];
    cluster.masters.iter_mut().for_each(Process::kill);

    let started_at = Instant::now();
    for writer in 2_002..2_004 {
        cluster.add_master(writer, LeaseGuard::without_lease());
    }
    cluster.add_server().await;
    cluster.add_server().await;
    until("all regions are open on the new servers", async || {
        let open = cluster.open_regions();
        dead.iter().all(|server| !open.contains_key(server)) && open.values().sum::<usize>() == 6
    })
    .await;
    println!("all regions open again after {:?}", started_at.elapsed());
    // The balancer moves regions that were assigned before the last server joined.
    until("the regions are spread evenly", async || {
        cluster.open_regions().into_values().collect::<Vec<_>>() == [3, 3]
    })
    .await;
}
