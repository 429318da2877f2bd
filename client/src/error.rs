//! What an operation can end with, besides its result.

use std::time::Duration;

use basalt_hbase_rpc::{CallError, Exception, Reaction};
use basalt_model::{ServerName, TableName};

/// The result of an operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The cluster has no such table.
    #[error("table {table} was not found")]
    TableNotFound {
        /// The table.
        table: TableName,
    },
    /// The region of a row is not known, or is at no server, for now.
    #[error("no server has the region of row {row:?} of {table}: {reason}")]
    NoRegion {
        /// The table.
        table: TableName,
        /// The row, escaped.
        row: String,
        /// What the meta table says.
        reason: &'static str,
    },
    /// It was not found out in time where a region, the meta table or the master is. What was
    /// asked for has not been sent.
    #[error("{what} was not found within {waited:?}")]
    NotFoundInTime {
        /// What was looked for.
        what: &'static str,
        /// How long.
        waited: Duration,
    },
    /// The registry does not tell where the cluster is.
    #[error("registry {registry}: {reason}")]
    Registry {
        /// Its addresses.
        registry: String,
        /// What is wrong.
        reason: String,
    },
    /// One attempt failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// All attempts failed until the time was over. Whether a write was applied is unknown unless
    /// every attempt was refused.
    #[error("{operation}: {attempts} attempts within {waited:?}; the last error: {last}")]
    OutOfTime {
        /// What was tried.
        operation: &'static str,
        /// How often.
        attempts: u32,
        /// How long.
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
    /// A request that cannot be.
    #[error("{reason}")]
    BadRequest {
        /// What is wrong with it.
        reason: String,
    },
    /// A message of the cluster that does not hold together.
    #[error(transparent)]
    Protocol(#[from] basalt_hbase_rpc::Error),
    /// An answer that does not hold together.
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

    /// The server's exception, if it is one.
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
