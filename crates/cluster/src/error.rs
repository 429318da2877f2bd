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
    BadWord {
        /// Which kind of record.
        record: &'static str,
        /// What is wrong.
        source: basalt_model::Error,
    },
    /// The coordinator did not answer, or refused.
    #[error("coordinator: {0}")]
    Coordinator(#[from] basalt_zk::Error),
}
