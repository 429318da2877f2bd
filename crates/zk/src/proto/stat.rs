//! The metadata of a node.

use super::Zxid;
use super::codec::record;

record! {
    /// The metadata of a node.
    #[derive(Copy)]
    Stat {
        /// The transaction that created the node.
        czxid: Zxid,
        /// The transaction that last changed its data.
        mzxid: Zxid,
        /// When it was created, in milliseconds since 1970.
        ctime_ms: i64,
        /// When its data was last changed, in milliseconds since 1970.
        mtime_ms: i64,
        /// How often its data has changed.
        version: i32,
        /// How often its children have changed.
        cversion: i32,
        /// How often its access list has changed.
        aversion: i32,
        /// The session that owns an ephemeral node, or else 0. ZooKeeper also shows clients 0 for
        /// containers and for nodes with a time to live, although it marks them in this field
        /// internally.
        ephemeral_owner: i64,
        /// The length of its data.
        data_length: i32,
        /// How many children it has.
        num_children: i32,
        /// The transaction that last changed its children.
        pzxid: Zxid,
    }
}
