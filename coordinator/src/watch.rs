//! The watches that this member's clients have set.
//!
//! Watches are local: they end with their connection, and a client sets them again on another
//! member. A watch is set and its node is read under one lock of the state, so no event is missed
//! in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use basalt_zk::proto::{
    AddWatchMode, EventType, ReplyHeader, WatcherEvent, WatcherType, Xid, Zxid, frame, path,
};
use bytes::Bytes;

use crate::outgoing::{FRAME_OVERHEAD_BYTES, Outgoing, QUEUED_BYTES_MAX};
use crate::tree::Event;

/// The changes that a watch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WatchKind {
    /// The node's data or existence, once.
    Data,
    /// The node's children, once.
    Child,
    /// Everything about the node.
    Persistent,
    /// The node and all nodes below it, but not changes of their lists of children.
    Recursive,
}

/// All watches of this member's clients.
#[derive(Debug)]
pub(crate) struct Watches {
    data: Paths,
    child: Paths,
    persistent: Paths,
    recursive: Paths,
    watchers: BTreeMap<u64, Watcher>,
    /// How many bytes all watches are counted as, and may be counted as.
    bytes: usize,
    bytes_max: usize,
}

/// The connections that watch a path.
type Paths = BTreeMap<String, BTreeSet<u64>>;

#[derive(Debug)]
struct Watcher {
    outgoing: Arc<Outgoing>,
    /// Needed to find a connection's watches when it ends.
    watches: BTreeSet<(WatchKind, String)>,
    /// How many bytes they are counted as.
    bytes: usize,
}

/// A client, or all clients together, have as many watches as they may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyWatches;

/// How many watches there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WatchCounts {
    pub(crate) connections: usize,
    pub(crate) paths: usize,
    pub(crate) watches: usize,
}

/// How many bytes the watches of one connection may be counted as. If all of them fire at once,
/// their events fit into the client's queue. A client that reads is therefore never disconnected
/// because of them.
const CONNECTION_BYTES_MAX: usize = QUEUED_BYTES_MAX / 4 * 3;
/// How many bytes are counted for each watch in addition to its path: at least what its event takes
/// when queued, and about what the tables need for it.
const WATCH_OVERHEAD_BYTES: usize = FRAME_OVERHEAD_BYTES + 128;

// === impl WatchKind ===

impl WatchKind {
    const ALL: [Self; 4] = [Self::Data, Self::Child, Self::Persistent, Self::Recursive];

    /// The kinds that a client means by `kind` when it checks or removes watches.
    pub(crate) fn of(kind: WatcherType) -> &'static [Self] {
        match kind {
            WatcherType::Children => &[Self::Child],
            WatcherType::Data => &[Self::Data],
            WatcherType::Any => &Self::ALL,
            WatcherType::Persistent => &[Self::Persistent],
            WatcherType::PersistentRecursive => &[Self::Recursive],
        }
    }
}

impl From<AddWatchMode> for WatchKind {
    fn from(mode: AddWatchMode) -> Self {
        match mode {
            AddWatchMode::Persistent => Self::Persistent,
            AddWatchMode::PersistentRecursive => Self::Recursive,
        }
    }
}

// === impl Watches ===

impl Watches {
    /// No watches yet, with room for watches that count as `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            data: Paths::new(),
            child: Paths::new(),
            persistent: Paths::new(),
            recursive: Paths::new(),
            watchers: BTreeMap::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Sets a watch, unless it is already set.
    pub(crate) fn add(
        &mut self,
        outgoing: &Arc<Outgoing>,
        kind: WatchKind,
        path: &str,
    ) -> Result<(), TooManyWatches> {
        let connection = outgoing.connection;
        let watcher = self.watchers.entry(connection).or_insert_with(|| Watcher {
            outgoing: Arc::clone(outgoing),
            watches: BTreeSet::new(),
            bytes: 0,
        });
        let bytes = size_bytes(path);
        if watcher.watches.contains(&(kind, path.to_owned())) {
            return Ok(());
        }
        if watcher.bytes + bytes > CONNECTION_BYTES_MAX || self.bytes + bytes > self.bytes_max {
            return Err(TooManyWatches);
        }
        watcher.watches.insert((kind, path.to_owned()));
        watcher.bytes += bytes;
        self.bytes += bytes;
        self.paths(kind).entry(path.to_owned()).or_default().insert(connection);
        Ok(())
    }

