//! Tests of calls that only some clients make.

use std::time::Duration;

use crate::owners::OneRegion;
use crate::running::{PATIENCE, Running};
use basalt_cluster::RegionRecord;
use basalt_hbase_rpc::{
    CallError, Connection, ConnectionOptions, ExceptionKind, Service, message_cells, pb,
};
use basalt_model::{Cell, RegionInfo, RegionState, TableState};
use basalt_zk::proto::CreateMode;
use bytes::Bytes;
use tokio::time::{sleep, timeout};

async fn connect(running: &Running, service: Service) -> Connection {
    let options = ConnectionOptions::new(service, "test");
    Connection::open(&running.seams.network, &running.name.address(), &options).await.unwrap()
}

/// Requests the last row at or before `row` from a region, as clients of HBase 1 do.
async fn ask_closest_row(
    connection: &Connection,
    region: Bytes,
    row: &'static str,
) -> Result<(pb::GetResponse, Vec<Cell>), CallError> {
    let request = pb::GetRequest {
        region: pb::RegionSpecifier {
            r#type: pb::region_specifier::RegionSpecifierType::RegionName.into(),
            value: region,
        },
        get: pb::Get {
            row: Bytes::from_static(row.as_bytes()),
            closest_row_before: Some(true),
            ..Default::default()
        },
    };
    connection.call_decoded("Get", &request, &[], PATIENCE).await
}

/// The last row of the meta table at or before `row`.
async fn closest_row(connection: &Connection, row: &'static str) -> Vec<Cell> {
    let answer = ask_closest_row(connection, Bytes::from_static(b"hbase:meta,,1"), row).await;
    let (response, beside) = answer.unwrap();
    let result = response.result.unwrap_or_default();
    message_cells::cells_of(&result, &mut beside.into_iter()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_hbase_1_finds_a_region_by_the_closest_row_before() {
    let running = Running::start().await;
    let record = |start: &'static str, end: &'static str| {
        let (start, end) =
            (Bytes::from_static(start.as_bytes()), Bytes::from_static(end.as_bytes()));
        RegionRecord::new(RegionInfo::primary("t".parse().unwrap(), start, end, 1))
    };
    let records = [record("", "m"), record("m", "")];
    for record in &records {
        let path = running.nodes.region(record.encoded_name());
        running.client.create(&path, record.encode(), CreateMode::Persistent).await.unwrap();
    }
    let connection = connect(&running, Service::Client).await;
    // Until the server's catalog has the regions.
    let both = async {
        while closest_row(&connection, "t,m,:").await.is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, both).await.unwrap();
    for (row, region) in [("t,,:", 0), ("t,lz,:", 0), ("t,m,:", 1), ("t,z,:", 1)] {
        let cells = closest_row(&connection, row).await;
        assert_eq!(cells[0].row(), &records[region].info.name()[..], "{row}");
        assert!(cells.iter().any(|cell| cell.qualifier() == b"regioninfo"), "{row}");
    }
    assert!(closest_row(&connection, "a,,:").await.is_empty(), "nothing lies before");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_meta_table_has_a_closest_row_before() {
    let region = OneRegion::start(None, TableState::Enabled).await;
    assert_eq!(region.open(&region.record).await, "");
    region.until(RegionState::Open).await;
    let connection = connect(&region.running, Service::Client).await;
    match ask_closest_row(&connection, region.record.info.name(), "r").await {
        Err(CallError::Remote(exception)) => {
            assert_eq!(exception.kind(), ExceptionKind::UnknownProtocol);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_of_regions_is_reported() {
    let running = Running::start().await;
    let connection = connect(&running, Service::Admin).await;
    let request = pb::GetRegionLoadRequest::default();
    let method = "GetRegionLoad";
    let answer =
        connection.call_decoded::<pb::GetRegionLoadResponse>(method, &request, &[], PATIENCE).await;
    assert!(answer.unwrap().0.region_loads.is_empty(), "it serves none");
}
