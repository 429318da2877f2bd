//! Commands: the changes that the members agree to apply.

use std::fmt;

use basalt_zk::proto::{Acl, SessionId};
use bytes::Bytes;

use crate::tree::SECRET_BYTES;

/// One change of the state, as it is stored in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// Which member sent it. Absent if the leader decided it by itself.
    pub(crate) origin: Option<Origin>,
    /// The leader's wall clock when it proposed the command.
    pub(crate) time_ms: u64,
    /// The change.
    pub(crate) change: Change,
}

/// A command's place in the pipeline of the member that sent it. A member numbers its commands from
/// 1 in each life and sends them in order, repeatedly if needed. A command is therefore applied if
/// and only if its number is the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The member.
    pub(crate) member: u64,
    /// Rises with each start of that member.
    pub(crate) life: u64,
    /// Counts the commands of this life.
    pub(crate) number: u64,
}

/// What a command changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Sets the key of the session passwords, once in the lifetime of a cluster.
    SetSecret([u8; SECRET_BYTES]),
    /// Opens a session.
    CreateSession {
        session: SessionId,
        timeout_ms: u32,
        /// The connection that the session belongs to: writes of any other are rejected.
        attachment: u64,
    },
    /// Moves a session to another connection.
    AttachSession { session: SessionId, timeout_ms: u32, attachment: u64 },
    /// Ends a session at the request of its client.
    CloseSession { session: SessionId, attachment: u64 },
    /// Ends a session that the leader of `term` has not heard from. Void in any other term, because
    /// another leader decides then.
    ExpireSession { session: SessionId, term: u64 },
    /// Changes nodes.
    Write(Write),
}

/// A session's change of nodes. All of `operations` take effect, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) session: SessionId,
    pub(crate) attachment: u64,
    pub(crate) operations: Vec<Operation>,
    /// Whether the client asked for a multi, which may have one operation or none.
    pub(crate) multi: bool,
}

/// One step of a [`Write`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Creates a node.
    Create { path: String, data: Option<Bytes>, acl: Vec<Acl>, ephemeral: bool, sequential: bool },
    /// Deletes a node without children.
    Delete { path: String, version: i32 },
    /// Replaces a node's data.
    SetData { path: String, data: Option<Bytes>, version: i32 },
    /// Replaces a node's access list.
    SetAcl { path: String, acl: Vec<Acl>, version: i32 },
    /// Requires a version.
    Check { path: String, version: i32 },
}

// === impl Command ===

impl fmt::Display for Command {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.change {
            Change::SetSecret(_) => "set secret",
            Change::CreateSession { .. } => "create session",
            Change::AttachSession { .. } => "attach session",
            Change::CloseSession { .. } => "close session",
            Change::ExpireSession { .. } => "expire session",
            Change::Write(_) => "write",
        };
        match self.origin {
            Some(origin) => write!(formatter, "{name} {}/{}", origin.member, origin.number),
            None => formatter.write_str(name),
        }
    }
}

// === impl Operation ===

impl Operation {
    /// Approximately how many bytes it takes in memory and in the log.
    pub(crate) fn size_bytes(&self) -> usize {
        const FIXED_BYTES: usize = 64;
        FIXED_BYTES
            + match self {
                Self::Create { path, data, acl, .. } => {
                    path.len() + data_bytes(data) + acl_bytes(acl)
                }
                Self::SetData { path, data, .. } => path.len() + data_bytes(data),
                Self::SetAcl { path, acl, .. } => path.len() + acl_bytes(acl),
                Self::Delete { path, .. } | Self::Check { path, .. } => path.len(),
            }
    }
}

fn data_bytes(data: &Option<Bytes>) -> usize {
    data.as_ref().map_or(0, Bytes::len)
}

fn acl_bytes(acl: &[Acl]) -> usize {
    acl.iter().map(|entry| entry.scheme.len() + entry.id.len()).sum()
}

// === impl Change ===

impl Change {
    /// Approximately how many bytes it takes in memory and in the log.
    pub(crate) fn size_bytes(&self) -> usize {
        const FIXED_BYTES: usize = 128;
        match self {
            Self::Write(write) => {
                FIXED_BYTES + write.operations.iter().map(Operation::size_bytes).sum::<usize>()
            }
            _ => FIXED_BYTES,
        }
    }
}
