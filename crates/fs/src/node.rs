//! The machines that keep a file's blocks.

use std::fmt;
use std::sync::Arc;

/// A machine that keeps blocks of files, by the name that its file system gives it; on HDFS the
/// `ip:port` of a DataNode.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeName(Arc<str>);

/// Why a node is excluded for a while.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NodeSuspicion {
    /// Its machine may be gone: it is read from last, and new files are put elsewhere if there are
    /// enough others.
    MayBeGone,
    /// It did not do what it was asked: new files are put elsewhere even if they have fewer copies
    /// for it.
    Failed,
}

/// Of how many excluded nodes one process tells another.
pub const EXCLUDED_NODES_MAX: usize = 32;

/// The longest name that is taken from another process, in bytes.
const NAME_BYTES_MAX: usize = 256;

// === impl NodeName ===

impl NodeName {
    /// The node that the file system calls `name`.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The node that another process speaks of; nothing if it names none.
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
