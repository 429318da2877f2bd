//! sync.

use basalt_zk::proto::{SyncRequest, SyncResponse, Xid};

use crate::request::Client;

/// Waits until this member has applied everything that was committed when the request arrived, as
/// confirmed by a majority. A read after it is linearizable.
pub(super) async fn sync(client: &Client, xid: Xid, request: SyncRequest) {
    client.settle().await;
    client.member.sync().await;
    let path = request.path;
    client.read(xid, |_| Ok(SyncResponse { path })).await;
}
