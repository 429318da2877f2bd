//! How clients are told why a region did not do what it was asked to.

use basalt_hbase_rpc::{Exception, ExceptionKind};
use basalt_storage::wal;

use crate::region::Error;

impl From<Error> for Exception {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::WrongRegion { .. } => ExceptionKind::WrongRegion,
            Error::NoSuchFamily { .. } => ExceptionKind::NoSuchColumnFamily,
            Error::Closing { .. } => ExceptionKind::NotServingRegion,
            // Nothing was written. Clients try again, and find the region where it has gone.
            Error::TooBusy { .. } | Error::ServerTooBusy { .. } | Error::ClockOff(_) => {
                ExceptionKind::RegionTooBusy
            }
            Error::BadRequest(_)
            | Error::Wal(wal::Error::EditTooLong { .. })
            | Error::AnswerGone { .. }
            | Error::BadAnswer { .. } => ExceptionKind::DoNotRetry,
            // Nothing was done, and clients try again.
            Error::Wal(wal::Error::NoRoom(_)) => ExceptionKind::RegionTooBusy,
            // The edit may be in the log: clients must not take this for a refusal.
            Error::LeaseOver(_) => ExceptionKind::RegionServerStopped,
            Error::Wal(_) => ExceptionKind::RegionServerAborted,
            Error::NotFlushed { .. }
            | Error::StoreFile(_)
            | Error::Manifest(_)
            | Error::Nonces(_)
            | Error::Files(_)
            | Error::Replay { .. } => ExceptionKind::Other,
        };
        Self::new(kind, error.to_string())
    }
}
