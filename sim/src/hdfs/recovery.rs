//! Actions that the NameNode and its DataNodes take by themselves: reports, recoveries of files
//! that were taken from their writers, copies of blocks that have lost replicas.

use std::collections::BTreeSet;
use std::time::Duration;

use basalt_hdfs::ReplicaState;

use super::REPLICAS;
use super::state::{FileId, NodeId, NodeState, Recovery, Replica, State};

/// The answer to `recoverLease`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Frozen {
    /// The file is closed with this many bytes.
    Closed(u64),
    /// The file is open, but its writer can no longer begin, complete or record anything.
    Open,
}

/// The delay until a DataNode learns from its heartbeat that it must recover a block.
const HEARTBEAT_MS: std::ops::Range<u64> = 50..1_000;
/// A recovery that has not succeeded after this time is begun again: 30 heartbeats on a real HDFS.
const RECOVERY_MS: std::ops::Range<u64> = 2_000..12_000;
/// The delay of a recovery that is hastened.
const HASTENED_MS: std::ops::Range<u64> = 1..30;
/// The interval between two searches for blocks that have lost replicas.
const COPIES_EVERY: Duration = Duration::from_millis(100);

/// Does the work that is due.
pub(super) fn run_due(state: &mut State) {
    if state.name_node.is_away {
        return;
    }
    report(state);
    if !state.is_in_safe_mode() {
        recover(state);
        copy(state);
    }
}

/// Takes the lease of a file from its writer, and begins its recovery unless one is under way.
pub(super) fn recover_lease(state: &mut State, id: FileId) -> Frozen {
    let (now, recovery_id) = (state.now(), state.next_id());
    let (due, until) = (state.in_ms(HEARTBEAT_MS), state.in_ms(RECOVERY_MS));
    let is_up = |node: &NodeId| state.nodes[*node].state == NodeState::Up;
    let listed = state.files.get(&id).map(|file| file.listed.clone()).unwrap_or_default();
    // The DataNode that was last heard of.
    let primary = listed.iter().copied().find(is_up).or(listed.first().copied());
    let Some(file) = state.files.get_mut(&id) else { return Frozen::Closed(0) };
    if let Some(length) = file.closed {
        return Frozen::Closed(length);
    }
    file.is_taken = true;
    if !file.has_block || (file.recorded == 0 && file.listed.is_empty()) {
        // No byte in it was acknowledged, or no acknowledgement was recorded.
        state.close(id, 0, &BTreeSet::new(), "the NameNode, for it has no block");
        return Frozen::Closed(0);
    }
    if file.recovery.is_none_or(|recovery| now >= recovery.until) {
        file.recovery = Some(Recovery { id: recovery_id, primary, due, until });
    }
    Frozen::Open
}

/// Makes the recoveries of all files that were taken from their writers begin again soon.
pub(super) fn hasten(state: &mut State) {
    let taken = state.files.iter().filter(|(_, file)| file.is_taken && file.closed.is_none());
    for id in taken.map(|(id, _)| *id).collect::<Vec<_>>() {
        if let Some(file) = state.files.get_mut(&id) {
            file.recovery = None;
        }
        recover_lease(state, id);
        let due = state.in_ms(HASTENED_MS);
        let file = state.files.get_mut(&id);
        if let Some(recovery) = file.and_then(|file| file.recovery.as_mut()) {
            recovery.due = due;
        }
    }
}

/// Lets DataNodes report to a NameNode that has restarted.
fn report(state: &mut State) {
    let now = state.now();
    for id in 0..state.nodes.len() {
        let node = &mut state.nodes[id];
        let is_due = node.reports_at.is_some_and(|at| now >= at.max(node.finds_at));
        if !is_due || node.state != NodeState::Up {
            continue;
        }
        node.reports_at = None;
        state.events.push(format!("{} reports to the NameNode", node.name));
        for file in state.files.values_mut().filter(|file| file.closed.is_none()) {
            if file.replicas.contains_key(&id) {
                file.listed.insert(id);
            }
        }
    }
}

