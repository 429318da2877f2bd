//! check, alone or within a multi.

use basalt_zk::proto::{CheckVersionRequest, Xid};

use crate::request::Client;
use crate::request::write::Reply;
use crate::tree::Operation;

/// A check is ordered with the writes, as it is within a multi.
pub(super) async fn check(client: &Client, xid: Xid, request: CheckVersionRequest) {
    let reply = Reply::One { with_stat: false };
    client.write(xid, vec![operation(request)], reply).await;
}

pub(super) fn operation(request: CheckVersionRequest) -> Operation {
    Operation::Check { path: request.path, version: request.version }
}
