//! exists.

use basalt_zk::proto::{ErrorCode, ExistsRequest, StatResponse, Xid};

use crate::request::Client;
use crate::watch::WatchKind;

pub(super) async fn exists(client: &Client, xid: Xid, request: ExistsRequest) {
    client
        .read(xid, |state| {
            if request.watch {
                // This also works for a missing node: the watch waits until the node is created.
                client.watch(WatchKind::Data, &request.path)?;
            }
            let node = state.node(&request.path).ok_or(ErrorCode::NoNode)?;
            Ok(StatResponse { stat: node.stat() })
        })
        .await;
}
