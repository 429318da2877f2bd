//! Records who waits for which event. Pure: the session reports what was registered and what was
//! received.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, oneshot};

use super::WatchedEvent;
use crate::proto::path::parent;
use crate::proto::{
    AddWatchMode, EventType, Request, SetWatches2Request, SetWatchesRequest, WatcherEvent, Zxid,
};

/// How many watchers a client may have.
pub(super) const WATCHES_MAX: usize = 100_000;

/// How many events may wait for a persistent watcher.
pub(super) const EVENTS_MAX: usize = 1024;

/// How many bytes of paths one setWatches has. This stays far below the limit of a frame.
const SET_WATCHES_BYTES_MAX: usize = 128 << 10;

/// All watchers of a session, by what they watch and where.
#[derive(Debug, Default)]
pub(super) struct Watches {
    data: Once,
    exist: Once,
    child: Once,
    persistent: Lasting,
    recursive: Lasting,
    count: usize,
}

/// What a request watches if it succeeds.
#[derive(Debug)]
pub(super) enum Interest {
    /// The data of a node that exists.
    Data(oneshot::Sender<WatchedEvent>),
    /// A node, whether it exists or not.
    Exist(oneshot::Sender<WatchedEvent>),
    /// The children of a node.
    Child(oneshot::Sender<WatchedEvent>),
    /// All events, until the session ends.
    Lasting(AddWatchMode, mpsc::Sender<WatchedEvent>),
}

/// One-shot watchers by path.
type Once = BTreeMap<String, Vec<oneshot::Sender<WatchedEvent>>>;

/// Persistent watchers by path.
type Lasting = BTreeMap<String, Vec<Subscriber>>;

/// A persistent watcher. The last place of its queue is reserved for [`WatchedEvent::Missed`]. Once
/// that is queued, events are dropped until the watcher has received some, because it will read
/// again anyway.
#[derive(Debug)]
struct Subscriber {
    events: mpsc::Sender<WatchedEvent>,
    is_lagging: bool,
}

// === impl Watches ===

impl Watches {
    /// Whether there is no room for another watcher, after abandoned watchers are removed.
    pub(super) fn is_full(&mut self) -> bool {
        if self.count >= WATCHES_MAX {
            self.prune();
        }
        self.count >= WATCHES_MAX
    }

    /// Registers `interest` in `path`. `exists` says whether the node exists, according to the
    /// server's answer.
    pub(super) fn add(&mut self, path: &str, interest: Interest, exists: bool) {
        match interest {
            Interest::Data(watcher) => add_once(&mut self.data, path, watcher),
            // For a node that exists, the server sets a data watch.
            Interest::Exist(watcher) if exists => add_once(&mut self.data, path, watcher),
            Interest::Exist(watcher) => add_once(&mut self.exist, path, watcher),
            Interest::Child(watcher) => add_once(&mut self.child, path, watcher),
            Interest::Lasting(mode, events) => {
                let by_path = match mode {
                    AddWatchMode::Persistent => &mut self.persistent,
                    AddWatchMode::PersistentRecursive => &mut self.recursive,
                };
                by_path
                    .entry(path.to_owned())
                    .or_default()
                    .push(Subscriber { events, is_lagging: false });
            }
        }
        self.count += 1;
    }

    /// Passes an event of the server to its watchers. Returns `false` if its type is unknown.
    pub(super) fn dispatch(&mut self, event: WatcherEvent) -> bool {
        let Some(kind) = EventType::from_wire(event.kind) else {
            return false;
        };
        let path = event.path.as_str();
        let sent = WatchedEvent::Node { kind, path: event.path.clone() };
        let fired: &mut [&mut Once] = match kind {
            EventType::NodeCreated | EventType::NodeDataChanged => {
                &mut [&mut self.data, &mut self.exist]
            }
            EventType::NodeDeleted => &mut [&mut self.data, &mut self.exist, &mut self.child],
            EventType::NodeChildrenChanged => &mut [&mut self.child],
            _ => &mut [],
        };
        for by_path in fired {
            for watcher in by_path.remove(path).unwrap_or_default() {
                self.count = self.count.saturating_sub(1);
                // A watcher that has stopped waiting needs no event.
                let _ = watcher.send(sent.clone());
            }
        }
        notify_at(&mut self.persistent, path, &sent);
        if kind != EventType::NodeChildrenChanged {
            let mut watched = Some(path);
            while let Some(ancestor) = watched {
                notify_at(&mut self.recursive, ancestor, &sent);
                watched = parent(ancestor);
            }
        }
        true
    }

