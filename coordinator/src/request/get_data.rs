//! getData.

use basalt_zk::proto::{ErrorCode, GetDataRequest, GetDataResponse, Xid};

use crate::request::Client;
use crate::tree::State;
use crate::watch::WatchKind;

pub(super) async fn get_data(client: &Client, xid: Xid, request: GetDataRequest) {
    client
        .read(xid, |state| {
            let response = look(state, &request.path)?;
            if request.watch {
                client.watch(WatchKind::Data, &request.path)?;
            }
            Ok(response)
        })
        .await;
}

pub(super) fn look(state: &State, path: &str) -> Result<GetDataResponse, ErrorCode> {
    let node = state.node(path).ok_or(ErrorCode::NoNode)?;
    Ok(GetDataResponse { data: node.data.clone(), stat: node.stat() })
}
