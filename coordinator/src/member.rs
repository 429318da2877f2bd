//! A running member: the state that its tasks share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::time::Duration;

use basalt_runtime::Seams;
use basalt_zk::proto::{SessionId, Zxid};
use futures::{FutureExt, StreamExt};
use openraft::ReadPolicy;
use openraft::error::Fatal;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tonic::Status;

use crate::config::Config;
use crate::ensemble::{Ensemble, Standing, majority};
use crate::expiry::Expiry;
use crate::outgoing::QueueBudget;
use crate::raft::log::Log;
use crate::raft::types::TypeConfig;
use crate::raft::{Peers, Raft, Terms};
use crate::rejoin::Rejoin;
use crate::replica::Replica;
use crate::tree::Command;
use crate::wire::v1;

/// The state that the tasks of a member share.
pub(crate) struct Member {
    pub(crate) config: Config,
    pub(crate) seams: Seams,
    pub(crate) raft: Raft,
    /// The log that `raft` writes, for its size, its space and its term.
    pub(crate) log: Log,
    pub(crate) replica: Arc<Replica>,
    pub(crate) peers: Peers,
    /// Who leads, as far as this member knows.
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) expiry: Expiry,
    pub(crate) rejoin: Rejoin,
    /// Which ensemble this member belongs to.
    pub(crate) ensemble: Ensemble,
    /// What this member knows about itself and about the others.
    pub(crate) standing: Standing,
    /// The last checkpoint of each other member's state.
    pub(crate) checkpoints: Mutex<BTreeMap<u64, v1::Checkpoint>>,
    /// The other members whose logs have space left only for sessions that hold leases.
    pub(crate) short_of_room: Mutex<BTreeSet<u64>>,
    /// The other members that did not answer the last greeting.
    pub(crate) unreachable: Mutex<BTreeSet<u64>>,
    /// Whether this member's state differs from the others', so that it must not serve.
    pub(crate) state_differs: AtomicBool,
    /// Whether this start's state has been compared with the states of enough others. Until then it
    /// serves no clients.
    pub(crate) state_is_compared: AtomicBool,
    pub(crate) terms: Terms,
    /// The sessions that have shown signs of life here since the last report to the leader.
    pub(crate) touched: Mutex<BTreeSet<SessionId>>,
    /// Whether clients are served (see `leader_contact`).
    pub(crate) serving: watch::Sender<bool>,
    /// When a leader last confirmed that it leads.
    pub(crate) contact: Mutex<Instant>,
    pub(crate) connection_count: AtomicUsize,
    /// The bytes that are queued for all clients.
    pub(crate) queued: Arc<QueueBudget>,
    /// The memory for long frames of clients while they are received, in bytes.
    pub(crate) incoming: Semaphore,
    pub(crate) latency: Latency,
}

/// The leader, if there is one, and the term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    pub(crate) term: u64,
    pub(crate) leader: Option<u64>,
}

/// How long writes have taken.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    pub(crate) count: AtomicU64,
    pub(crate) total_us: AtomicU64,
    pub(crate) max_us: AtomicU64,
}

/// How long a member waits before it retries.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// A command that is not applied within this time is sent again, whatever else happened.
const RESEND_AFTER: Duration = Duration::from_secs(2);

// === impl Member ===

impl Member {
    /// The id of this member.
    pub(crate) fn id(&self) -> u64 {
        self.config.member_id
    }

