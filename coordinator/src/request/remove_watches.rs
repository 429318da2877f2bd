//! checkWatches and removeWatches.

use basalt_zk::proto::{ErrorCode, RemoveWatchesRequest, WatcherType, Xid};

use crate::request::Client;
use crate::watch::WatchKind;

pub(super) async fn check_watches(client: &Client, xid: Xid, request: RemoveWatchesRequest) {
    client.read(xid, |_| find(client, &request).map(|_| ())).await;
}

pub(super) async fn remove_watches(client: &Client, xid: Xid, request: RemoveWatchesRequest) {
    client
        .read(xid, |_| {
            let kinds = find(client, &request)?;
            let mut watches = client.member.replica.watches.lock();
            watches.remove(client.outgoing.connection, kinds, &request.path);
            Ok(())
        })
        .await;
}

/// The kinds of watches that the request means, if the client has a watch of one of them.
fn find(
    client: &Client,
    request: &RemoveWatchesRequest,
) -> Result<&'static [WatchKind], ErrorCode> {
    let kinds =
        WatcherType::from_wire(request.kind).map(WatchKind::of).ok_or(ErrorCode::BadArguments)?;
    let watches = client.member.replica.watches.lock();
    match watches.has(client.outgoing.connection, kinds, &request.path) {
        true => Ok(kinds),
        false => Err(ErrorCode::NoWatcher),
    }
}
