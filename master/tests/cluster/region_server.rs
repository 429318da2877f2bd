//! A region server that speaks the protocol of its master but keeps no data.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use basalt_cluster::pb::region_server_orders_server::{
    RegionServerOrders, RegionServerOrdersServer,
};
use basalt_cluster::{Nodes, RegionRecord, pb};
use basalt_fs::{FileSystem, MemoryFileSystem};
use basalt_model::{EncodedRegionName, RegionState, ServerName, paths};
use basalt_runtime::{Seams, grpc};
use basalt_zk::proto::CreateMode;
use basalt_zk::{Client, Options};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{oneshot, watch};
use tonic::{Request, Response, Status};

use crate::process::Process;

/// Controls that all fake servers share with the test. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Controls {
    /// The regions that were ever opened, so that each log "has edits" of all of them.
    opened: Arc<Mutex<BTreeSet<EncodedRegionName>>>,
    /// If present, orders to close wait in it, in the order of their arrival.
    held_closes: Arc<Mutex<Option<Vec<oneshot::Sender<()>>>>>,
    /// Whether the catalogs of the servers lag behind.
    held_catalogs: Arc<watch::Sender<bool>>,
    /// While true, orders to split wait.
    held_splits: Arc<watch::Sender<bool>>,
    /// While true, orders to open wait.
    held_opens: Arc<watch::Sender<bool>>,
}

/// The length of each server's log: enough to hold edits.
pub(crate) const LOG_BYTES: usize = 600;

pub(crate) struct FakeRegionServer {
    pub(crate) name: ServerName,
    pub(crate) process: Process,
    /// How far the server's clock is ahead.
    pub(crate) ahead_ms: Arc<AtomicI64>,
}

struct Orders {
    name: ServerName,
    ahead_ms: Arc<AtomicI64>,
    client: Client,
    nodes: Nodes,
    files: MemoryFileSystem,
    controls: Controls,
}

// === impl Controls ===

impl Controls {
    /// From now on, orders to close wait.
    pub(crate) fn hold_closes(&self) {
        *self.held_closes.lock() = Some(Vec::new());
    }

    /// How many orders to close wait.
    pub(crate) fn held_closes(&self) -> usize {
        self.held_closes.lock().as_ref().map_or(0, Vec::len)
    }

    /// Releases the order to close that came last.
    pub(crate) fn release_last_close(&self) {
        let released = self.held_closes.lock().as_mut().and_then(Vec::pop);
        if let Some(order) = released {
            let _ = order.send(());
        }
    }

    /// Releases all orders to close, and holds no further ones.
    pub(crate) fn release_closes(&self) {
        self.held_closes.lock().take();
    }

    /// Whether catalogs lag behind from now on.
    pub(crate) fn hold_catalogs(&self, held: bool) {
        self.held_catalogs.send_replace(held);
    }

    /// Whether orders to split wait from now on.
    pub(crate) fn hold_splits(&self, held: bool) {
        self.held_splits.send_replace(held);
    }

    /// How many orders to split wait.
    pub(crate) fn held_splits(&self) -> usize {
        self.held_splits.receiver_count()
    }

    /// Whether orders to open wait from now on.
    pub(crate) fn hold_opens(&self, held: bool) {
        self.held_opens.send_replace(held);
    }

    /// How many orders to open wait.
    pub(crate) fn held_opens(&self) -> usize {
        self.held_opens.receiver_count()
    }

    async fn wait_to_open(&self) {
        let mut held = self.held_opens.subscribe();
        let _ = held.wait_for(|held| !held).await;
    }

    async fn wait_to_split(&self) {
        let mut held = self.held_splits.subscribe();
        let _ = held.wait_for(|held| !held).await;
    }

    async fn wait_to_catch_up(&self) {
        let mut held = self.held_catalogs.subscribe();
        let _ = held.wait_for(|held| !held).await;
    }

    async fn wait_to_close(&self) {
        let (release, released) = oneshot::channel();
        let is_held = self.held_closes.lock().as_mut().map(|held| held.push(release)).is_some();
        if is_held {
            // An error means that all orders were released.
            let _ = released.await;
        }
    }
}

// === impl FakeRegionServer ===

