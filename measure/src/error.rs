//! Why something could not be measured.

use std::time::Duration;

use basalt_model::TableName;

/// The result of a measurement.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the cluster failed.
    #[error(transparent)]
    Client(#[from] basalt_client::Error),
    /// A target that does not name a cluster.
    #[error(
        "{text:?} does not name a cluster; write zk:host:port,…/znode (ZooKeeper) or \
         bootstrap:host:port,… (masters or region servers)"
    )]
    BadTarget {
        /// The text that was given.
        text: String,
    },
    /// Regions that no server serves.
    #[error("not every region of {table} was served within {waited:?}")]
    NotOnline {
        /// The table.
        table: TableName,
        /// How long the measurement waited.
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
        /// What is wrong, and how to correct it.
        reason: String,
    },
}
