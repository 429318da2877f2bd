//! Why a master stops, and why a step of its work did not happen.

use basalt_model::{MasterEpoch, ServerName};
use basalt_zk::proto::ErrorCode;

/// Why a master stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on, or listening failed later.
    #[error("{0}")]
    Listen(#[from] std::io::Error),
    /// The coordinator cannot be reached or refused.
    #[error("coordinator: {0}")]
    Coordinator(#[from] basalt_zk::Error),
    /// A record in the coordinator is not what it should be.
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
    /// The storage root has seen a cluster of which the coordinator knows nothing.
    #[error(
        "the storage root holds cluster {in_root}, but the coordinator knows no cluster: it has \
         lost its data, including which server owns each region and under which epoch. Restore the \
         coordinator's data, or start with an empty storage root"
    )]
    ForgottenCluster {
        /// The cluster id in the storage root.
        in_root: String,
    },
    /// The coordinator's epoch is lower than one that the storage root has seen.
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
    /// A file of the storage root does not hold what it should.
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
        /// Who holds it.
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
    /// A node parent that is not a path.
    #[error("bad node path {path:?}: it must begin with / and must not end with /")]
    BadNodePath {
        /// The path.
        path: String,
    },
}

/// Why a commit of the active master did not happen.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A write's condition did not hold; none of its batch took effect.
    #[error("write {index} rejected: {code}")]
    Refused {
        /// Which of the batch.
        index: usize,
        /// Why.
        code: ErrorCode,
    },
    /// Another master is active: nothing that this one writes counts any more.
    #[error("deposed")]
    Deposed,
    /// The coordinator did not answer: whether the batch took effect is unknown.
    #[error("coordinator: {0}")]
    Unknown(basalt_zk::Error),
}

/// Why a step of a procedure must be tried again.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A commit did not happen.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The coordinator could not be read.
    #[error("coordinator: {0}")]
    Coordinator(#[from] basalt_zk::Error),
    /// A record is not what it should be.
    #[error(transparent)]
    Record(#[from] basalt_cluster::Error),
    /// A file operation failed.
    #[error(transparent)]
    Storage(#[from] basalt_fs::Error),
    /// It cannot go on yet.
    #[error("waiting: {0}")]
    NotYet(String),
    /// It can never be done: the procedure ends here, and its client is to know why.
    #[error("impossible: {0}")]
    Impossible(String),
    /// Logs with acknowledged edits are lost, and nobody has accepted that.
    #[error("{0}")]
    LostLogs(String),
}

// === impl StepError ===

impl StepError {
    /// Whether trying again is of no use, because another master is active.
    pub(crate) fn is_deposed(&self) -> bool {
        matches!(self, Self::Commit(CommitError::Deposed))
    }
}
