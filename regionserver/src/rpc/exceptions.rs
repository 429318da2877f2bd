//! Maps a region's errors to the exceptions that clients receive.

use basalt_hbase_rpc::{Exception, ExceptionKind};
use basalt_storage::wal;

use crate::region::Error;

impl From<Error> for Exception {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::WrongRegion { .. } => ExceptionKind::WrongRegion,
            Error::NoSuchFamily { .. } => ExceptionKind::NoSuchColumnFamily,
            Error::Closing { .. } => ExceptionKind::NotServingRegion,
            // Nothing was written. Clients retry, and find the region on another server if it has
            // moved.
            Error::TooBusy { .. } | Error::ServerTooBusy { .. } | Error::ClockOff(_) => {
                ExceptionKind::RegionTooBusy
            }
            Error::BadRequest(_)
            | Error::Wal(wal::Error::EditTooLong { .. })
            | Error::AnswerGone { .. }
            | Error::BadAnswer { .. } => ExceptionKind::DoNotRetry,
            // Nothing was done. Clients retry.
            Error::Wal(wal::Error::NoRoom(_)) => ExceptionKind::RegionTooBusy,
            // The edit may be in the log: clients must not treat this as a rejection.
            Error::LeaseOver(_) => ExceptionKind::RegionServerStopped,
            Error::Wal(_) => ExceptionKind::RegionServerAborted,
            Error::NotFlushed { .. }
            | Error::StoreFile(_)
            | Error::Manifest(_)
            | Error::Nonces(_)
            | Error::Files(_)
            | Error::EarlierIncarnation { .. }
            | Error::Replay { .. } => ExceptionKind::Other,
        };
        Self::new(kind, error.to_string())
    }
}