impl FakeRegionServer {
    /// Starts a server with the files of `writer`. Its log is locked while `writer` lives.
    pub(crate) async fn start(
        coordinator: String,
        files: MemoryFileSystem,
        port: u16,
        controls: Controls,
        ahead_ms: i64,
    ) -> Self {
        let name = ServerName {
            host: "127.0.0.1".to_owned(),
            port,
            start_code: Seams::system().clock.wall_ms(),
        };
        let (ready, is_ready) = oneshot::channel();
        let ahead_ms = Arc::new(AtomicI64::new(ahead_ms));
        let clock = Arc::clone(&ahead_ms);
        let running = run(name.clone(), coordinator, files, controls, clock, ready);
        let process = Process::start(running);
        is_ready.await.unwrap();
        Self { name, process, ahead_ms }
    }
}

async fn run(
    name: ServerName,
    coordinator: String,
    files: MemoryFileSystem,
    controls: Controls,
    ahead_ms: Arc<AtomicI64>,
    ready: oneshot::Sender<()>,
) {
    let seams = Seams::system();
    let session_timeout = Duration::from_secs(30);
    let client =
        Client::connect(&seams, &[coordinator], session_timeout, Options::default()).await.unwrap();
    let folder = paths::server_logs(&name);
    files.create_directories(&folder).await.unwrap();
    let mut log = files.create(&folder.join(format!("{name}.1"))).await.unwrap();
    log.append(vec![7; LOG_BYTES].into()).await.unwrap();
    log.sync().await.unwrap();
    let listener = seams.network.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let record = pb::ServerRecord {
        peer_address: listener.local_address().unwrap().to_string(),
        boot_id: files.boot_id().to_owned(),
        instance: format!("process of {name}"),
        ..Default::default()
    };
    let nodes = Nodes::below("/basalt");
    let orders = Orders {
        name: name.clone(),
        ahead_ms,
        client: client.clone(),
        nodes: nodes.clone(),
        files,
        controls,
    };
    let serving = tonic::transport::Server::builder()
        .add_service(RegionServerOrdersServer::new(orders))
        .serve_with_incoming(grpc::incoming(listener));
    let serving = tokio::spawn(serving);
    let listed = pb::ListedLog { number: 1, durable_bytes: LOG_BYTES as u64 };
    let list = pb::LogListRecord { logs: vec![listed] }.encode_to_vec().into();
    client.create(&nodes.logs_of_server(&name), list, CreateMode::Persistent).await.unwrap();
    let data = record.encode_to_vec().into();
    client.create(&nodes.server(&name), data, CreateMode::Ephemeral).await.unwrap();
    ready.send(()).unwrap();
    serving.await.unwrap().unwrap();
    drop(log);
}

// === impl Orders ===

impl Orders {
    async fn change(
        &self,
        encoded_name: &str,
        epoch: Option<u64>,
        change: impl Fn(&mut RegionRecord),
    ) -> Result<(), String> {
        let path = self.nodes.region(encoded_name.parse().unwrap());
        let (data, stat) = self.client.get_data(&path).await.map_err(|e| e.to_string())?;
        let mut record = RegionRecord::decode(&data).map_err(|e| e.to_string())?;
        if record.server.as_ref() != Some(&self.name) {
            return Err("the region has another owner".to_owned());
        }
        if epoch.is_some_and(|epoch| epoch != record.epoch.0) {
            return Err("the region has another epoch".to_owned());
        }
        change(&mut record);
        let written = self.client.set_data(&path, record.encode(), Some(stat.version)).await;
        written.map(|_| ()).map_err(|e| e.to_string())
    }
}

#[tonic::async_trait]
impl RegionServerOrders for Orders {
    type LiveStream = Pin<Box<dyn Stream<Item = Result<pb::Alive, Status>> + Send>>;

    async fn live(
        &self,
        _: Request<pb::LiveRequest>,
    ) -> Result<Response<Self::LiveStream>, Status> {
        let alive = pb::Alive { server_name: self.name.to_string(), ..Default::default() };
        let stream = futures::stream::iter([Ok(alive)]).chain(futures::stream::pending());
        Ok(Response::new(Box::pin(stream)))
    }