/// Runs the recoveries whose DataNode has sent its heartbeat.
fn recover(state: &mut State) {
    let now = state.now();
    let due = state.files.iter().filter_map(|(id, file)| {
        let recovery = file.recovery.filter(|_| file.closed.is_none())?;
        let primary = recovery.primary.filter(|_| now >= recovery.due)?;
        Some((*id, recovery.id, primary))
    });
    for (id, recovery_id, primary) in due.collect::<Vec<_>>() {
        // A DataNode that hangs learns of it when it resumes.
        if state.answers(primary) && state.has_found_replicas(primary) {
            recover_block(state, id, recovery_id);
        }
    }
}

/// The recovery of a block as a DataNode executes it (`BlockRecoveryWorker`). It continues with the
/// DataNodes that answer, even if there is only one.
fn recover_block(state: &mut State, id: FileId, recovery_id: u64) {
    let answers = |node: &NodeId| state.answers(*node) && state.has_found_replicas(*node);
    let listed = state.files.get(&id).map(|file| file.listed.clone()).unwrap_or_default();
    let asked: BTreeSet<NodeId> = listed.into_iter().filter(answers).collect();
    let Some(file) = state.file(id) else { return };
    if let Some(recovery) = &mut file.recovery {
        // Each recovery is tried once.
        recovery.primary = None;
    }
    let found = || file.replicas.iter().filter(|(node, _)| asked.contains(node));
    let is_of_another = |replica: &Replica| replica.recovery.is_some_and(|own| own >= recovery_id);
    if found().any(|(_, replica)| is_of_another(replica)) {
        return;
    }
    let best = found().filter(|(_, replica)| replica.length > 0).map(|(_, replica)| {
        // The smallest value is the best state: FINALIZED, RBW, RWR.
        replica.state as i32
    });
    let Some(best) = best.min() else { return };
    let of_best = found().filter(|(_, replica)| replica.state as i32 == best);
    let of_best = of_best.filter(|(_, replica)| replica.length > 0);
    let length = of_best.clone().map(|(_, replica)| replica.length).min().unwrap_or(0);
    let is_final = best == ReplicaState::Finalized as i32;
    let kept = of_best.filter(|(_, replica)| !is_final || replica.length == length);
    let kept: BTreeSet<NodeId> = kept.map(|(node, _)| *node).collect();
    state.close(id, length, &kept, "the NameNode's recovery");
}

/// Copies blocks of closed files that have lost replicas, while at least one replica remains.
fn copy(state: &mut State) {
    let now = state.now();
    if now < state.copies_at {
        return;
    }
    state.copies_at = now + COPIES_EVERY;
    let there: Vec<NodeId> =
        (0..state.nodes.len()).filter(|node| !state.is_silent(*node)).collect();
    let up: BTreeSet<NodeId> = there.iter().copied().filter(|node| state.answers(*node)).collect();
    let lacking = state.files.iter().filter_map(|(id, file)| {
        let length = file.closed.filter(|length| *length > 0 && file.gone_at.is_none())?;
        let replicas = file.replicas.keys().filter(|node| there.contains(node)).count();
        let has_source = file.replicas.keys().any(|node| up.contains(node));
        (has_source && replicas < REPLICAS).then(|| (*id, length, REPLICAS - replicas))
    });
    for (id, length, lacking) in lacking.collect::<Vec<_>>() {
        let Some(file) = state.files.get_mut(&id) else { continue };
        let targets = up.iter().filter(|node| !file.replicas.contains_key(node));
        for node in targets.take(lacking).copied().collect::<Vec<_>>() {
            let mut replica = Replica::new();
            replica.stop();
            replica.state = ReplicaState::Finalized;
            replica.length = length;
            file.replicas.insert(node, replica);
            file.listed.insert(node);
        }
    }
}