    /// Notifies persistent watchers of the connection's state. One-shot watchers keep waiting.
    pub(super) fn announce(&mut self, event: &WatchedEvent) {
        for by_path in [&mut self.persistent, &mut self.recursive] {
            for subscriber in by_path.values_mut().flatten() {
                subscriber.notify(event.clone());
            }
        }
    }

    /// Notifies all watchers that the session is over, and removes them.
    pub(super) fn finish(&mut self, event: &WatchedEvent) {
        self.announce(event);
        for by_path in [&mut self.data, &mut self.exist, &mut self.child] {
            for watcher in std::mem::take(by_path).into_values().flatten() {
                let _ = watcher.send(event.clone());
            }
        }
        *self = Self::default();
    }

    /// The requests that set all watches again on a new connection.
    pub(super) fn set_again(&mut self, relative_zxid: Zxid) -> Vec<Request> {
        self.prune();
        let mut batch = SetWatches2Request { relative_zxid, ..SetWatches2Request::default() };
        let empty = batch.clone();
        let (mut requests, mut batch_bytes) = (Vec::new(), 0);
        let paths = (self.data.keys().map(|path| (0, path)))
            .chain(self.exist.keys().map(|path| (1, path)))
            .chain(self.child.keys().map(|path| (2, path)))
            .chain(self.persistent.keys().map(|path| (3, path)))
            .chain(self.recursive.keys().map(|path| (4, path)));
        for (kind, path) in paths {
            match kind {
                0 => &mut batch.data,
                1 => &mut batch.exist,
                2 => &mut batch.child,
                3 => &mut batch.persistent,
                _ => &mut batch.persistent_recursive,
            }
            .push(path.clone());
            batch_bytes += path.len() + size_of::<i32>();
            if batch_bytes >= SET_WATCHES_BYTES_MAX {
                requests.push(request_of(std::mem::replace(&mut batch, empty.clone())));
                batch_bytes = 0;
            }
        }
        if batch_bytes > 0 {
            requests.push(request_of(batch));
        }
        requests
    }

    /// Removes watchers that have stopped waiting.
    fn prune(&mut self) {
        self.count = 0;
        for by_path in [&mut self.data, &mut self.exist, &mut self.child] {
            by_path.retain(|_, watchers| {
                watchers.retain(|watcher| !watcher.is_closed());
                self.count += watchers.len();
                !watchers.is_empty()
            });
        }
        for by_path in [&mut self.persistent, &mut self.recursive] {
            by_path.retain(|_, subscribers| {
                subscribers.retain(|subscriber| !subscriber.events.is_closed());
                self.count += subscribers.len();
                !subscribers.is_empty()
            });
        }
    }
}

// === impl Subscriber ===

impl Subscriber {
    fn notify(&mut self, event: WatchedEvent) {
        let has_room = self.events.capacity() > 1;
        let sent = match (has_room, self.is_lagging) {
            (true, _) => event,
            (false, false) => WatchedEvent::Missed,
            (false, true) => return,
        };
        self.is_lagging = !has_room;
        // A watcher that is gone is pruned later.
        let _ = self.events.try_send(sent);
    }
}

fn add_once(by_path: &mut Once, path: &str, watcher: oneshot::Sender<WatchedEvent>) {
    by_path.entry(path.to_owned()).or_default().push(watcher);
}

fn notify_at(by_path: &mut Lasting, path: &str, event: &WatchedEvent) {
    for subscriber in by_path.get_mut(path).into_iter().flatten() {
        subscriber.notify(event.clone());
    }
}

