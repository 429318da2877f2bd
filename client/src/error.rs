//! The errors of an operation.

use std::time::Duration;

use basalt_hbase_rpc::{CallError, Exception, Reaction};
use basalt_model::{ServerName, TableName};

/// The result of an operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The table does not exist.
    #[error("table {table} was not found")]
    TableNotFound {
        /// The table.
        table: TableName,
    },
    /// The region of a row is currently unknown, or has no server.
    #[error("no server has the region of row {row:?} of {table}: {reason}")]
    NoRegion {
        /// The table.
        table: TableName,
        /// The row, escaped.
        row: String,
        /// The reason, according to the meta table.
        reason: &'static str,
    },
    /// The location of a region, the meta table or the master was not found in time. The request
    /// has not been sent.
    #[error("{what} was not found within {waited:?}")]
    NotFoundInTime {
        /// What was looked for.
        what: &'static str,
        /// How long.
        waited: Duration,
    },
    /// The registry does not provide the location of the cluster.
    #[error("registry {registry}: {reason}")]
    Registry {
        /// Its addresses.
        registry: String,
        /// The reason.
        reason: String,
    },
    /// One attempt failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// All attempts failed until the deadline. Whether a write was applied is unknown unless every
    /// attempt was rejected.
    #[error("{operation}: {attempts} attempts within {waited:?}; the last error: {last}")]
    OutOfTime {
        /// The operation.
        operation: &'static str,
        /// The number of attempts.
        attempts: u32,
        /// The time that they took.
        waited: Duration,
        /// Why the last attempt failed.
        last: Box<Error>,
    },
    /// A procedure of the master failed.
    #[error("procedure {procedure_id}: {reason}")]
    Procedure {
        /// The procedure.
        procedure_id: u64,
        /// The master's reason.
        reason: String,
    },
    /// An invalid request.
    #[error("{reason}")]
    BadRequest {
        /// What is wrong with it.
        reason: String,
    },
    /// An inconsistent message of the cluster.
    #[error(transparent)]
    Protocol(#[from] basalt_hbase_rpc::Error),
    /// An inconsistent answer.
    #[error("{server}: {source}")]
    BadAnswer {
        /// The server.
        server: ServerName,
        /// What is wrong with it.
        source: basalt_hbase_rpc::Error,
    },
}

// === impl Error ===

impl Error {
    /// Whether another attempt may succeed.
    pub fn is_retried(&self) -> bool {
        match self {
            Self::NoRegion { .. } | Self::NotFoundInTime { .. } | Self::Registry { .. } => true,
            Self::Call(CallError::BadAnswer { .. }) => false,
            Self::Call(CallError::Remote(exception)) => {
                exception.reaction() != Reaction::DoNotRetry
            }
            Self::Call(_) => true,
            Self::TableNotFound { .. }
            | Self::OutOfTime { .. }
            | Self::Procedure { .. }
            | Self::BadRequest { .. }
            | Self::Protocol(_)
            | Self::BadAnswer { .. } => false,
        }
    }

    /// The server's exception, if there is one.
    pub fn exception(&self) -> Option<&Exception> {
        match self {
            Self::Call(error) => error.exception(),
            Self::OutOfTime { last, .. } => last.exception(),
            _ => None,
        }
    }

    /// Whether a write of this single attempt has certainly not been applied.
    pub fn is_not_applied(&self) -> bool {
        match self {
            Self::TableNotFound { .. }
            | Self::NoRegion { .. }
            | Self::NotFoundInTime { .. }
            | Self::Registry { .. }
            | Self::BadRequest { .. } => true,
            Self::Call(CallError::Remote(exception)) => exception.kind().is_refusal(),
            Self::Call(error) => error.is_unsent(),
            Self::OutOfTime { .. }
            | Self::Procedure { .. }
            | Self::Protocol(_)
            | Self::BadAnswer { .. } => false,
        }
    }
}
