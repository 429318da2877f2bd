//! Tests that a region has one owner, whatever orders arrive and when.

use std::time::Duration;

use basalt_cluster::records::write_descriptor;
use basalt_cluster::{RegionRecord, TableRecord, pb};
use basalt_failpoint::{Answer, Point};
use basalt_fs::FileSystem as _;
use basalt_hbase_rpc::{Connection, ConnectionOptions, Service, pb as hbase};
use basalt_model::{
    FamilyDescriptor, RegionEpoch, RegionInfo, RegionState, ServerName, TableDescriptor,
    TableState, paths,
};
use basalt_zk::proto::CreateMode;
use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tonic::Code;

use crate::running::{PATIENCE, Running};
use crate::traps;

const POLL: Duration = Duration::from_millis(5);

/// A cluster with one region. The master leaves its table alone.
pub(crate) struct OneRegion {
    pub(crate) running: Running,
    pub(crate) record: RegionRecord,
    descriptor: TableDescriptor,
}

// === impl OneRegion ===

impl OneRegion {
    /// Starts with a record that says that `owner`, or else the running server, is to open the
    /// region.
    pub(crate) async fn start(owner: Option<&str>, state: TableState) -> Self {
        let running = Running::start().await;
        let descriptor = TableDescriptor {
            name: "t".parse().unwrap(),
            families: [("f".to_owned(), FamilyDescriptor::new("f"))].into(),
            region_replication: 1,
            settings: Default::default(),
        };
        let table = TableRecord::new(descriptor.clone(), state);
        let path = running.nodes.table(&descriptor.name);
        running.client.create(&path, table.encode(), CreateMode::Persistent).await.unwrap();
        let owner: ServerName =
            owner.map_or_else(|| running.name.clone(), |owner| owner.parse().unwrap());
        let info = RegionInfo::primary("t".parse().unwrap(), Bytes::new(), Bytes::new(), 1);
        let region =
            Self { running, record: RegionRecord::new(info).assigned_to(owner), descriptor };
        region.create(RegionState::Opening).await;
        region
    }

    async fn create(&self, state: RegionState) {
        let record = RegionRecord { state, ..self.record.clone() };
        let path = self.running.nodes.region(record.encoded_name());
        let client = &self.running.client;
        client.create(&path, record.encode(), CreateMode::Persistent).await.unwrap();
    }

    fn open_order(&self, record: &RegionRecord) -> pb::OpenRegionsRequest {
        let region = pb::OpenRegion {
            encoded_name: record.encoded_name().to_string(),
            record: Some(record.into()),
            record_version: 0,
            table: Some(write_descriptor(&self.descriptor)),
            family_incarnations: Default::default(),
        };
        pb::OpenRegionsRequest {
            master_epoch: self.running.master_epoch,
            regions: vec![region],
            excluded_nodes: Vec::new(),
        }
    }

    pub(crate) async fn open(&self, record: &RegionRecord) -> String {
        let mut orders = self.running.orders.clone();
        let reply = orders.open_regions(self.open_order(record)).await.unwrap();
        reply.into_inner().outcomes.remove(0).failure
    }

    async fn close(&self, epoch: RegionEpoch) -> String {
        let region = pb::CloseRegion {
            encoded_name: self.record.encoded_name().to_string(),
            epoch: epoch.0,
            ..Default::default()
        };
        let request = pb::CloseRegionsRequest {
            master_epoch: self.running.master_epoch,
            regions: vec![region],
            server_name: self.running.name.to_string(),
        };
        let reply = self.running.orders.clone().close_regions(request).await.unwrap();
        reply.into_inner().outcomes.remove(0).failure
    }

    async fn on_record(&self) -> RegionRecord {
        let path = self.running.nodes.region(self.record.encoded_name());
        let (data, _) = self.running.client.get_data(&path).await.unwrap();
        RegionRecord::decode(&data).unwrap()
    }

