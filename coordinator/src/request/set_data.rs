//! setData.

use basalt_zk::proto::{SetDataRequest, Xid};

use crate::request::Client;
use crate::request::write::Reply;
use crate::tree::Operation;

pub(super) async fn set_data(client: &Client, xid: Xid, request: SetDataRequest) {
    let reply = Reply::One { with_stat: false };
    client.write(xid, vec![operation(request)], reply).await;
}

pub(super) fn operation(request: SetDataRequest) -> Operation {
    Operation::SetData { path: request.path, data: request.data, version: request.version }
}
