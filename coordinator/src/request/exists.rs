//! exists.

use basalt_zk::proto::{ErrorCode, ExistsRequest, StatResponse, Xid};

use crate::request::Client;
use crate::watch::WatchKind;

pub(super) async fn exists(client: &Client, xid: Xid, request: ExistsRequest) {
    client
        .read(xid, |state| {
            if request.watch {
                // On a missing node too: then it waits for the node to come.
                client.watch(WatchKind::Data, &request.path)?;
            }
            let node = state.node(&request.path).ok_or(ErrorCode::NoNode)?;
            Ok(StatResponse { stat: node.stat() })
        })
        .await;
}