    /// Waits until the record has the state `state`.
    pub(crate) async fn until(&self, state: RegionState) -> RegionRecord {
        let wait = async {
            loop {
                let record = self.on_record().await;
                if record.state == state {
                    return record;
                }
                sleep(POLL).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap()
    }

    /// Records that the region is to be closed, as a master does.
    async fn write_closing(&self) {
        let closing = RegionRecord { state: RegionState::Closing, ..self.on_record().await };
        let path = self.running.nodes.region(self.record.encoded_name());
        self.running.client.set_data(&path, closing.encode(), None).await.unwrap();
    }

    /// How many regions the server reports as served.
    async fn served(&self) -> usize {
        let options = ConnectionOptions::new(Service::Admin, "test");
        let (network, address) = (&self.running.seams.network, self.running.name.address());
        let connection = Connection::open(network, &address, &options).await.unwrap();
        let request = hbase::GetOnlineRegionRequest::default();
        let call = connection.call_decoded::<hbase::GetOnlineRegionResponse>(
            "GetOnlineRegion",
            &request,
            &[],
            PATIENCE,
        );
        call.await.unwrap().0.region_info.len()
    }
}

/// A past bug: the close was confirmed while the opening was in progress, another server opened the
/// region under the next epoch, and then the first opening finished and served the region as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_close_waits_for_an_opening_under_way() {
    let region = OneRegion::start(None, TableState::Disabled).await;
    let wait = Answer::Wait(Duration::from_millis(700));
    let _trap = traps::set(Point::OpenRecorded, wait).await;
    let closed = async {
        region.until(RegionState::Open).await;
        region.write_closing().await;
        region.close(region.record.epoch).await
    };
    let (opened, closed) = tokio::join!(region.open(&region.record), closed);
    assert_eq!((opened.as_str(), closed.as_str()), ("", ""));
    assert_eq!(region.on_record().await.state, RegionState::Closed, "its owner closed it");
    assert_eq!(region.served().await, 0);
}

/// A past bug: the server took over the region's manifest, and with it the region, before it
/// checked whether the record names it as the owner.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_to_open_that_the_record_does_not_bear_out_touches_nothing() {
    let _no_traps = traps::none().await;
    let region = OneRegion::start(Some("other,1,1"), TableState::Disabled).await;
    let forged = RegionRecord {
        epoch: RegionEpoch(1_000),
        server: Some(region.running.name.clone()),
        ..region.record.clone()
    };
    assert_ne!(region.open(&forged).await, "");
    let manifests = paths::manifests(&region.descriptor.name, region.record.encoded_name());
    let listed = region.running.disk.as_writer(9).list(&manifests).await;
    assert!(listed.is_err_and(|error| error.is_not_found()), "it has made a manifest");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_to_close_that_the_record_does_not_bear_out_closes_nothing() {
    let _no_traps = traps::none().await;
    let region = OneRegion::start(None, TableState::Disabled).await;
    assert_eq!(region.open(&region.record).await, "");
    assert_ne!(region.close(region.record.epoch).await, "");
    assert_eq!(region.served().await, 1);
    assert_eq!(region.on_record().await.state, RegionState::Open);
}

/// A past bug: after one such order from anybody, the server rejected all orders of the real master
/// for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_made_up_master_epoch_is_neither_believed_nor_remembered() {
    let _no_traps = traps::none().await;
    let region = OneRegion::start(None, TableState::Disabled).await;
    let master_epoch = u64::MAX / 2;
    let mut orders = region.running.orders.clone();
    let refused = orders.live(pb::LiveRequest { master_epoch }).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(!refused.message().contains(char::is_numeric), "it tells nothing: {refused}");
    assert_eq!(region.open(&region.record).await, "");
}

/// A past bug: the outcome of writing OPEN was unknown, and from then on the server answered
/// clients that the region is being opened.
#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_open_on_record_and_served_by_nobody_is_opened_again() {
    let _trap = traps::set(Point::OpenRecorded, Answer::Fail).await;
    let region = OneRegion::start(None, TableState::Enabled).await;
    let first = region.until(RegionState::Open).await;
    assert_eq!((first.epoch, region.served().await), (region.record.epoch, 0));
    let again = async {
        while region.served().await == 0 {
            sleep(POLL).await;
        }
    };
    timeout(PATIENCE, again).await.expect("it is served again");
    let record = region.until(RegionState::Open).await;
    assert!(record.epoch > first.epoch, "under a higher epoch: {record:?}");
    assert_eq!(record.server, first.server);
}

/// Its edits may be only in this server's log: no other server may get the region before that log
/// is recovered.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_ends_itself_where_only_its_log_may_hold_a_regions_edits() {
    let _no_traps = traps::none().await;
    let region = OneRegion::start(Some("other,1,1"), TableState::Disabled).await;
    let path = region.running.nodes.region(region.record.encoded_name());
    let server = Some(region.running.name.clone());
    let open = RegionRecord { state: RegionState::Open, server, ..region.record.clone() };
    region.running.client.set_data(&path, open.encode(), None).await.unwrap();
    let node = region.running.nodes.server(&region.running.name);
    let ended = async {
        while region.running.client.exists(&node).await.unwrap().is_some() {
            sleep(POLL).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("the server ends");
}
