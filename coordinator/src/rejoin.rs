//! A member that has less than it promised to keep does not vote until it has caught up.
//!
//! Its folder may be empty, or an older copy. Raft relies on what a member once acknowledged: a
//! member that forgot an entry could help to elect a leader that does not have it either. Such a
//! member must therefore be admitted by a majority with data (`ensemble`). It accepts entries only
//! from leaders that are not behind that majority. It votes once it has everything that such a
//! leader reported as committed. A marker file records this across restarts.

use std::path::{Path, PathBuf};

use basalt_fs::SharedFileSystem;
use basalt_zk::proto::Zxid;
use bytes::Bytes;
use tokio::sync::watch;

use crate::replica::Replica;
use crate::room::RoomWait;

/// Whether this member may vote, and which leaders it follows.
pub(crate) struct Rejoin {
    files: SharedFileSystem,
    marker: PathBuf,
    stage: watch::Sender<Stage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No majority with data has admitted this member.
    Unadmitted,
    /// Admitted, but no leader has reported yet what is committed.
    Admitted(Admission),
    /// Admitted, and everything up to this transaction was committed when a leader was first heard
    /// from.
    Until(Admission, Zxid),
    /// This member has everything that it may have promised to keep.
    CaughtUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Admission {
    /// The highest term of the majority. The leader of an earlier term may have been deposed.
    floor: u64,
    /// The member with the authoritative data, if there is one. This member votes for it even
    /// before it has caught up.
    authority: Option<u64>,
}

// === impl Rejoin ===

impl Rejoin {
    /// Reads from `folder` whether the member must be admitted.
    pub(crate) async fn open(files: SharedFileSystem, folder: &Path) -> basalt_fs::Result<Self> {
        let marker = folder.join("rejoining");
        let stage = match files.exists(&marker).await? {
            true => Stage::Unadmitted,
            false => Stage::CaughtUp,
        };
        Ok(Self { files, marker, stage: watch::Sender::new(stage) })
    }

    /// Records that this member has less than it promised, or cannot know. It must be admitted.
    pub(crate) async fn begin(&self) -> basalt_fs::Result<()> {
        if !self.files.exists(&self.marker).await? {
            let mut wait = RoomWait::new("the marker of a rejoining member");
            while let Err(error) = self.files.write_whole(&self.marker, Bytes::new()).await {
                wait.after(error).await?;
            }
        }
        self.stage.send_replace(Stage::Unadmitted);
        Ok(())
    }

    /// Records that this member has everything that it may have promised: it has caught up, has
    /// promised nothing yet, or an operator has declared its data authoritative.
    pub(crate) async fn settle(&self) -> basalt_fs::Result<()> {
        if self.files.exists(&self.marker).await? {
            self.files.delete_file(&self.marker).await?;
        }
        self.stage.send_replace(Stage::CaughtUp);
        Ok(())
    }

    /// Admits this member, on behalf of a majority with data whose highest term is `floor`, or of
    /// the member `authority`.
    pub(crate) fn admit(&self, floor: u64, authority: Option<u64>) {
        self.stage.send_if_modified(|stage| {
            let is_first = *stage == Stage::Unadmitted;
            if is_first {
                *stage = Stage::Admitted(Admission { floor, authority });
            }
            is_first
        });
    }

    /// Records that the leader of `term` has committed an entry of its own, and everything up to
    /// `index`.
    pub(crate) fn heard_committed(&self, term: u64, index: u64) {
        let zxid = Zxid(i64::try_from(index).unwrap_or(i64::MAX));
        self.stage.send_if_modified(|stage| match *stage {
            Stage::Admitted(admission) if term >= admission.floor => {
                *stage = Stage::Until(admission, zxid);
                true
            }
            _ => false,
        });
    }

    /// Whether this member has everything that it ever promised to keep.
    pub(crate) fn is_caught_up(&self) -> bool {
        *self.stage.borrow() == Stage::CaughtUp
    }

    /// Whether this member has been admitted since it started, or did not need to be.
    pub(crate) fn is_admitted(&self) -> bool {
        *self.stage.borrow() != Stage::Unadmitted
    }

    /// Whether to accept entries from the leader of `term`.
    pub(crate) fn may_follow(&self, term: u64) -> bool {
        match *self.stage.borrow() {
            Stage::Unadmitted => false,
            Stage::Admitted(admission) | Stage::Until(admission, _) => term >= admission.floor,
            Stage::CaughtUp => true,
        }
    }

    /// Whether to vote for `candidate`.
    pub(crate) fn may_vote(&self, candidate: u64) -> bool {
        match *self.stage.borrow() {
            Stage::Unadmitted => false,
            Stage::Admitted(admission) | Stage::Until(admission, _) => {
                admission.authority == Some(candidate)
            }
            Stage::CaughtUp => true,
        }
    }

    /// Waits until this member has caught up. The marker file still exists then.
    pub(crate) async fn caught_up(&self, replica: &Replica) {
        let mut stages = self.stage.subscribe();
        loop {
            let stage = *stages.borrow_and_update();
            match stage {
                Stage::Until(_, committed) => {
                    tokio::select! {
                        biased;
                        // The sender lives as long as `self`.
                        _ = stages.changed() => {}
                        () = replica.wait_applied(committed) => {
                            tracing::info!(%committed, "caught up: this member votes from now on");
                            return;
                        }
                    }
                }
                Stage::Unadmitted | Stage::Admitted(_) | Stage::CaughtUp => {
                    let _changed = stages.changed().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use basalt_fs::MemoryFileSystem;

    use super::*;

    #[tokio::test]
    async fn an_outdated_member_follows_late_leaders_and_votes_for_nobody() {
        let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
        let folder = Path::new("/data");
        files.create_directories(folder).await.unwrap();
        let rejoin = Rejoin::open(Arc::clone(&files), folder).await.unwrap();
        assert!(rejoin.may_vote(2) && rejoin.may_follow(0));
        rejoin.begin().await.unwrap();
        // This also holds after a restart.
        let rejoin = Rejoin::open(files, folder).await.unwrap();
        rejoin.heard_committed(9, 5);
        assert!(!rejoin.may_follow(9), "nobody has admitted it");
        rejoin.admit(7, None);
        assert!(!rejoin.may_follow(6) && rejoin.may_follow(7));
        rejoin.heard_committed(6, 5);
        assert!(matches!(*rejoin.stage.borrow(), Stage::Admitted(_)));
        rejoin.heard_committed(7, 5);
        assert!(matches!(*rejoin.stage.borrow(), Stage::Until(_, Zxid(5))));
        assert!(!rejoin.may_vote(2) && !rejoin.is_caught_up());
        rejoin.settle().await.unwrap();
        assert!(rejoin.may_vote(2));
    }

    #[tokio::test]
    async fn an_authority_gets_the_vote() {
        let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
        let folder = Path::new("/data");
        files.create_directories(folder).await.unwrap();
        let rejoin = Rejoin::open(files, folder).await.unwrap();
        rejoin.begin().await.unwrap();
        rejoin.admit(7, Some(3));
        assert!(rejoin.may_vote(3) && !rejoin.may_vote(2));
    }
}
