//! create and create2.

use basalt_zk::proto::{CreateRequest, ErrorCode, Xid};

use crate::request::Client;
use crate::request::write::Reply;
use crate::tree::Operation;

pub(super) async fn create(client: &Client, xid: Xid, request: CreateRequest, with_stat: bool) {
    match operation(request) {
        Ok(operation) => {
            let reply = Reply::One { with_stat };
            client.write(xid, vec![operation], reply).await;
        }
        Err(error) => client.refuse(xid, error).await,
    }
}

/// The operation of a request, if it is supported.
pub(super) fn operation(request: CreateRequest) -> Result<Operation, ErrorCode> {
    let mode = request.mode().ok_or(ErrorCode::BadArguments)?;
    if mode.is_container() || mode.is_ttl() {
        return Err(ErrorCode::Unimplemented);
    }
    Ok(Operation::Create {
        path: request.path,
        data: request.data,
        acl: request.acl,
        ephemeral: mode.is_ephemeral(),
        sequential: mode.is_sequential(),
    })
}
