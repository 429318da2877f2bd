//! getACL and setACL. Access lists are stored and returned, but not enforced.

use basalt_zk::proto::{ErrorCode, GetAclRequest, GetAclResponse, SetAclRequest, Xid};

use crate::request::Client;
use crate::request::write::Reply;
use crate::tree::Operation;

pub(super) async fn get_acl(client: &Client, xid: Xid, request: GetAclRequest) {
    client
        .read(xid, |state| {
            let node = state.node(&request.path).ok_or(ErrorCode::NoNode)?;
            Ok(GetAclResponse { acl: node.acl.to_vec(), stat: node.stat() })
        })
        .await;
}

pub(super) async fn set_acl(client: &Client, xid: Xid, request: SetAclRequest) {
    let operation =
        Operation::SetAcl { path: request.path, acl: request.acl, version: request.version };
    let reply = Reply::One { with_stat: false };
    client.write(xid, vec![operation], reply).await;
}
