//! getChildren, getChildren2 and getAllChildrenNumber.

use basalt_zk::proto::{
    ErrorCode, GetAllChildrenNumberRequest, GetAllChildrenNumberResponse, GetChildren2Response,
    GetChildrenRequest, GetChildrenResponse, Stat, Xid,
};

use crate::request::Client;
use crate::tree::State;
use crate::watch::WatchKind;

pub(super) async fn get_children(client: &Client, xid: Xid, request: GetChildrenRequest) {
    client
        .read(xid, |state| {
            let (children, _) = look_and_watch(client, state, &request)?;
            Ok(GetChildrenResponse { children })
        })
        .await;
}

pub(super) async fn get_children2(client: &Client, xid: Xid, request: GetChildrenRequest) {
    client
        .read(xid, |state| {
            let (children, stat) = look_and_watch(client, state, &request)?;
            Ok(GetChildren2Response { children, stat })
        })
        .await;
}

pub(super) async fn get_all_children_number(
    client: &Client,
    xid: Xid,
    request: GetAllChildrenNumberRequest,
) {
    client
        .read(xid, |state| {
            state.node(&request.path).ok_or(ErrorCode::NoNode)?;
            let total = state.descendant_count(&request.path);
            Ok(GetAllChildrenNumberResponse {
                total_number: i32::try_from(total).unwrap_or(i32::MAX),
            })
        })
        .await;
}

/// The names of a node's children, and its stat.
pub(super) fn look(state: &State, path: &str) -> Result<(Vec<String>, Stat), ErrorCode> {
    let node = state.node(path).ok_or(ErrorCode::NoNode)?;
    let names = node.family.names.iter();
    Ok((names.map(|name| String::from(&**name)).collect(), node.stat()))
}

fn look_and_watch(
    client: &Client,
    state: &State,
    request: &GetChildrenRequest,
) -> Result<(Vec<String>, Stat), ErrorCode> {
    let found = look(state, &request.path)?;
    if request.watch {
        client.watch(WatchKind::Child, &request.path)?;
    }
    Ok(found)
}
