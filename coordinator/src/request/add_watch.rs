//! addWatch: a persistent watch.

use basalt_zk::proto::{AddWatchMode, AddWatchRequest, AddWatchResponse, ErrorCode, Xid};

use crate::request::Client;

pub(super) async fn add_watch(client: &Client, xid: Xid, request: AddWatchRequest) {
    client
        .read(xid, |_| {
            let mode = AddWatchMode::from_wire(request.mode).ok_or(ErrorCode::BadArguments)?;
            client.watch(mode.into(), &request.path)?;
            Ok(AddWatchResponse { error: 0 })
        })
        .await;
}
