//! The kind of node that a create request makes.

/// The kind of node that a create request makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CreateMode {
    /// Stays until it is deleted.
    Persistent,
    /// Deleted with the session that created it.
    Ephemeral,
    /// Stays until it is deleted. A counter of the parent is appended to its name.
    PersistentSequential,
    /// Deleted with its session. A counter of the parent is appended to its name.
    EphemeralSequential,
    /// Deleted when its last child has been deleted.
    Container,
    /// Deleted when it has no children and has not been modified for a time.
    PersistentWithTtl,
    /// The same, with a counter of the parent appended to its name.
    PersistentSequentialWithTtl,
}

// === impl CreateMode ===

impl CreateMode {
    /// All modes.
    pub const ALL: &[Self] = &[
        Self::Persistent,
        Self::Ephemeral,
        Self::PersistentSequential,
        Self::EphemeralSequential,
        Self::Container,
        Self::PersistentWithTtl,
        Self::PersistentSequentialWithTtl,
    ];

    /// The mode on the wire.
    pub fn flags(self) -> i32 {
        match self {
            Self::Persistent => 0,
            Self::Ephemeral => 1,
            Self::PersistentSequential => 2,
            Self::EphemeralSequential => 3,
            Self::Container => 4,
            Self::PersistentWithTtl => 5,
            Self::PersistentSequentialWithTtl => 6,
        }
    }

    /// The mode of a wire value.
    pub fn from_wire(flags: i32) -> Option<Self> {
        Self::ALL.iter().copied().find(|mode| mode.flags() == flags)
    }

    /// Whether the node is deleted with the session that created it.
    pub fn is_ephemeral(self) -> bool {
        matches!(self, Self::Ephemeral | Self::EphemeralSequential)
    }

    /// Whether a counter of the parent is appended to the node's name.
    pub fn is_sequential(self) -> bool {
        matches!(
            self,
            Self::PersistentSequential
                | Self::EphemeralSequential
                | Self::PersistentSequentialWithTtl
        )
    }

    /// Whether the node is deleted when it is empty.
    pub fn is_container(self) -> bool {
        self == Self::Container
    }

    /// Whether the node has a time to live.
    pub fn is_ttl(self) -> bool {
        matches!(self, Self::PersistentWithTtl | Self::PersistentSequentialWithTtl)
    }
}
