//! What can be wrong with a record.

/// A record that is not what it should be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are no message of the expected kind.
    #[error("bad {record} record: {reason}")]
    Undecodable {
        /// Which kind of record.
        record: &'static str,
        /// The decoder's words.
        reason: String,
    },
    /// A field holds what it must not.
    #[error("bad {record} record: {source}")]
    InvalidName {
        /// Which kind of record.
        record: &'static str,
        /// What is wrong.
        source: basalt_model::Error,
    },
    /// The cluster uses formats and messages that this release does not know.
    #[error(
        "this release knows feature levels up to {known}, but the cluster is at {cluster}. Start a \
         release that knows it"
    )]
    UnknownLevel {
        /// The highest level that this process knows.
        known: basalt_model::FeatureLevel,
        /// That of the cluster, or the one that is announced.
        cluster: basalt_model::FeatureLevel,
    },
    /// The coordinator did not answer, or refused.
    #[error("coordinator: {0}")]
    Coordinator(#[from] basalt_zk::Error),
}
