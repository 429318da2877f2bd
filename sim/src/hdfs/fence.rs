//! Takes a file away from its writer, following the steps of `crates/hdfs/src/fence`. That crate
//! decides where the file ends.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use basalt_fs::Result;
use basalt_hdfs::{Asked, Decision, Member, REPLICAS_TO_CLOSE, ReplicaState, decide};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, timeout_at};

use super::client::{Call, HdfsClient};
use super::recovery::{Frozen, recover_lease};
use super::state::{FileId, NodeId, NodeState, Replica, State, failed};
use super::{CALL_DEADLINE, HANGING_PAUSE, SOCKET_TIMEOUT};

/// A file whose writer can get no more bytes acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Fenced {
    pub(super) length: u64,
    pub(super) is_closed: bool,
    pub(super) may_shrink: bool,
    /// Whether the NameNode's own recovery closed it.
    pub(super) is_by_recovery: bool,
}

/// The block of a file, as the NameNode lists it.
#[derive(Clone, Debug)]
struct Located {
    id: FileId,
    listed: BTreeSet<NodeId>,
    recorded: u64,
    /// The length of the file, if it is closed.
    closed: Option<u64>,
}

/// The result of the calls to one DataNode.
#[derive(Clone, Copy, Debug)]
struct Answer {
    node: NodeId,
    /// The acknowledged length, if the writer is stopped.
    stopped: Option<u64>,
    /// The replica, if it is ours to recover. The inner `None` means that there is no replica.
    replica: Option<Option<(ReplicaState, u64)>>,
    is_unreachable: bool,
}

/// How a DataNode reacts to a call.
enum Reached {
    Answers,
    /// No connection is possible.
    Nowhere,
    /// It did not answer in time.
    Silent,
}

/// How long one step on one DataNode may take.
const STEP_TIMEOUT: Duration = SOCKET_TIMEOUT.saturating_mul(2);
/// How long to wait for the other DataNodes once enough have answered to close the file.
const PATIENCE: Duration = Duration::from_millis(100);
/// The interval between two checks of whether a file is closed.
const POLL_PAUSE: Duration = Duration::from_millis(50);
/// The interval between two calls of `recoverLease` for a file that stays open.
const RECOVER_PAUSE: Duration = Duration::from_secs(1);
const CLOSE_LATER_ATTEMPTS: u32 = 300;

/// Fences the file at `path`. Any process may repeat this at any time.
pub(super) async fn fence(client: &HdfsClient, path: &Path) -> Result<Fenced> {
    let closed = |length, is_by_recovery| Fenced {
        length,
        is_closed: true,
        may_shrink: false,
        is_by_recovery,
    };
    if let Frozen::Closed(length) = freeze(client, path).await? {
        return Ok(closed(length, false));
    }
    let last = locate(client, path).await?;
    if let Some(length) = last.closed {
        return Ok(closed(length, false));
    }
    let fencing = Fencing { client, path, last: &last };
    match fencing.stop().await {
        Stopped::Closed(length) => Ok(closed(length, false)),
        Stopped::Open { block_length: Some(length), is_everywhere } => {
            close_later(client, path);
            let may_shrink = !is_everywhere;
            Ok(Fenced { length, is_closed: false, may_shrink, is_by_recovery: false })
        }
        Stopped::Open { block_length: None, .. } => {
            Ok(closed(wait_until_closed(client, path).await?, true))
        }
    }
}

enum Stopped {
    Closed(u64),
    Open { block_length: Option<u64>, is_everywhere: bool },
}

struct Fencing<'a> {
    client: &'a HdfsClient,
    path: &'a Path,
    last: &'a Located,
}

// === impl Fencing ===

