//! Errors of a region's operations.

use basalt_model::SequenceId;
use basalt_storage::{manifest, nonces, store_file, wal};
use bytes::Bytes;

use crate::lease::LeaseOver;
use crate::timestamps::ClockOff;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why an operation of a region failed. `rpc::exceptions` maps these to what clients receive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("row {} is not in region {region}", row.escape_ascii())]
    WrongRegion { row: Bytes, region: String },
    #[error("column family {} does not exist in region {region}", family.escape_ascii())]
    NoSuchFamily { family: Bytes, region: String },
    #[error("region {region} is closing")]
    Closing { region: String },
    #[error("region {region} still holds unflushed edits")]
    NotFlushed { region: String },
    #[error("region {region} holds {bytes} unflushed bytes, more than the limit of {bytes_max}")]
    TooBusy { region: String, bytes: u64, bytes_max: u64 },
    #[error(
        "the server's regions hold {bytes} unflushed bytes, more than the limit of {bytes_max}"
    )]
    ServerTooBusy { bytes: u64, bytes_max: u64 },
    #[error("{0}")]
    BadRequest(String),
    #[error(transparent)]
    LeaseOver(#[from] LeaseOver),
    #[error(transparent)]
    ClockOff(#[from] ClockOff),
    #[error(transparent)]
    Wal(#[from] wal::Error),
    #[error(transparent)]
    StoreFile(#[from] store_file::Error),
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    #[error(transparent)]
    Nonces(#[from] nonces::Error),
    #[error(
        "the operation was applied as edit {sequence_id} of region {region}, but its answer is \
         gone because a later write replaced the result. Read the row instead of repeating the \
         operation"
    )]
    AnswerGone { region: String, sequence_id: SequenceId },
    #[error("the operation was applied, but its stored answer is damaged: {reason}")]
    BadAnswer { reason: String },
    #[error(transparent)]
    Files(#[from] basalt_fs::Error),
    #[error(
        "the manifest of region {region} has incarnation {in_manifest} of family {family:?}, and \
         the table's record an earlier one, {in_record}: the record is outdated or damaged"
    )]
    EarlierIncarnation { region: String, family: String, in_manifest: u64, in_record: u64 },
    #[error("the write-ahead log of {server} has no readable part: {reason}")]
    Replay { server: String, reason: String },
}

// === impl Error ===

impl Error {
    /// Whether the error is caused by a single mutation, so that the others of a batch can still be
    /// applied.
    pub(crate) fn concerns_one_mutation(&self) -> bool {
        matches!(
            self,
            Self::WrongRegion { .. }
                | Self::NoSuchFamily { .. }
                | Self::BadRequest(_)
                | Self::Wal(wal::Error::EditTooLong { .. })
        )
    }
}
