//! Tests of requests for a region that is moving from one server to another.

use std::time::Duration;

use crate::running::{PATIENCE, Running};
use basalt_cluster::{RegionRecord, pb as records};
use basalt_hbase_rpc::{CallError, Connection, ConnectionOptions, ExceptionKind, Service, pb};
use basalt_model::{RegionInfo, RegionState, SequenceId, ServerName};
use basalt_zk::proto::CreateMode;
use bytes::Bytes;
use prost::Message as _;
use tokio::time::{sleep, timeout};

/// Longer than a request takes that does not wait, and shorter than one that waits.
const MOMENT: Duration = Duration::from_millis(400);

/// A region that is not served here, and a server that never answers.
struct Transit {
    running: Running,
    connection: Connection,
    record: RegionRecord,
    /// Where the other server's peers connect to; it never answers.
    _mute: std::net::TcpListener,
}

// === impl Transit ===

impl Transit {
    /// Starts with the region in `state`, owned by the other server.
    async fn start(state: RegionState) -> Self {
        let running = Running::start().await;
        let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other: ServerName = "127.0.0.1,1,1".parse().unwrap();
        let server = records::ServerRecord {
            peer_address: mute.local_addr().unwrap().to_string(),
            ..Default::default()
        };
        let path = running.nodes.server(&other);
        let data = server.encode_to_vec().into();
        running.client.create(&path, data, CreateMode::Ephemeral).await.unwrap();
        let info = RegionInfo::primary("t".parse().unwrap(), Bytes::new(), Bytes::new(), 1);
        let record = RegionRecord { state, ..RegionRecord::new(info).assigned_to(other) };
        let path = running.nodes.region(record.encoded_name());
        let client = &running.client;
        client.create(&path, record.encode(), CreateMode::Persistent).await.unwrap();
        let options = ConnectionOptions::new(Service::Client, "test");
        let address = running.name.address();
        let connection =
            Connection::open(&running.seams.network, &address, &options).await.unwrap();
        // Until the server's catalog has the region.
        while get(&connection, &record, MOMENT).await == Some(ExceptionKind::NotServingRegion) {
            sleep(Duration::from_millis(10)).await;
        }
        Self { running, connection, record, _mute: mute }
    }

    async fn write(&self, record: &RegionRecord) {
        let path = self.running.nodes.region(record.encoded_name());
        self.running.client.set_data(&path, record.encode(), None).await.unwrap();
    }
}

/// The exception that a get receives; `None` if it has no answer within `wait`.
async fn get(
    connection: &Connection,
    record: &RegionRecord,
    wait: Duration,
) -> Option<ExceptionKind> {
    let request = pb::GetRequest {
        region: pb::RegionSpecifier {
            r#type: pb::region_specifier::RegionSpecifierType::RegionName.into(),
            value: record.info.name(),
        },
        get: pb::Get { row: Bytes::from_static(b"r"), ..Default::default() },
    };
    let call = connection.call_decoded::<pb::GetResponse>("Get", &request, &[], PATIENCE);
    match timeout(wait, call).await.ok()? {
        Err(CallError::Remote(exception)) => Some(exception.kind()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_until_the_region_has_moved_and_learns_where() {
    let transit = Transit::start(RegionState::Closing).await;
    let asked = get(&transit.connection, &transit.record, PATIENCE);
    let moves = async {
        sleep(MOMENT / 4).await;
        let record = RegionRecord {
            state: RegionState::Open,
            open_sequence_id: SequenceId(7),
            ..transit.record.clone()
        };
        transit.write(&record).await;
    };
    let (answer, ()) = tokio::join!(asked, moves);
    assert_eq!(answer, Some(ExceptionKind::RegionMoved));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_does_not_wait_for_ever() {
    let transit = Transit::start(RegionState::Opening).await;
    assert_eq!(get(&transit.connection, &transit.record, MOMENT).await, None);
    let answer = get(&transit.connection, &transit.record, PATIENCE).await;
    assert_eq!(answer, Some(ExceptionKind::NotServingRegion));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_region_that_is_elsewhere_or_nowhere() {
    let transit = Transit::start(RegionState::Open).await;
    let answer = get(&transit.connection, &transit.record, MOMENT).await;
    assert_eq!(answer, Some(ExceptionKind::RegionMoved));
    let info = RegionInfo::primary("u".parse().unwrap(), Bytes::new(), Bytes::new(), 1);
    let unknown = RegionRecord::new(info);
    let answer = get(&transit.connection, &unknown, MOMENT).await;
    assert_eq!(answer, Some(ExceptionKind::NotServingRegion));
}
