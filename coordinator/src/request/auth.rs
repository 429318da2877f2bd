//! auth and whoAmI. Every client is `world:anyone`. Any other identity is rejected, because it
//! cannot be checked here and accepting it would give a false sense of security.

use basalt_zk::proto::{AuthRequest, ClientInfo, ErrorCode, WhoAmIResponse, Xid};

use crate::request::Client;

pub(super) async fn auth(client: &Client, xid: Xid, request: AuthRequest) {
    let is_known = request.scheme == "world";
    client
        .read(xid, |_| match is_known {
            true => Ok(()),
            false => Err(ErrorCode::AuthFailed),
        })
        .await;
    if !is_known {
        // ZooKeeper also closes the connection.
        client.outgoing.finish();
    }
}

pub(super) async fn who_am_i(client: &Client, xid: Xid) {
    client
        .read(xid, |_| {
            Ok(WhoAmIResponse {
                clients: vec![ClientInfo {
                    scheme: "ip".to_owned(),
                    user: client.outgoing.peer.ip().to_string(),
                }],
            })
        })
        .await;
}
