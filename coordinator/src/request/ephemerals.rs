//! getEphemerals.

use basalt_zk::proto::{GetEphemeralsRequest, GetEphemeralsResponse, Xid};

use crate::request::Client;

pub(super) async fn get_ephemerals(client: &Client, xid: Xid, request: GetEphemeralsRequest) {
    client
        .read(xid, |state| {
            let owned = state.ephemerals(client.session);
            let paths = owned.filter(|path| path.starts_with(&request.prefix));
            Ok(GetEphemeralsResponse { paths: paths.map(str::to_owned).collect() })
        })
        .await;
}