    async fn open_regions(
        &self,
        request: Request<pb::OpenRegionsRequest>,
    ) -> Result<Response<pb::RegionsReply>, Status> {
        self.controls.wait_to_open().await;
        let mut outcomes = Vec::new();
        for region in request.into_inner().regions {
            let name = region.encoded_name;
            let epoch = region.record.map(|record| record.epoch);
            let opened = self.change(&name, epoch, |record| {
                assert_eq!(record.state, RegionState::Opening);
                record.state = RegionState::Open;
            });
            let failure = opened.await.err().unwrap_or_default();
            self.controls.opened.lock().insert(name.parse().unwrap());
            outcomes.push(pb::RegionOutcome { encoded_name: name, failure, ..Default::default() });
        }
        Ok(Response::new(pb::RegionsReply { outcomes }))
    }

    async fn close_regions(
        &self,
        request: Request<pb::CloseRegionsRequest>,
    ) -> Result<Response<pb::RegionsReply>, Status> {
        self.controls.wait_to_close().await;
        let mut outcomes = Vec::new();
        for region in request.into_inner().regions {
            let name = region.encoded_name;
            let closed = self.change(&name, Some(region.epoch), |record| {
                record.state = RegionState::Closed;
                record.unflushed.clear();
            });
            let failure = closed.await.err().unwrap_or_default();
            outcomes.push(pb::RegionOutcome { encoded_name: name, failure, ..Default::default() });
        }
        Ok(Response::new(pb::RegionsReply { outcomes }))
    }

    async fn flush_regions(
        &self,
        request: Request<pb::FlushRegionsRequest>,
    ) -> Result<Response<pb::RegionsReply>, Status> {
        let mut outcomes = Vec::new();
        for name in request.into_inner().encoded_names {
            let flushed = self.change(&name, None, |record| record.unflushed.clear());
            let failure = flushed.await.err().unwrap_or_default();
            outcomes.push(pb::RegionOutcome { encoded_name: name, failure, ..Default::default() });
        }
        Ok(Response::new(pb::RegionsReply { outcomes }))
    }

    async fn catch_up(
        &self,
        _: Request<pb::CatchUpRequest>,
    ) -> Result<Response<pb::CatchUpReply>, Status> {
        self.controls.wait_to_catch_up().await;
        Ok(Response::new(pb::CatchUpReply {}))
    }

    // Like a region server of an earlier release.

    async fn report_regions(
        &self,
        _: Request<pb::ReportRegionsRequest>,
    ) -> Result<Response<pb::ReportRegionsReply>, Status> {
        Err(Status::unimplemented("ReportRegions"))
    }

    async fn check_regions(
        &self,
        _: Request<pb::CheckRegionsRequest>,
    ) -> Result<Response<pb::CheckRegionsReply>, Status> {
        Err(Status::unimplemented("CheckRegions"))
    }

    async fn compare_clock(
        &self,
        _: Request<pb::CompareClockRequest>,
    ) -> Result<Response<pb::CompareClockReply>, Status> {
        let ahead_ms = self.ahead_ms.load(Ordering::Relaxed);
        let wall_ms = Seams::system().clock.wall_ms().saturating_add_signed(ahead_ms);
        Ok(Response::new(pb::CompareClockReply { wall_ms }))
    }

    async fn split_logs(
        &self,
        request: Request<pb::SplitLogsRequest>,
    ) -> Result<Response<pb::SplitLogsReply>, Status> {
        self.controls.wait_to_split().await;
        let regions: Vec<Vec<u8>> =
            self.controls.opened.lock().iter().map(|name| name.digest().to_vec()).collect();
        let pb::SplitLogsRequest { server_name, logs, .. } = request.into_inner();
        let folder = paths::fenced_logs(&server_name.parse().unwrap());
        let mut split = Vec::new();
        for pb::SealedLog { name, sealed_length } in logs {
            let failure = match self.files.open(&folder.join(&name)).await {
                Ok(file) if file.length() >= sealed_length => String::new(),
                Ok(file) => format!("{name} has {} bytes of {sealed_length}", file.length()),
                Err(error) => error.to_string(),
            };
            split.push(pb::SplitLog {
                name,
                failure,
                bytes: sealed_length,
                regions: regions.clone(),
            });
        }
        Ok(Response::new(pb::SplitLogsReply { logs: split }))
    }
}
