//! setWatches and setWatches2: a client that reconnects sets its watches again, and gets the events
//! that it missed.

use basalt_zk::proto::{ErrorCode, EventType, SetWatches2Request, SetWatchesRequest, Xid};

use crate::request::Client;
use crate::tree::State;
use crate::watch::{WatchKind, event_frame};

pub(super) async fn set_watches(client: &Client, xid: Xid, request: SetWatchesRequest) {
    let request = SetWatches2Request {
        relative_zxid: request.relative_zxid,
        data: request.data,
        exist: request.exist,
        child: request.child,
        ..SetWatches2Request::default()
    };
    set_watches2(client, xid, request).await;
}

pub(super) async fn set_watches2(client: &Client, xid: Xid, request: SetWatches2Request) {
    client.read(xid, |state| restore(client, state, &request)).await;
}

fn restore(client: &Client, state: &State, request: &SetWatches2Request) -> Result<(), ErrorCode> {
    let seen = request.relative_zxid;
    for path in &request.data {
        let missed = match state.node(path) {
            None => Some(EventType::NodeDeleted),
            Some(node) if node.modified_zxid > seen => Some(EventType::NodeDataChanged),
            Some(_) => None,
        };
        fire_or_set(client, missed, WatchKind::Data, path)?;
    }
    for path in &request.exist {
        let missed = state.node(path).map(|_| EventType::NodeCreated);
        fire_or_set(client, missed, WatchKind::Data, path)?;
    }
    for path in &request.child {
        let missed = match state.node(path) {
            None => Some(EventType::NodeDeleted),
            Some(node) if node.family.zxid > seen => Some(EventType::NodeChildrenChanged),
            Some(_) => None,
        };
        fire_or_set(client, missed, WatchKind::Child, path)?;
    }
    for path in &request.persistent {
        client.watch(WatchKind::Persistent, path)?;
    }
    for path in &request.persistent_recursive {
        client.watch(WatchKind::Recursive, path)?;
    }
    Ok(())
}

fn fire_or_set(
    client: &Client,
    missed: Option<EventType>,
    kind: WatchKind,
    path: &str,
) -> Result<(), ErrorCode> {
    match missed {
        Some(event) => {
            client.outgoing.send(event_frame(event, path));
            Ok(())
        }
        None => client.watch(kind, path),
    }
}
