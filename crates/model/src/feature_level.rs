//! Feature levels: which formats and messages a cluster may use while servers of two releases run
//! side by side.

use std::fmt;

/// A level of formats and messages.
///
/// Each release knows the levels from 0 to its own [`FeatureLevel::NEWEST`]. The cluster has one
/// level, which never decreases: the active master raises it once every living server knows the
/// next one. A server writes and sends only what the cluster's level includes. It reads everything
/// that its release knows.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FeatureLevel(pub u32);

/// A format or message that needs a level above the lowest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Feature {
    /// The record of the procedure that truncates a table. A master of an earlier release cannot
    /// continue that procedure.
    TruncateTable,
    /// The incarnations of column families, in table records and manifests. A region server of an
    /// earlier release drops them.
    FamilyIncarnations,
}

// === impl FeatureLevel ===

impl FeatureLevel {
    /// The level of releases that do not know levels.
    pub const OLDEST: Self = Self(0);
    /// The highest level that this release knows.
    pub const NEWEST: Self = Self(2);

    /// Whether `feature` may be used at this level.
    pub fn has(self, feature: Feature) -> bool {
        self >= feature.level()
    }
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

// === impl Feature ===

impl Feature {
    /// The lowest level at which the feature may be used.
    pub const fn level(self) -> FeatureLevel {
        match self {
            Self::TruncateTable => FeatureLevel(1),
            Self::FamilyIncarnations => FeatureLevel(2),
        }
    }
}
