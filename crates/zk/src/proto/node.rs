//! The records for reading and writing nodes.

use bytes::Bytes;

use super::codec::record;
use super::{Acl, CreateMode, Stat};

/// The version that matches any version in a conditional write.
pub const VERSION_ANY: i32 = -1;

record! {
    /// Creates a node. Answered by a [`CreateResponse`] (create) or a [`Create2Response`] (create2,
    /// createContainer).
    CreateRequest {
        /// The node's path, without the number of a sequential node.
        path: String,
        /// Its data. ZooKeeper distinguishes null from empty.
        data: Option<Bytes>,
        /// Its access list. Must not be empty.
        acl: Vec<Acl>,
        /// The wire value of a [`CreateMode`].
        flags: i32,
    }
}

record! {
    /// Creates a node with a time to live; answered by a [`Create2Response`].
    CreateTtlRequest {
        /// The node's path, without the number of a sequential node.
        path: String,
        /// Its data. ZooKeeper distinguishes null from empty.
        data: Option<Bytes>,
        /// Its access list. Must not be empty.
        acl: Vec<Acl>,
        /// The wire value of a [`CreateMode`].
        flags: i32,
        /// How long the node may stay unmodified.
        ttl_ms: i64,
    }
}

record! {
    /// The node that was created.
    CreateResponse {
        /// Its path, with the number of a sequential node.
        path: String,
    }
}

record! {
    /// The node that was created.
    Create2Response {
        /// Its path, with the number of a sequential node.
        path: String,
        /// Its stat.
        stat: Stat,
    }
}

record! {
    /// Deletes a node. The answer has no record.
    DeleteRequest {
        /// The node.
        path: String,
        /// The version that it must have, or [`VERSION_ANY`].
        version: i32,
    }
}

record! {
    /// Asks whether a node exists; answered by a [`StatResponse`].
    ExistsRequest {
        /// The node.
        path: String,
        /// Whether to set a one-shot watch.
        watch: bool,
    }
}

record! {
    /// The stat of a node (exists, setData, setACL).
    StatResponse {
        /// The stat.
        stat: Stat,
    }
}

record! {
    /// Asks for a node's data.
    GetDataRequest {
        /// The node.
        path: String,
        /// Whether to set a one-shot watch.
        watch: bool,
    }
}

record! {
    /// A node's data and stat.
    GetDataResponse {
        /// The data. ZooKeeper distinguishes null from empty.
        data: Option<Bytes>,
        /// The stat.
        stat: Stat,
    }
}

record! {
    /// Replaces a node's data; answered by a [`StatResponse`].
    SetDataRequest {
        /// The node.
        path: String,
        /// The new data. ZooKeeper distinguishes null from empty.
        data: Option<Bytes>,
        /// The version that the node must have, or [`VERSION_ANY`].
        version: i32,
    }
}

record! {
    /// Requires a version of a node, within a multi.
    CheckVersionRequest {
        /// The node.
        path: String,
        /// The version that it must have, or [`VERSION_ANY`].
        version: i32,
    }
}

record! {
    /// Asks for the names of a node's children (getChildren, getChildren2).
    GetChildrenRequest {
        /// The node.
        path: String,
        /// Whether to set a one-shot watch.
        watch: bool,
    }
}

record! {
    /// The names of a node's children, in no particular order.
    GetChildrenResponse {
        /// The names.
        children: Vec<String>,
    }
}

record! {
    /// The names of a node's children, in no particular order, and the node's stat.
    GetChildren2Response {
        /// The names.
        children: Vec<String>,
        /// The stat.
        stat: Stat,
    }
}

record! {
    /// Asks how many nodes there are below a node.
    GetAllChildrenNumberRequest {
        /// The node.
        path: String,
    }
}

record! {
    /// How many nodes there are below a node.
    GetAllChildrenNumberResponse {
        /// Their number.
        total_number: i32,
    }
}

record! {
    /// Waits until this server has everything that the leader had.
    SyncRequest {
        /// A node. Servers return it.
        path: String,
    }
}

record! {
    /// The server has everything that the leader had.
    SyncResponse {
        /// The node of the request.
        path: String,
    }
}

// === impl CreateRequest ===

impl CreateRequest {
    /// The kind of node, if the flags name one.
    pub fn mode(&self) -> Option<CreateMode> {
        CreateMode::from_wire(self.flags)
    }
}

// === impl CreateTtlRequest ===

impl CreateTtlRequest {
    /// The kind of node, if the flags name one.
    pub fn mode(&self) -> Option<CreateMode> {
        CreateMode::from_wire(self.flags)
    }
}