    /// Whether this member leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.leadership.borrow().leader == Some(self.id())
    }

    /// Whether only sessions that hold leases may write: the disks of some members are full, and
    /// the others alone are not a majority. A member that is unreachable does not count towards a
    /// majority either.
    pub(crate) fn keeps_room_for_leases(&self) -> bool {
        let is_short = self.log.room().is_for_leases();
        let mut helpless = self.short_of_room.lock().clone();
        if !is_short && helpless.is_empty() {
            return false;
        }
        helpless.extend(self.unreachable.lock().iter());
        let members = self.config.members.len();
        members.saturating_sub(helpless.len() + usize::from(is_short)) < majority(members)
    }

    /// Rejects a request that must be written to the log while the log waits for disk space.
    /// Consensus would wait with it, and would not answer anything else.
    pub(crate) fn check_room(&self) -> Result<(), Status> {
        match self.log.room().is_used_up() {
            true => Err(Status::resource_exhausted("the disk of this member is full")),
            false => Ok(()),
        }
    }

    /// Records that the session has shown a sign of life.
    pub(crate) fn touch(&self, session: SessionId) {
        self.touched.lock().insert(session);
    }

    /// Sends this member's commands to the leader, in order. Sends them again if they may have been
    /// lost.
    pub(crate) async fn propose_all(&self) {
        let mut leadership = self.leadership.clone();
        let mut sent_under = Leadership::default();
        let proposals = &self.replica.proposals;
        loop {
            tokio::select! {
                biased;
                changed = leadership.changed() => if changed.is_err() {
                    return;
                },
                () = proposals.added() => {}
                () = tokio::time::sleep(RESEND_AFTER) => {
                    self.rise_above_earlier_lives();
                    let waiting = proposals.oldest_age();
                    if waiting > RESEND_AFTER {
                        tracing::warn!(?waiting, "commands were not applied; resending them");
                        proposals.rewind();
                    }
                }
            }
            // Compare, and do not infer it from `changed`: a change may come at any point of this
            // loop.
            let now = *leadership.borrow_and_update();
            if now != sent_under {
                sent_under = now;
                proposals.rewind();
            }
            let Some(leader) = now.leader else {
                continue;
            };
            self.rise_above_earlier_lives();
            while let Some(batch) = proposals.unsent() {
                match self.propose_to(leader, batch.commands).await {
                    Ok(()) => proposals.mark_sent(batch.last),
                    Err(status) => {
                        tracing::debug!(leader, %status, "the leader did not accept commands");
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
                // Commands that were sent to a former leader are sent again above.
                if leadership.has_changed().unwrap_or(true) {
                    break;
                }
            }
        }
    }

    /// Begins a later life if this member turns out to have had one. That happens if it lost its
    /// disk and its clock is now behind. Commands of an earlier life are not applied.
    fn rise_above_earlier_lives(&self) {
        let applied = self.replica.read(|state, _| state.pipeline(self.id()));
        if let Some(applied) = applied
            && let Some(life) = self.replica.proposals.rise_above(applied.life, applied.number)
        {
            tracing::warn!(
                life,
                "this member's clock is behind the clock of an earlier life: it begins a later life"
            );
        }
    }

    async fn propose_to(&self, leader: u64, commands: Vec<Command>) -> Result<(), Status> {
        if leader == self.id() {
            return self.propose_as_leader(commands).await;
        }
        let commands = commands.into_iter().map(Into::into).collect();
        self.peers.propose(leader, commands).await
    }

    /// Appends commands to the log, in order, all or none, if this member leads. Once accepted,
    /// they are lost only by a change of leader, after which their origin sends them again.
    pub(crate) async fn propose_as_leader(&self, commands: Vec<Command>) -> Result<(), Status> {
        self.check_room()?;
        let stopped = |fatal: Fatal<TypeConfig>| Status::unavailable(fatal.to_string());
        let time_ms = self.seams.clock.wall_ms();
        let commands = commands.into_iter().map(|command| Command { time_ms, ..command });
        let mut outcomes = self.raft.client_write_many(commands).await.map_err(stopped)?;
        // Consensus may reject commands while the term stays the same: a leader that was just
        // elected, or has not been confirmed lately, accepts no writes. Consensus handles messages
        // in order. So once it has answered this one, a rejection has arrived, and accepted
        // commands are still in progress.
        self.raft.with_raft_state(|_| ()).await.map_err(stopped)?;
        match outcomes.next().now_or_never() {
            Some(Some(Ok(Err(refusal)))) => Err(Status::failed_precondition(refusal.to_string())),
            Some(Some(Err(fatal))) => Err(stopped(fatal)),
            _ => Ok(()),
        }
    }

    /// The index that a linearizable read has to wait for, if this member leads.
    pub(crate) async fn read_index_as_leader(&self) -> Result<u64, Status> {
        let read = self.raft.get_read_log_id(ReadPolicy::ReadIndex).await;
        let (read, _) = read.map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(read.index())
    }

    /// Waits until this member has applied everything that any member had committed when this was
    /// called.
    pub(crate) async fn sync(&self) {
        loop {
            let leader = self.leadership.borrow().leader;
            let index = match leader {
                Some(leader) if leader == self.id() => self.read_index_as_leader().await,
                Some(leader) => self.peers.read_index(leader).await,
                None => Err(Status::unavailable("there is no leader")),
            };
            match index {
                Ok(index) => {
                    let wanted = Zxid(i64::try_from(index).unwrap_or(i64::MAX));
                    return self.replica.wait_applied(wanted).await;
                }
                Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
    }
}
