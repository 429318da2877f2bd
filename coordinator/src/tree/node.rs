//! One node of the tree.

use std::collections::BTreeSet;
use std::sync::Arc;

use basalt_zk::proto::{Acl, SessionId, Stat, Zxid};
use bytes::Bytes;

/// A node. Its path is its key in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) data: Option<Bytes>,
    pub(crate) acl: Arc<[Acl]>,
    pub(crate) created_zxid: Zxid,
    pub(crate) modified_zxid: Zxid,
    pub(crate) created_ms: i64,
    pub(crate) modified_ms: i64,
    pub(crate) version: i32,
    pub(crate) acl_version: i32,
    /// The session that owns an ephemeral node; [`SessionId::NONE`] for a persistent one.
    pub(crate) owner: SessionId,
    pub(crate) family: Family,
}

/// What a node knows about its children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Family {
    /// Their names.
    pub(crate) names: BTreeSet<Box<str>>,
    /// How many have ever been created: the number that the next sequential child gets.
    pub(crate) births: i32,
    /// The last transaction that created or deleted a child. At first, the one that created the
    /// node.
    pub(crate) zxid: Zxid,
}

// === impl Node ===

impl Node {
    /// The node as clients see it.
    pub(crate) fn stat(&self) -> Stat {
        let children = i32::try_from(self.family.names.len()).unwrap_or(i32::MAX);
        Stat {
            czxid: self.created_zxid,
            mzxid: self.modified_zxid,
            ctime_ms: self.created_ms,
            mtime_ms: self.modified_ms,
            version: self.version,
            // The number of births and deaths of children. The dead are those that were born and no
            // longer exist.
            cversion: self.family.births.wrapping_mul(2).wrapping_sub(children),
            aversion: self.acl_version,
            ephemeral_owner: self.owner.0,
            data_length: i32::try_from(self.data.as_ref().map_or(0, Bytes::len))
                .unwrap_or(i32::MAX),
            num_children: children,
            pzxid: self.family.zxid,
        }
    }

    pub(crate) fn is_ephemeral(&self) -> bool {
        self.owner != SessionId::NONE
    }
}
