//! What is known of a node besides its data.

use super::Zxid;
use super::codec::record;

record! {
    /// What is known of a node besides its data.
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
        /// The session that owns an ephemeral node, else 0. ZooKeeper shows clients 0 for
        /// containers and nodes with a time to live too, although it marks them in this field
        /// inside.
        ephemeral_owner: i64,
        /// The length of its data.
        data_length: i32,
        /// How many children it has.
        num_children: i32,
        /// The transaction that last changed its children.
        pzxid: Zxid,
    }
}