    /// Whether the connection has a watch of one of `kinds`.
    pub(crate) fn has(&self, connection: u64, kinds: &[WatchKind], path: &str) -> bool {
        self.watchers.get(&connection).is_some_and(|watcher| {
            let watches = &watcher.watches;
            kinds.iter().any(|kind| watches.contains(&(*kind, path.to_owned())))
        })
    }

    /// Removes the connection's watches of `kinds`.
    pub(crate) fn remove(&mut self, connection: u64, kinds: &[WatchKind], path: &str) {
        for kind in kinds {
            self.forget(connection, *kind, path);
        }
    }

    /// Removes all watches of a connection that has ended.
    pub(crate) fn remove_connection(&mut self, connection: u64) {
        if let Some(watcher) = self.watchers.remove(&connection) {
            self.bytes -= watcher.bytes;
            for (kind, path) in watcher.watches {
                self.take_from_path(connection, kind, &path);
            }
        }
    }

    /// Queues `event` to each connection that watches for it, once.
    pub(crate) fn fire(&mut self, event: &Event) {
        let mut connections = BTreeSet::new();
        let once: &[WatchKind] = match event.kind {
            EventType::NodeCreated | EventType::NodeDataChanged => &[WatchKind::Data],
            EventType::NodeDeleted => &[WatchKind::Data, WatchKind::Child],
            EventType::NodeChildrenChanged => &[WatchKind::Child],
            _ => return,
        };
        for kind in once {
            for connection in self.paths(*kind).remove(&event.path).unwrap_or_default() {
                self.take_from_watcher(connection, *kind, &event.path);
                connections.insert(connection);
            }
        }
        connections.extend(self.persistent.get(&event.path).into_iter().flatten());
        if event.kind != EventType::NodeChildrenChanged && !self.recursive.is_empty() {
            let mut above = Some(event.path.as_str());
            while let Some(watched) = above {
                connections.extend(self.recursive.get(watched).into_iter().flatten());
                above = path::parent(watched);
            }
        }
        if connections.is_empty() {
            return;
        }
        let frame = event_frame(event.kind, &event.path);
        for connection in connections {
            if let Some(watcher) = self.watchers.get(&connection) {
                watcher.outgoing.send(frame.clone());
            }
        }
    }

    pub(crate) fn counts(&self) -> WatchCounts {
        let all = [&self.data, &self.child, &self.persistent, &self.recursive];
        let of_watcher = |watcher: &Watcher| watcher.watches.len();
        WatchCounts {
            connections: self.watchers.values().filter(|w| of_watcher(w) > 0).count(),
            paths: all.iter().map(|paths| paths.len()).sum(),
            watches: self.watchers.values().map(of_watcher).sum(),
        }
    }

    fn forget(&mut self, connection: u64, kind: WatchKind, path: &str) {
        self.take_from_watcher(connection, kind, path);
        self.take_from_path(connection, kind, path);
    }

    fn take_from_watcher(&mut self, connection: u64, kind: WatchKind, path: &str) {
        if let Some(watcher) = self.watchers.get_mut(&connection)
            && watcher.watches.remove(&(kind, path.to_owned()))
        {
            watcher.bytes -= size_bytes(path);
            self.bytes -= size_bytes(path);
        }
    }

    fn take_from_path(&mut self, connection: u64, kind: WatchKind, path: &str) {
        let paths = self.paths(kind);
        if let Some(connections) = paths.get_mut(path) {
            connections.remove(&connection);
            if connections.is_empty() {
                paths.remove(path);
            }
        }
    }

    fn paths(&mut self, kind: WatchKind) -> &mut Paths {
        match kind {
            WatchKind::Data => &mut self.data,
            WatchKind::Child => &mut self.child,
            WatchKind::Persistent => &mut self.persistent,
            WatchKind::Recursive => &mut self.recursive,
        }
    }
}

fn size_bytes(path: &str) -> usize {
    path.len() + WATCH_OVERHEAD_BYTES
}

/// The frame that notifies a client of an event.
pub(crate) fn event_frame(kind: EventType, path: &str) -> Bytes {
    let header = ReplyHeader { xid: Xid::EVENT, zxid: Zxid(-1), error: None };
    frame::encode(&[&header, &WatcherEvent::of(kind, path)])
}

#[cfg(test)]
mod tests {
    use basalt_runtime::Shutdown;

