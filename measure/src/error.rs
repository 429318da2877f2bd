//! Why something could not be measured.

use std::time::Duration;

use basalt_model::TableName;

/// The result of a measurement.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster did not do what was asked.
    #[error(transparent)]
    Client(#[from] basalt_client::Error),
    /// The name of a cluster that cannot be understood.
    #[error(
        "{text:?} does not name a cluster; write zk:host:port,…/znode (ZooKeeper) or \
         bootstrap:host:port,… (masters or region servers)"
    )]
    BadTarget {
        /// What was written.
        text: String,
    },
    /// Regions that are at no server.
    #[error("not every region of {table} was served within {waited:?}")]
    NotOnline {
        /// The table.
        table: TableName,
        /// How long was waited.
        waited: Duration,
    },
    /// A table without a family.
    #[error("table {table} has no family to write to")]
    NoFamily {
        /// The table.
        table: TableName,
    },
    /// A process that cannot be watched.
    #[error("process {pid} cannot be watched: {reason}")]
    NoProcess {
        /// Its id.
        pid: u32,
        /// Why.
        reason: String,
    },
    /// A benchmark that cannot be run.
    #[error("{reason}")]
    BadBenchmark {
        /// What is wrong, and what would be right.
        reason: String,
    },
}
