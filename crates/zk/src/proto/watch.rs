//! The records of watches, and their events.

use super::Zxid;
use super::codec::record;

macro_rules! wire_enum {
    (
        $(#[$attribute:meta])*
        $name:ident { $( $(#[$variant_attribute:meta])* $variant:ident = $code:literal, )* }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $( $(#[$variant_attribute])* $variant, )*
        }

        impl $name {
            /// The number on the wire.
            pub fn code(self) -> i32 {
                match self { $( Self::$variant => $code, )* }
            }

            /// The value of a wire number.
            pub fn from_wire(code: i32) -> Option<Self> {
                match code { $( $code => Some(Self::$variant), )* _ => None }
            }
        }
    };
}

wire_enum! {
    /// What happened to the watched node.
    EventType {
        /// Nothing happened to a node: the state of the connection has changed.
        None = -1,
        /// The node was created.
        NodeCreated = 1,
        /// The node was deleted.
        NodeDeleted = 2,
        /// The node's data was written.
        NodeDataChanged = 3,
        /// A child of the node was created or deleted.
        NodeChildrenChanged = 4,
        /// A data watch was removed.
        DataWatchRemoved = 5,
        /// A child watch was removed.
        ChildWatchRemoved = 6,
        /// A persistent watch was removed.
        PersistentWatchRemoved = 7,
    }
}

wire_enum! {
    /// The state of the connection in an event. Servers send only `SyncConnected`.
    KeeperState {
        /// Not connected.
        Disconnected = 0,
        /// Connected to a server with a quorum.
        SyncConnected = 3,
        /// Authentication failed.
        AuthFailed = 4,
        /// Connected to a server without a quorum.
        ConnectedReadOnly = 5,
        /// Authenticated by SASL.
        SaslAuthenticated = 6,
        /// The session has expired.
        Expired = -112,
        /// The client was closed.
        Closed = 7,
    }
}

wire_enum! {
    /// The scope of a persistent watch.
    AddWatchMode {
        /// The node, its data and its children.
        Persistent = 0,
        /// The node and all nodes below it. No event reports that children have changed.
        PersistentRecursive = 1,
    }
}

wire_enum! {
    /// The watches that checkWatches and removeWatches apply to.
    WatcherType {
        /// Watches on children.
        Children = 1,
        /// Watches on data and existence.
        Data = 2,
        /// All watches.
        Any = 3,
        /// Persistent watches, but not recursive ones.
        Persistent = 4,
        /// Persistent recursive watches.
        PersistentRecursive = 5,
    }
}

record! {
    /// An event. Its header has [`super::Xid::EVENT`].
    WatcherEvent {
        /// The wire value of an [`EventType`].
        kind: i32,
        /// The wire value of a [`KeeperState`].
        state: i32,
        /// The node.
        path: String,
    }
}

record! {
    /// Sets one-shot watches again after a reconnect. The server then sends the events that were
    /// missed. The answer is only a header.
    SetWatchesRequest {
        /// The last transaction that the client has seen.
        relative_zxid: Zxid,
        /// Watches on data.
        data: Vec<String>,
        /// Watches on nodes that did not exist.
        exist: Vec<String>,
        /// Watches on children.
        child: Vec<String>,
    }
}

record! {
    /// [`SetWatchesRequest`] with persistent watches, which get no event for what they missed.
    SetWatches2Request {
        /// The last transaction that the client has seen.
        relative_zxid: Zxid,
        /// Watches on data.
        data: Vec<String>,
        /// Watches on nodes that did not exist.
        exist: Vec<String>,
        /// Watches on children.
        child: Vec<String>,
        /// Persistent watches.
        persistent: Vec<String>,
        /// Persistent recursive watches.
        persistent_recursive: Vec<String>,
    }
}

record! {
    /// Adds a persistent watch; answered by an [`AddWatchResponse`].
    AddWatchRequest {
        /// The node.
        path: String,
        /// The wire value of an [`AddWatchMode`].
        mode: i32,
    }
}

record! {
    /// The watch was added. (ZooKeeper calls this record ErrorResponse.)
    AddWatchResponse {
        /// Always 0.
        error: i32,
    }
}

record! {
    /// Removes a watch (removeWatches), or asks whether the server has it (checkWatches). The
    /// answer is only a header.
    RemoveWatchesRequest {
        /// The node.
        path: String,
        /// The wire value of a [`WatcherType`].
        kind: i32,
    }
}

// === impl WatcherEvent ===

impl WatcherEvent {
    /// The event of `kind` at `path`, as a server sends it.
    pub fn of(kind: EventType, path: impl Into<String>) -> Self {
        Self { kind: kind.code(), state: KeeperState::SyncConnected.code(), path: path.into() }
    }
}
