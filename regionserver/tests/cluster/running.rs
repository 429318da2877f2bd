//! A region server with a real coordinator and master, in this process.

use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::pb::region_server_orders_client::RegionServerOrdersClient;
use basalt_cluster::{Nodes, pb};
use basalt_fs::{MemoryFileSystem, SharedFileSystem};
use basalt_model::{FeatureLevel, ServerName};
use basalt_regionserver::RegionConfig;
use basalt_runtime::{Seams, Shutdown, grpc};
use basalt_zk::{Client, Options};
use prost::Message as _;
use tokio::sync::oneshot;

/// A timeout for everything, long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Running {
    pub(crate) seams: Seams,
    /// A client of the coordinator.
    pub(crate) client: Client,
    pub(crate) nodes: Nodes,
    pub(crate) name: ServerName,
    pub(crate) orders: RegionServerOrdersClient<tonic::transport::Channel>,
    pub(crate) master_epoch: u64,
    pub(crate) disk: MemoryFileSystem,
    stop: Shutdown,
}

// === impl Running ===

impl Running {
    /// Starts a cluster with one process of each role.
    pub(crate) async fn start() -> Self {
        let disk = MemoryFileSystem::new();
        let seams = Seams::system();
        let stop = Shutdown::new();
        let coordinator = start_coordinator(&disk, &seams, &stop).await;
        start_master(&disk, &seams, &stop, &coordinator);
        start_region_server(&disk, &seams, &stop, &coordinator).await;
        let options = Options { connect_timeout: Some(PATIENCE), ..Options::default() };
        let client = Client::connect(&seams, &[coordinator], PATIENCE, options).await.unwrap();
        let nodes = Nodes::below("/basalt");
        let (servers, _) = client.get_children(&nodes.servers()).await.unwrap();
        let name: ServerName = servers[0].parse().unwrap();
        let (record, _) = client.get_data(&nodes.server(&name)).await.unwrap();
        let record = pb::ServerRecord::decode(record).unwrap();
        let (master, _) = client.get_data(&nodes.master()).await.unwrap();
        let master_epoch = pb::MasterRecord::decode(master).unwrap().epoch;
        let channel = grpc::channel(&seams.network, &record.peer_address, PATIENCE).unwrap();
        let orders = RegionServerOrdersClient::new(channel);
        Self { seams, client, nodes, name, orders, master_epoch, disk, stop }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn start_coordinator(disk: &MemoryFileSystem, seams: &Seams, stop: &Shutdown) -> String {
    let (ready, is_ready) = oneshot::channel();
    let ports = [free_port(), free_port()];
    let [client_address, peer_address] = ports.map(|port| format!("127.0.0.1:{port}"));
    let member =
        basalt_coordinator::Member { peer_address, client_address: client_address.clone() };
    let config = basalt_coordinator::Config {
        cluster: "test".to_owned(),
        member_id: 1,
        peer_listen: member.peer_address.parse().unwrap(),
        client_listen: member.client_address.parse().unwrap(),
        members: [(1, member)].into(),
        data: "/coordinator".into(),
        timers: basalt_coordinator::CoordinatorTimers::default(),
        limits: basalt_coordinator::Limits::default(),
        ready: Some(ready),
    };
    let files: SharedFileSystem = Arc::new(disk.as_writer(1));
    tokio::spawn(basalt_coordinator::run(config, seams.clone(), files, stop.clone()));
    is_ready.await.unwrap();
    client_address
}

fn start_master(disk: &MemoryFileSystem, seams: &Seams, stop: &Shutdown, coordinator: &str) {
    let any = "127.0.0.1:0".parse().unwrap();
    let config = basalt_master::Config {
        cluster_name: "test".to_owned(),
        rpc_listen: any,
        advertised_host: "127.0.0.1".to_owned(),
        peer_listen: any,
        info_port: 0,
        coordinators: vec![coordinator.to_owned()],
        nodes_parent: "/basalt".to_owned(),
        client_parent: "/hbase".to_owned(),
        timers: basalt_master::MasterTimers::default(),
        declared_tables: Vec::new(),
        rack: String::new(),
        instance: "master".to_owned(),
        guard: basalt_master::LeaseGuard::without_lease(),
        storage_deviations: None,
        feature_level: FeatureLevel::NEWEST,
        ready: None,
    };
    let files: SharedFileSystem = Arc::new(disk.as_writer(2));
    tokio::spawn(basalt_master::run(config, seams.clone(), files, stop.clone()));
}

async fn start_region_server(
    disk: &MemoryFileSystem,
    seams: &Seams,
    stop: &Shutdown,
    coordinator: &str,
) {
    let (ready, is_ready) = oneshot::channel();
    let any = "127.0.0.1:0".parse().unwrap();
    let config = basalt_regionserver::Config {
        host: "127.0.0.1".to_owned(),
        rpc_listen: any,
        peer_listen: any,
        coordinators: vec![coordinator.to_owned()],
        nodes_parent: "/basalt".to_owned(),
        instance: "region server".to_owned(),
        rack: String::new(),
        session_timeout: PATIENCE,
        lease: Duration::from_secs(10),
        renewal_interval: Duration::from_secs(3),
        stop_timeout: Duration::from_secs(1),
        clock_bound: Duration::from_secs(1),
        region: RegionConfig::default(),
        wal_roll_bytes: 1 << 20,
        wal_files_max: 4,
        memstores_bytes_max: 64 << 20,
        block_cache_bytes: 1 << 20,
        calls_max: 16,
        feature_level: FeatureLevel::NEWEST,
        ready: Some(ready),
    };
    let files: SharedFileSystem = Arc::new(disk.as_writer(3));
    tokio::spawn(basalt_regionserver::run(config, seams.clone(), files, stop.clone()));
    tokio::time::timeout(PATIENCE, is_ready).await.unwrap().unwrap();
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