/// Servers before 3.6 know only setWatches, which is enough if there is no persistent watch.
fn request_of(batch: SetWatches2Request) -> Request {
    if !batch.persistent.is_empty() || !batch.persistent_recursive.is_empty() {
        return Request::SetWatches2(batch);
    }
    Request::SetWatches(SetWatchesRequest {
        relative_zxid: batch.relative_zxid,
        data: batch.data,
        exist: batch.exist,
        child: batch.child,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribe(watches: &mut Watches, path: &str, mode: AddWatchMode) -> Receiver {
        let (sender, receiver) = mpsc::channel(4);
        watches.add(path, Interest::Lasting(mode, sender), true);
        receiver
    }

    type Receiver = mpsc::Receiver<WatchedEvent>;

    fn seen(receiver: &mut Receiver) -> Vec<WatchedEvent> {
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

    fn node(kind: EventType, path: &str) -> WatchedEvent {
        WatchedEvent::Node { kind, path: path.to_owned() }
    }

    #[test]
    fn a_recursive_watch_sees_all_below_but_no_change_of_children() {
        let mut watches = Watches::default();
        let mut below_a = subscribe(&mut watches, "/a", AddWatchMode::PersistentRecursive);
        let mut below_root = subscribe(&mut watches, "/", AddWatchMode::PersistentRecursive);
        let mut at_a = subscribe(&mut watches, "/a", AddWatchMode::Persistent);
        for (kind, path) in [
            (EventType::NodeCreated, "/a/b"),
            (EventType::NodeChildrenChanged, "/a"),
            (EventType::NodeCreated, "/ab"),
        ] {
            assert!(watches.dispatch(WatcherEvent::of(kind, path)));
        }
        assert_eq!(seen(&mut below_a), [node(EventType::NodeCreated, "/a/b")]);
        assert_eq!(
            seen(&mut below_root),
            [node(EventType::NodeCreated, "/a/b"), node(EventType::NodeCreated, "/ab")]
        );
        assert_eq!(seen(&mut at_a), [node(EventType::NodeChildrenChanged, "/a")]);
    }

    #[test]
    fn a_slow_watcher_learns_that_it_missed_events_and_continues() {
        let mut watches = Watches::default();
        let mut events = subscribe(&mut watches, "/a", AddWatchMode::Persistent);
        let changed = node(EventType::NodeDataChanged, "/a");
        for _ in 0..9 {
            watches.dispatch(WatcherEvent::of(EventType::NodeDataChanged, "/a"));
        }
        let sent = seen(&mut events);
        assert_eq!(sent.len(), 4);
        assert_eq!(sent.last(), Some(&WatchedEvent::Missed));
        watches.dispatch(WatcherEvent::of(EventType::NodeDataChanged, "/a"));
        assert_eq!(seen(&mut events), [changed]);
    }

    #[test]
    fn an_exists_watch_on_an_absent_node_is_set_again_as_one() {
        let mut watches = Watches::default();
        let (sender, _absent) = oneshot::channel();
        watches.add("/absent", Interest::Exist(sender), false);
        let (sender, _present) = oneshot::channel();
        watches.add("/present", Interest::Exist(sender), true);
        assert_eq!(
            watches.set_again(Zxid(7)),
            [Request::SetWatches(SetWatchesRequest {
                relative_zxid: Zxid(7),
                data: vec!["/present".to_owned()],
                exist: vec!["/absent".to_owned()],
                child: Vec::new(),
            })]
        );
    }

    #[test]
    fn what_nobody_waits_for_is_not_set_again() {
        let mut watches = Watches::default();
        let (sender, receiver) = oneshot::channel();
        watches.add("/a", Interest::Data(sender), true);
        drop(receiver);
        assert_eq!(watches.set_again(Zxid(7)), []);
    }

    #[test]
    fn many_watches_are_set_again_in_pieces_and_none_is_left_out() {
        let mut watches = Watches::default();
        let long = "x".repeat(1000);
        let receivers: Vec<_> = (0..300)
            .map(|number| {
                let path = format!("/{long}{number}");
                subscribe(&mut watches, &path, AddWatchMode::Persistent)
            })
            .collect();
        let sizes: Vec<usize> = watches
            .set_again(Zxid(1))
            .iter()
            .map(|request| match request {
                Request::SetWatches2(batch) => batch.persistent.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sizes.len(), 3);
        assert_eq!(sizes.iter().sum::<usize>(), receivers.len());
    }
}
