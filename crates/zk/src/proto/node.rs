//! The records of reading and writing nodes.

use bytes::Bytes;

use super::codec::record;
use super::{Acl, CreateMode, Stat};

/// The version in a conditional write that any version satisfies.
pub const VERSION_ANY: i32 = -1;

record! {
    /// Creates a node. Answered by a [`CreateResponse`] (create) or a [`Create2Response`] (create2,
    /// createContainer).
    CreateRequest {
        /// The node, without the number of a sequential one.
        path: String,
        /// Its data; ZooKeeper tells null from empty.
        data: Option<Bytes>,
        /// Its access list; may not be empty.
        acl: Vec<Acl>,
        /// The wire value of a [`CreateMode`].
        flags: i32,
    }
}

record! {
    /// Creates a node with a time to live; answered by a [`Create2Response`].
    CreateTtlRequest {
        /// The node, without the number of a sequential one.
        path: String,
        /// Its data; ZooKeeper tells null from empty.
        data: Option<Bytes>,
        /// Its access list; may not be empty.
        acl: Vec<Acl>,
        /// The wire value of a [`CreateMode`].
        flags: i32,
        /// How long the node may be left alone.
        ttl_ms: i64,
    }
}

record! {
    /// The node that was created.
    CreateResponse {
        /// Its path, with the number of a sequential one.
        path: String,
    }
}

record! {
    /// The node that was created.
    Create2Response {
        /// Its path, with the number of a sequential one.
        path: String,
        /// Its state.
        stat: Stat,
    }
}

record! {
    /// Deletes a node; answered by no record.
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
    /// The state of a node (exists, setData, setACL).
    StatResponse {
        /// The state.
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
    /// A node's data and state.
    GetDataResponse {
        /// The data; ZooKeeper tells null from empty.
        data: Option<Bytes>,
        /// The state.
        stat: Stat,
    }
}

record! {
    /// Replaces a node's data; answered by a [`StatResponse`].
    SetDataRequest {
        /// The node.
        path: String,
        /// The new data; ZooKeeper tells null from empty.
        data: Option<Bytes>,
        /// The version that the node must have, or [`VERSION_ANY`].
        version: i32,
    }
}

record! {
    /// Demands a version of a node; within a multi.
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
    /// The names of a node's children, in no order.
    GetChildrenResponse {
        /// The names.
        children: Vec<String>,
    }
}

record! {
    /// The names of a node's children, in no order, and the node's state.
    GetChildren2Response {
        /// The names.
        children: Vec<String>,
        /// The state.
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
    /// Waits until this server has what the leader had.
    SyncRequest {
        /// A node; servers hand it back.
        path: String,
    }
}

record! {
    /// The server has what the leader had.
    SyncResponse {
        /// The node that was asked for.
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
