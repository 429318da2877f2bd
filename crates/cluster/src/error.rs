//! Errors of records and of the coordinator.

/// A record is invalid, or the coordinator failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not a message of the expected type.
    #[error("bad {record} record: {reason}")]
    Undecodable {
        /// The kind of record.
        record: &'static str,
        /// The decoder's message.
        reason: String,
    },
    /// A field holds an invalid value.
    #[error("bad {record} record: {source}")]
    InvalidName {
        /// The kind of record.
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
        /// The level of the cluster, or the announced one.
        cluster: basalt_model::FeatureLevel,
    },
    /// The coordinator did not answer, or rejected the request.
    #[error("coordinator: {0}")]
    Coordinator(#[from] basalt_zk::Error),
}
