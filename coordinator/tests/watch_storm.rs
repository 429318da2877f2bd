//! Many watches of one client fire at once. A client that reads gets all of its events.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use basalt_zk::proto::{
    Acl, CreateMode, CreateRequest, ErrorCode, ExistsRequest, MultiOp, MultiRequest, OpCode, Xid,
};
use support::{Cluster, RawClient};

/// As many as fit into one multi.
const WATCHES: usize = 12_000;
/// How many requests are sent before their replies are read.
const BATCH: usize = 500;

fn create(path: String) -> CreateRequest {
    CreateRequest { path, data: None, acl: Acl::open(), flags: CreateMode::Persistent.flags() }
}

#[tokio::test]
async fn twelve_thousand_watches_of_one_client_fire_at_once() {
    let cluster = Cluster::start(1);
    cluster.leader().await;
    let mut watcher = RawClient::open(&cluster.server(1)).await;
    for first in (0..WATCHES).step_by(BATCH) {
        for number in first..first + BATCH {
            let request = ExistsRequest { path: format!("/{number}"), watch: true };
            watcher.send(number as i32 + 1, OpCode::Exists.code(), &request).await;
        }
        for _ in 0..BATCH {
            let (header, _) = watcher.receive().await.unwrap();
            assert_eq!(header.error, Some(ErrorCode::NoNode));
        }
    }
    let mut writer = RawClient::open(&cluster.server(1)).await;
    let ops = (0..WATCHES).map(|number| MultiOp::Create(create(format!("/{number}")))).collect();
    writer.send(1, OpCode::Multi.code(), &MultiRequest { ops }).await;
    assert_eq!(writer.receive().await.unwrap().0.error, None);
    let mut events = 0;
    while events < WATCHES {
        let (header, _) = watcher.receive().await.expect("the connection stays");
        events += usize::from(header.xid == Xid::EVENT);
    }
}
