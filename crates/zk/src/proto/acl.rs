//! Access lists: their records and permissions.

use super::Stat;
use super::codec::record;

/// The bits of [`Acl::permissions`].
#[derive(Clone, Copy, Debug)]
pub struct Permissions;

record! {
    /// One entry of an access list: what an identity may do.
    Acl {
        /// The bits of [`Permissions`].
        permissions: i32,
        /// How the identity is verified: `world`, `auth`, `digest`, `ip`, `sasl`, `x509`.
        scheme: String,
        /// The identity, in the form of the scheme.
        id: String,
    }
}

record! {
    /// Asks for a node's access list.
    GetAclRequest {
        /// The node.
        path: String,
    }
}

record! {
    /// A node's access list.
    GetAclResponse {
        /// The list.
        acl: Vec<Acl>,
        /// The node's stat.
        stat: Stat,
    }
}

record! {
    /// Replaces a node's access list; answered by a [`super::StatResponse`].
    SetAclRequest {
        /// The node.
        path: String,
        /// The new list.
        acl: Vec<Acl>,
        /// The `aversion` that the node must have, or [`super::VERSION_ANY`].
        version: i32,
    }
}

// === impl Permissions ===

impl Permissions {
    /// Read the data and the children's names.
    pub const READ: i32 = 1;
    /// Change the data.
    pub const WRITE: i32 = 2;
    /// Create children.
    pub const CREATE: i32 = 4;
    /// Delete children.
    pub const DELETE: i32 = 8;
    /// Change the access list.
    pub const ADMIN: i32 = 16;
    /// Everything.
    pub const ALL: i32 = 31;
}

// === impl Acl ===

impl Acl {
    /// The list that permits everything to every client.
    pub fn open() -> Vec<Self> {
        vec![Self {
            permissions: Permissions::ALL,
            scheme: "world".to_owned(),
            id: "anyone".to_owned(),
        }]
    }
}
