//! Errors in manifests.

/// Why a manifest, or a part of one, is rejected.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// A text that is not a length of time.
    #[error("{text:?} is not a duration; write a number with a unit: 500ms, 1.5s, 10m, 2h or 90d")]
    BadTimespan {
        /// The text.
        text: String,
    },
    /// A file that is not a manifest.
    #[error("{file}: {reason}")]
    BadFile {
        /// The name of the file, as given by the caller.
        file: String,
        /// What is wrong with the file as a whole.
        reason: String,
    },
    /// An invalid document in a file.
    #[error("{file}, document {document}{}: {field}: {reason}", of_kind(.kind))]
    BadDocument {
        /// The name of the file, as given by the caller.
        file: String,
        /// The number of the document in the file, counted from 1.
        document: usize,
        /// Its kind and name as far as they are known. Otherwise empty.
        kind: String,
        /// The path of the field, such as `spec.regions.count`.
        field: String,
        /// What is wrong, what would be right, and the position in the file.
        reason: String,
    },
    /// A table that cannot be split as requested.
    #[error("{reason}")]
    BadSplit {
        /// What is wrong, and what would be right.
        reason: String,
    },
}

fn of_kind(kind: &str) -> String {
    if kind.is_empty() { String::new() } else { format!(" ({kind})") }
}