impl Fencing<'_> {
    /// Stops the writer, and closes the file if it can.
    async fn stop(&self) -> Stopped {
        let recovery_id = self.recovery_id().await.ok();
        let enough = match recovery_id {
            Some(_) => self.last.listed.len().min(REPLICAS_TO_CLOSE),
            None => self.last.listed.len(),
        };
        let answers = self.gather(enough, |node| self.ask_one(node, recovery_id)).await;
        let mut block_length = answers.iter().filter_map(|answer| answer.stopped).min();
        let mut is_everywhere = self.are_all_stopped(&answers);
        if let Some(recovery_id) = recovery_id
            && let Some(length) = self.close(recovery_id, &answers, block_length).await
        {
            return Stopped::Closed(length);
        }
        if !is_everywhere && !answers.iter().any(|answer| answer.is_unreachable) {
            // A recovery that was begun earlier has stopped the writer too.
            let listed = self.last.listed.len();
            let answers = self.gather(listed, |node| self.ask_under_recovery(node)).await;
            if self.are_all_stopped(&answers) {
                block_length = answers.iter().filter_map(|answer| answer.stopped).min();
                is_everywhere = true;
            }
        }
        Stopped::Open { block_length, is_everywhere }
    }

    /// The id that the NameNode assigned to the recovery.
    async fn recovery_id(&self) -> Result<u64> {
        let (id, path) = (self.last.id, self.path);
        let ask = |state: &mut State| {
            let recovery = state.files.get(&id).and_then(|file| file.recovery);
            let recovery = recovery.ok_or_else(|| failed(path, "seal", "it has no recovery"));
            Ok(recovery?.id)
        };
        self.client.call(Call::Change, path, "seal", ask).await
    }

    /// Asks all DataNodes concurrently. Once `enough` replicas are ours, waits only [`PATIENCE`]
    /// for the others.
    async fn gather<F: Future<Output = Answer>>(
        &self,
        enough: usize,
        ask: impl Fn(NodeId) -> F,
    ) -> Vec<Answer> {
        let mut stop_writer: FuturesUnordered<_> =
            self.last.listed.iter().copied().map(ask).collect();
        let (mut answers, mut ours) = (Vec::new(), 0);
        let mut deadline = Instant::now() + 4 * STEP_TIMEOUT;
        while let Ok(Some(answer)) = timeout_at(deadline, stop_writer.next()).await {
            let is_ours = matches!(answer.replica, Some(Some(_)));
            answers.push(answer);
            ours += usize::from(is_ours);
            if is_ours && ours == enough {
                deadline = Instant::now() + PATIENCE;
            }
        }
        answers
    }

    /// Takes over the replica of a DataNode, then begins the recovery.
    async fn ask_one(&self, node: NodeId, recovery_id: Option<u64>) -> Answer {
        let mut answer = Answer { node, stopped: None, replica: None, is_unreachable: false };
        match self.reach(node).await {
            Reached::Nowhere => return Answer { is_unreachable: true, ..answer },
            Reached::Silent => {}
            Reached::Answers => {
                let stop = |replica: &mut Replica| {
                    replica.stop();
                    // Only a replica that is being written can be taken over.
                    let is_written = replica.state == ReplicaState::Rbw;
                    (is_written && replica.recovery.is_none()).then_some(replica.length)
                };
                answer.stopped = self.on_replica(node, stop).flatten();
            }
        }
        let Some(id) = recovery_id else { return answer };
        match self.reach(node).await {
            Reached::Nowhere => answer.is_unreachable = true,
            Reached::Silent => {}
            Reached::Answers => {
                let begin = |replica: &mut Replica| {
                    replica.stop();
                    let is_free = replica.recovery.is_none_or(|other| other < id);
                    is_free.then(|| {
                        replica.recovery = Some(id);
                        (replica.state, replica.length)
                    })
                };
                answer.replica = match self.on_replica(node, begin) {
                    Some(begun) => begun.map(Some),
                    None => Some(None),
                };
            }
        }
        answer
    }

    /// Asks a DataNode for the length of a replica whose recovery was begun and not ended.
    async fn ask_under_recovery(&self, node: NodeId) -> Answer {
        let mut stopped = None;
        if matches!(self.reach(node).await, Reached::Answers) {
            let stop = |replica: &mut Replica| {
                replica.stop();
                // A DataNode that restarted does not know how much it had acknowledged.
                (!replica.is_of_restarted()).then_some(replica.length)
            };
            stopped = self.on_replica(node, stop).flatten();
        }
        Answer { node, stopped, replica: None, is_unreachable: false }
    }

    /// Closes the file with the replicas that are ours to recover. Returns its length.
    async fn close(
        &self,
        recovery_id: u64,
        answers: &[Answer],
        block_length: Option<u64>,
    ) -> Option<u64> {
        let answered = answers.iter().filter(|answer| answer.replica.is_some()).count();
        let listed = self.last.listed.len();
        let asked = Asked { recorded: self.last.recorded, listed, answered };
        let found = answers.iter().filter_map(|answer| {
            let (state, bytes) = answer.replica.flatten()?;
            Some(Member { replica: answer.node, state, bytes })
        });
        let (members, length) = match decide(found.collect(), asked, block_length) {
            Decision::Keep { members, length } => (members, length),
            Decision::Delete => (Vec::new(), 0),
            Decision::Wait { .. } => return None,
        };
        let is_deleted = members.is_empty();
        let updating = members.iter().map(|member| async move {
            let end = |replica: &mut Replica| {
                replica.length = length;
                replica.state = ReplicaState::Finalized;
            };
            let is_reached = matches!(self.reach(member.replica).await, Reached::Answers);
            let ended = is_reached.then(|| self.on_replica(member.replica, end)).flatten();
            ended.map(|()| member.replica)
        });
        let kept: BTreeSet<NodeId> = join_all(updating).await.into_iter().flatten().collect();
        if !is_deleted && kept.len() < listed.min(REPLICAS_TO_CLOSE) {
            return None;
        }
        let (id, path) = (self.last.id, self.path);
        let commit = |state: &mut State| match state.files.get(&id) {
            Some(file) if file.closed.is_some() => Ok(()),
            Some(file) if file.recovery.is_some_and(|recovery| recovery.id == recovery_id) => {
                state.close(id, length, &kept, "a fence");
                Ok(())
            }
            _ => Err(failed(path, "seal", "the recovery id does not match")),
        };
        self.client.call(Call::Change, path, "seal", commit).await.ok().map(|()| length)
    }

    fn are_all_stopped(&self, answers: &[Answer]) -> bool {
        let stopped = answers.iter().filter(|answer| answer.stopped.is_some()).count();
        let listed = self.last.listed.len();
        listed > 0 && stopped == listed
    }

    /// Calls a DataNode and waits for its reaction.
    async fn reach(&self, node: NodeId) -> Reached {
        let deadline = Instant::now() + STEP_TIMEOUT;
        loop {
            self.client.one_way().await;
            let is = self.client.state().nodes[node].state;
            match is {
                NodeState::Up => return Reached::Answers,
                NodeState::Down => {
                    self.client.node_failed(node);
                    return Reached::Nowhere;
                }
                NodeState::Hangs if Instant::now() >= deadline => {
                    self.client.node_failed(node);
                    return Reached::Silent;
                }
                NodeState::Hangs => sleep(HANGING_PAUSE).await,
            }
        }
    }

    /// Applies `act` to the replica of a DataNode. Does nothing if it has none, or has not found it
    /// yet.
    fn on_replica<T>(&self, node: NodeId, act: impl FnOnce(&mut Replica) -> T) -> Option<T> {
        let mut state = self.client.state();
        if !state.has_found_replicas(node)
            || state.check_alive(self.client.holder(), self.path).is_err()
        {
            return None;
        }
        state.file(self.last.id)?.replicas.get_mut(&node).map(act)
    }
}

