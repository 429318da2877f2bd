//! The machines that keep a file's blocks.

use std::fmt;
use std::sync::Arc;

/// A machine that stores blocks of files, under the name that its file system gives it. On HDFS
/// this is the `ip:port` of a DataNode.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeName(Arc<str>);

/// Why a node is excluded for a while.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NodeSuspicion {
    /// Its machine may be gone. It is read from last, and new files are placed on other nodes if
    /// there are enough of them.
    MayBeGone,
    /// It failed to do what it was asked to do. New files are placed on other nodes, even if they
    /// have fewer copies as a result.
    Failed,
}

/// How many excluded nodes one process reports to another at most.
pub const EXCLUDED_NODES_MAX: usize = 32;

/// The longest name that is accepted from another process, in bytes.
const NAME_BYTES_MAX: usize = 256;

// === impl NodeName ===

impl NodeName {
    /// The node that the file system calls `name`.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The node that another process names; `None` if the name is empty or too long.
    pub fn reported(name: &str) -> Option<Self> {
        let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
        is_name.then(|| Self::new(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_elsewhere_is_not_empty_and_not_endless() {
        assert_eq!(NodeName::reported(""), None);
        assert_eq!(NodeName::reported(&"n".repeat(257)), None);
        assert_eq!(NodeName::reported("10.0.0.1:9866"), Some(NodeName::new("10.0.0.1:9866")));
    }
}