    use super::*;
    use crate::outgoing::QueueBudget;
    use std::sync::atomic::Ordering;

    fn client(connection: u64) -> Arc<Outgoing> {
        let peer = "127.0.0.1:1".parse().unwrap();
        // The queue is never dropped, so that frames can still be sent.
        let budget = Arc::new(QueueBudget::new(1 << 20, 1));
        let (outgoing, queue) = Outgoing::new(connection, peer, Shutdown::new(), budget);
        std::mem::forget(queue);
        outgoing
    }

    fn sent(outgoing: &Outgoing) -> u64 {
        outgoing.sent.swap(0, Ordering::Relaxed)
    }

    fn event(kind: EventType, path: &str) -> Event {
        Event { kind, path: path.to_owned() }
    }

    #[test]
    fn one_shot_watches_fire_once_and_once_for_a_deletion() {
        let (mut watches, client) = (Watches::new(1 << 20), client(1));
        watches.add(&client, WatchKind::Data, "/a").unwrap();
        watches.add(&client, WatchKind::Child, "/a").unwrap();
        watches.fire(&event(EventType::NodeDeleted, "/a"));
        assert_eq!(sent(&client), 1);
        watches.fire(&event(EventType::NodeCreated, "/a"));
        assert_eq!(sent(&client), 0);
        assert_eq!(watches.counts().watches, 0);
        assert_eq!(watches.counts().paths, 0);
    }

    #[test]
    fn a_recursive_watch_sees_nodes_below_but_no_change_of_children() {
        let (mut watches, client) = (Watches::new(1 << 20), client(1));
        watches.add(&client, WatchKind::Recursive, "/a").unwrap();
        watches.fire(&event(EventType::NodeCreated, "/a/b/c"));
        watches.fire(&event(EventType::NodeDataChanged, "/a"));
        assert_eq!(sent(&client), 2);
        watches.fire(&event(EventType::NodeChildrenChanged, "/a/b"));
        watches.fire(&event(EventType::NodeCreated, "/ab"));
        assert_eq!(sent(&client), 0);
    }

    #[test]
    fn a_persistent_watch_stays_until_it_is_removed() {
        let (mut watches, client) = (Watches::new(1 << 20), client(1));
        watches.add(&client, WatchKind::Persistent, "/a").unwrap();
        watches.fire(&event(EventType::NodeChildrenChanged, "/a"));
        watches.fire(&event(EventType::NodeDataChanged, "/a"));
        watches.fire(&event(EventType::NodeCreated, "/a/b"));
        assert_eq!(sent(&client), 2);
        assert!(watches.has(1, WatchKind::of(WatcherType::Any), "/a"));
        watches.remove(1, WatchKind::of(WatcherType::Persistent), "/a");
        watches.fire(&event(EventType::NodeDeleted, "/a"));
        assert_eq!(sent(&client), 0);
    }

    #[test]
    fn watches_are_bounded_in_bytes_and_what_goes_makes_room() {
        let path = |number: usize| format!("/{number:0100}");
        let fitting = 10;
        let mut watches = Watches::new(fitting * size_bytes(&path(0)));
        let (first, second) = (client(1), client(2));
        for number in 0..fitting {
            watches.add(&first, WatchKind::Data, &path(number)).unwrap();
            watches.add(&first, WatchKind::Data, &path(number)).unwrap();
        }
        assert_eq!(watches.add(&second, WatchKind::Child, &path(0)), Err(TooManyWatches));
        watches.fire(&event(EventType::NodeDataChanged, &path(0)));
        watches.add(&second, WatchKind::Child, &path(0)).unwrap();
        watches.remove(1, &[WatchKind::Data], &path(1));
        watches.add(&second, WatchKind::Child, &path(1)).unwrap();
        assert_eq!(watches.add(&second, WatchKind::Child, &path(2)), Err(TooManyWatches));
        watches.remove_connection(1);
        watches.remove_connection(2);
        assert_eq!(watches.bytes, 0);
    }

    #[test]
    fn watches_go_with_their_connection() {
        let (mut watches, first, second) = (Watches::new(1 << 20), client(1), client(2));
        watches.add(&first, WatchKind::Data, "/a").unwrap();
        watches.add(&second, WatchKind::Data, "/a").unwrap();
        watches.remove_connection(1);
        watches.fire(&event(EventType::NodeDataChanged, "/a"));
        assert_eq!((sent(&first), sent(&second)), (0, 1));
    }
}
