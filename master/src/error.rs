//! Why a master stops, and why a step of its work failed.

use basalt_model::{MasterEpoch, ServerName};
use basalt_zk::proto::ErrorCode;

/// Why a master stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on, or listening failed later.
    #[error("{0}")]
    Listen(#[from] std::io::Error),
    /// The coordinator is unreachable, or rejected a request.
    #[error("coordinator: {0}")]
    Coordinator(#[from] basalt_zk::Error),
    /// A record in the coordinator is invalid.
    #[error("coordinator: {0}")]
    Record(#[from] basalt_cluster::Error),
    /// The storage root cannot be used.
    #[error("storage root: {0}")]
    Storage(#[from] basalt_fs::Error),
    /// The storage root belongs to another cluster.
    #[error(
        "the storage root belongs to cluster {in_root}, but the coordinator belongs to cluster \
         {in_coordinator}. Give this cluster its own storage root, or connect to the coordinator \
         that belongs to this root"
    )]
    ForeignRoot {
        /// The cluster id in the storage root.
        in_root: String,
        /// The cluster id in the coordinator.
        in_coordinator: String,
    },
    /// The storage root belongs to a cluster that the coordinator does not know.
    #[error(
        "the storage root holds cluster {in_root}, but the coordinator knows no cluster: it has \
         lost its data, including which server owns each region and under which epoch. Restore the \
         coordinator's data, or start with an empty storage root"
    )]
    ForgottenCluster {
        /// The cluster id in the storage root.
        in_root: String,
    },
    /// The coordinator's epoch is lower than one that is recorded in the storage root.
    #[error(
        "the coordinator is at master epoch {in_coordinator}, but the storage root has seen epoch \
         {in_root}: the coordinator's data is older than the storage root. Restore the \
         coordinator's newest data"
    )]
    ForgottenEpochs {
        /// The highest epoch in the storage root.
        in_root: u64,
        /// The coordinator's epoch.
        in_coordinator: u64,
    },
    /// The coordinator knows a cluster, and the storage root is empty.
    #[error(
        "the coordinator holds cluster {in_coordinator}, but the storage root has no `/hbase.id`: \
         it is not the storage root of this cluster. Mount the right one. If the data is really \
         gone, delete the coordinator's data too"
    )]
    MissingRoot {
        /// The cluster id in the coordinator.
        in_coordinator: String,
    },
    /// A file of the storage root has invalid contents.
    #[error("{path} in the storage root: {reason}")]
    BadRootFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another master is active.
    #[error("{server} is no longer the active master: epoch {epoch} is over")]
    Deposed {
        /// This master.
        server: ServerName,
        /// The epoch in which it was active.
        epoch: MasterEpoch,
    },
    /// Another master has taken the Lease.
    #[error("{server} gives up leadership of epoch {epoch}: {holder} has taken the Lease")]
    LeaseLost {
        /// This master.
        server: ServerName,
        /// The epoch in which it was active.
        epoch: MasterEpoch,
        /// The identity of the master that holds the Lease.
        holder: String,
    },
    /// The coordinator has ended this master's session.
    #[error("{server} has lost its session with the coordinator")]
    SessionLost {
        /// This master.
        server: ServerName,
    },
    /// The gRPC services ended.
    #[error("gRPC services: {0}")]
    Peer(#[from] tonic::transport::Error),
    /// The HBase RPC ended.
    #[error("HBase RPC: {0}")]
    Rpc(String),
    /// The parent of the nodes is not a valid path.
    #[error("bad node path {path:?}: it must begin with / and must not end with /")]
    BadNodePath {
        /// The path.
        path: String,
    },
}

/// Why a commit of the active master failed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The condition of a write did not hold. No write of the batch took effect.
    #[error("write {index} rejected: {code}")]
    Refused {
        /// The index of the write in the batch.
        index: usize,
        /// The coordinator's error.
        code: ErrorCode,
    },
    /// Another master is active. No write of this one takes effect any more.
    #[error("deposed")]
    Deposed,
    /// The coordinator did not answer. It is unknown whether the batch took effect.
    #[error("coordinator: {0}")]
    Unknown(basalt_zk::Error),
}

/// Why a step of a procedure failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A commit failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The coordinator could not be read.
    #[error("coordinator: {0}")]
    Coordinator(#[from] basalt_zk::Error),
    /// A record is invalid.
    #[error(transparent)]
    Record(#[from] basalt_cluster::Error),
    /// A file operation failed.
    #[error(transparent)]
    Storage(#[from] basalt_fs::Error),
    /// The step cannot continue yet.
    #[error("waiting: {0}")]
    NotYet(String),
    /// The step can never succeed. The procedure ends, and its client learns why.
    #[error("impossible: {0}")]
    Impossible(String),
    /// Logs with acknowledged edits are lost, and no operator has accepted the loss yet.
    #[error("{0}")]
    LostLogs(String),
}

// === impl StepError ===

impl StepError {
    /// Whether retries are pointless because another master is active.
    pub(crate) fn is_deposed(&self) -> bool {
        matches!(self, Self::Commit(CommitError::Deposed))
    }
}
