//! A member that begins with an empty folder does not vote before it has caught up.
//!
//! It may have lost a disk on which it had promised to keep things. Raft counts on such promises:
//! a member that forgot them could help to elect a leader that has not got them either. So until
//! it has applied all that a leader said to be committed, it votes only for a candidate that is
//! as new as itself, as all are when a cluster begins. A file marks this, over restarts too.

use std::path::{Path, PathBuf};

use basalt_fs::SharedFileSystem;
use basalt_zk::proto::Zxid;
use bytes::Bytes;
use tokio::sync::watch;

use crate::replica::Replica;

/// Whether this member may vote.
pub(crate) struct Rejoin {
    files: SharedFileSystem,
    marker: PathBuf,
    stage: watch::Sender<Stage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nobody has said yet what is committed.
    Unknown,
    /// All up to here was committed when a leader was first heard of.
    Until(Zxid),
    /// This member has all that it may have promised.
    CaughtUp,
}

// === impl Rejoin ===

impl Rejoin {
    /// Where the marker of `folder` is.
    pub(crate) fn marker(folder: &Path) -> PathBuf {
        folder.join("rejoining")
    }

    /// Marks `folder` as one that is filled for the first time.
    pub(crate) async fn mark(files: &SharedFileSystem, folder: &Path) -> basalt_fs::Result<()> {
        let marker = Self::marker(folder);
        if files.exists(&marker).await? {
            return Ok(());
        }
        files.write_whole(&marker, Bytes::new()).await
    }

    /// Where the member stands, by what is in `folder`.
    pub(crate) async fn open(files: SharedFileSystem, folder: &Path) -> basalt_fs::Result<Self> {
        let marker = Self::marker(folder);
        let stage = match files.exists(&marker).await? {
            true => Stage::Unknown,
            false => Stage::CaughtUp,
        };
        Ok(Self { files, marker, stage: watch::Sender::new(stage) })
    }

    /// A leader, which may be this member, says that all up to `index` is committed.
    pub(crate) fn heard_committed(&self, index: u64) {
        self.stage.send_if_modified(|stage| {
            let is_first = *stage == Stage::Unknown;
            if is_first {
                *stage = Stage::Until(Zxid(i64::try_from(index).unwrap_or(i64::MAX)));
            }
            is_first
        });
    }

    /// Whether this member has not caught up yet.
    pub(crate) fn is_new(&self) -> bool {
        *self.stage.borrow() != Stage::CaughtUp
    }

    /// Whether to vote for a candidate that is new itself, or is not.
    pub(crate) fn may_vote(&self, candidate_is_new: bool) -> bool {
        candidate_is_new || !self.is_new()
    }

    /// Takes the marker away once this member has caught up.
    pub(crate) async fn run(&self, replica: &Replica) -> basalt_fs::Result<()> {
        let mut stages = self.stage.subscribe();
        loop {
            let stage = *stages.borrow_and_update();
            match stage {
                Stage::Unknown => {
                    // The sender is ours: it does not go away.
                    let _changed = stages.changed().await;
                }
                Stage::Until(committed) => {
                    replica.wait_applied(committed).await;
                    self.files.delete_file(&self.marker).await?;
                    self.stage.send_replace(Stage::CaughtUp);
                    tracing::info!(%committed, "caught up: this member votes from now on");
                }
                Stage::CaughtUp => std::future::pending().await,
            }
        }
    }
}
