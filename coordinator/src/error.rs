//! Why a member cannot start or keep running.

use std::io;
use std::path::PathBuf;

use crate::raft::StoreError;
use crate::raft::log::LogError;

/// Why a member cannot start or keep running.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is invalid.
    #[error("the coordinator's configuration is wrong: {problem}")]
    Config {
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// An address cannot be listened on.
    #[error("{0}")]
    Listen(#[source] io::Error),
    /// The data folder belongs to another member or cluster.
    #[error(
        "{} holds the data of member {found_member} of coordinator {found_cluster:?}, but this is \
         member {member} of {cluster:?}: give this member its own folder, or an empty one",
        .path.display()
    )]
    ForeignFolder {
        /// The folder.
        path: PathBuf,
        /// The cluster that it belongs to.
        found_cluster: String,
        /// The member that it belongs to.
        found_member: u64,
        /// The cluster of this member.
        cluster: String,
        /// The id of this member.
        member: u64,
    },
    /// The identity file, which says which member the folder belongs to, cannot be parsed.
    #[error(
        "{}: does not say which coordinator this folder belongs to. If the other members are \
         healthy, move the folder away and start with an empty one", .path.display()
    )]
    Identity {
        /// The file.
        path: PathBuf,
    },
    /// The file that says which ensemble the folder belongs to is damaged.
    #[error(
        "{}: the record of the ensemble is damaged: {problem}. If the other members are healthy, \
         stop this member, move its data folder away and start it with an empty one",
        .path.display()
    )]
    EnsembleRecord {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The log or the snapshot belongs to another ensemble than the folder's record.
    #[error(
        "{}: the log or the snapshot in this folder belongs to a different ensemble than the \
         folder: files of different folders were mixed. Restore the whole folder of this member, \
         or, if the other members are healthy, move it away and start with an empty one",
        .folder.display()
    )]
    MixedFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// An operator wants to accept a loss in a folder that has no data.
    #[error(
        "{}: this folder is empty, so no data would be left. Put accept-loss into the folder of \
         the member that has the newest data", .folder.display()
    )]
    NothingLeft {
        /// The folder.
        folder: PathBuf,
    },
    /// The file system failed.
    #[error(transparent)]
    File(#[from] basalt_fs::Error),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The snapshot cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The snapshot was read, but its contents are invalid.
    #[error("the newest snapshot is invalid: {problem}")]
    Snapshot {
        /// What is wrong with it.
        problem: String,
    },
    /// Consensus has stopped: the disk failed, or an invariant was violated. A restart recovers.
    #[error("consensus has stopped: {problem}")]
    Consensus {
        /// The reason.
        problem: String,
    },
    /// The service for the other members has stopped.
    #[error("the service for the other members has stopped: {0}")]
    PeerService(#[from] tonic::transport::Error),
}
