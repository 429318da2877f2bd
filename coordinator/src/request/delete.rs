//! delete.

use basalt_zk::proto::{DeleteRequest, Xid};

use crate::request::Client;
use crate::request::write::Reply;
use crate::tree::Operation;

pub(super) async fn delete(client: &Client, xid: Xid, request: DeleteRequest) {
    let reply = Reply::One { with_stat: false };
    client.write(xid, vec![operation(request)], reply).await;
}

pub(super) fn operation(request: DeleteRequest) -> Operation {
    Operation::Delete { path: request.path, version: request.version }
}
