//! What can be wrong with what people wrote.

/// A manifest, or a part of one, that cannot be taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Text that is not a length of time.
    #[error("{text:?} is not a duration; write a number with a unit: 500ms, 1.5s, 10m, 2h or 90d")]
    BadTimespan {
        /// The text.
        text: String,
    },
    /// A file that is no manifest.
    #[error("{file}: {reason}")]
    BadFile {
        /// The file as the caller named it.
        file: String,
        /// What is wrong with it as a whole.
        reason: String,
    },
    /// A document of a file that is not what it says it is.
    #[error("{file}, document {document}{}: {field}: {reason}", of_kind(.kind))]
    BadDocument {
        /// The file as the caller named it.
        file: String,
        /// Which of its documents, counted from 1.
        document: usize,
        /// Its kind and name as far as they are known, else empty.
        kind: String,
        /// The path of the field, as `spec.regions.count`.
        field: String,
        /// What is wrong, what would be right, and where in the file it stands.
        reason: String,
    },
    /// A table that cannot be cut as it was asked.
    #[error("{reason}")]
    BadSplit {
        /// What is wrong, and what would be right.
        reason: String,
    },
}

fn of_kind(kind: &str) -> String {
    if kind.is_empty() { String::new() } else { format!(" ({kind})") }
}