/// From now on, the NameNode lets no other process change the file.
async fn freeze(client: &HdfsClient, path: &Path) -> Result<Frozen> {
    let freeze = |state: &mut State| {
        let id = state.id_of(path)?;
        Ok(recover_lease(state, id))
    };
    client.call(Call::Change, path, "seal", freeze).await
}

async fn locate(client: &HdfsClient, path: &Path) -> Result<Located> {
    let locate = |state: &mut State| {
        let (id, file) = state.file_at(path)?;
        let (listed, recorded, closed) = (file.listed.clone(), file.recorded, file.closed);
        Ok(Located { id, listed, recorded, closed })
    };
    client.call(Call::Read, path, "seal", locate).await
}

/// Waits for the NameNode's own recovery.
async fn wait_until_closed(client: &HdfsClient, path: &Path) -> Result<u64> {
    let deadline = Instant::now() + CALL_DEADLINE;
    loop {
        if let Some(length) = locate(client, path).await?.closed {
            return Ok(length);
        }
        if Instant::now() >= deadline {
            return Err(failed(path, "seal", format!("not closed within {CALL_DEADLINE:?}")));
        }
        sleep(POLL_PAUSE).await;
    }
}

/// Asks the NameNode to recover the file again and again until it is closed.
fn close_later(client: &HdfsClient, path: &Path) {
    let (client, path) = (client.clone(), path.to_owned());
    tokio::spawn(async move {
        for _ in 0..CLOSE_LATER_ATTEMPTS {
            sleep(RECOVER_PAUSE).await;
            match freeze(&client, &path).await {
                Ok(Frozen::Closed(_)) => return,
                Err(error) if error.is_not_found() => return,
                _ => {}
            }
        }
    });
}
