//! The only way in which the active master writes to the coordinator.
//!
//! Invariant: every multi from this module checks the version of the epoch's node. A master that
//! was deposed without noticing therefore writes nothing, and learns from the rejection that it is
//! deposed. Its term then ends, and with it every task of that term.

use basalt_cluster::Nodes;
use basalt_failpoint::{Point, reached};
use basalt_model::MasterEpoch;
use basalt_planted::{Rule, is_off};
use basalt_runtime::{Shutdown, WITNESS};
use basalt_zk::proto::{CreateMode, ErrorCode};
use basalt_zk::{Client, Op, OpResult};
use bytes::Bytes;
use tokio::time::Instant;
use tracing::trace;

use crate::error::CommitError;

/// Writes under one epoch. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct EpochGuardedStore {
    client: Client,
    nodes: Nodes,
    epoch: MasterEpoch,
    term: Shutdown,
}

/// The maximum size of a multi: half of what the ZooKeeper protocol accepts by default.
const BATCH_BYTES_MAX: usize = 512 << 10;
/// The size of an operation without its path and data: headers, version, access list. Rounded up.
const OPERATION_BYTES: usize = 64;
/// Reserved in each batch for the checks of the epoch and of a few servers.
const CHECKS_BYTES: usize = 32 << 10;

// === impl EpochGuardedStore ===

impl EpochGuardedStore {
    /// A store for the term that ends when `term` is cancelled.
    pub(crate) fn new(client: Client, nodes: Nodes, epoch: MasterEpoch, term: Shutdown) -> Self {
        Self { client, nodes, epoch, term }
    }

    /// The session, for reads.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The paths of the records.
    pub(crate) fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The epoch that every write checks.
    pub(crate) fn epoch(&self) -> MasterEpoch {
        self.epoch
    }

    /// Cancelled when this master is no longer active.
    pub(crate) fn term(&self) -> &Shutdown {
        &self.term
    }

    /// Applies all of `writes`, or none.
    ///
    /// # Errors
    /// [`CommitError`]. The index of a rejected write counts only `writes`.
    pub(crate) async fn commit(&self, writes: Vec<Op>) -> Result<Vec<OpResult>, CommitError> {
        if self.term.is_cancelled() {
            return Err(CommitError::Deposed);
        }
        let version = (!is_off(Rule::MasterEpoch)).then_some(self.epoch.0 as i32);
        let check = Op::Check { path: self.nodes.master_epoch(), version };
        let mut operations = Vec::with_capacity(writes.len() + 1);
        operations.push(check);
        operations.extend(writes);
        let began = Instant::now();
        match self.client.multi(operations).await {
            Ok(mut results) => {
                let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                trace!(target: WITNESS, epoch = self.epoch.0, took_us, "committed");
                reached(Point::StoreCommitted).await;
                results.remove(0);
                Ok(results)
            }
            Err(basalt_zk::Error::Multi { index: 0, code, .. }) => {
                tracing::error!(epoch = %self.epoch, %code, "another master is active");
                self.term.cancel();
                Err(CommitError::Deposed)
            }
            Err(basalt_zk::Error::Multi { index, code, .. }) => {
                Err(CommitError::Refused { index: index - 1, code })
            }
            Err(error) if error.is_session_over() => {
                tracing::error!(
                    epoch = %self.epoch,
                    %error,
                    "the session is over, so the term ends"
                );
                self.term.cancel();
                Err(CommitError::Deposed)
            }
            Err(error) => Err(CommitError::Unknown(error)),
        }
    }

    /// Checks whether this master is still active, after a hint that it is not.
    pub(crate) async fn verify(&self) {
        let outcome = self.commit(Vec::new()).await;
        tracing::debug!(?outcome, "epoch verified");
    }
}

// === impl CommitError ===

impl CommitError {
    /// Whether the write at `index` was rejected with `code`.
    pub(crate) fn is(&self, index: usize, code: ErrorCode) -> bool {
        matches!(self, Self::Refused { index: i, code: c } if *i == index && *c == code)
    }
}

/// Creates a persistent node.
pub(crate) fn create(path: String, data: Bytes) -> Op {
    Op::Create { path, data, mode: CreateMode::Persistent }
}

/// Replaces the data of a node, if its version is `version`.
pub(crate) fn replace(path: String, data: Bytes, version: i32) -> Op {
    Op::SetData { path, data, version: Some(version) }
}

/// Replaces the data of a node, whatever its version.
pub(crate) fn overwrite(path: String, data: Bytes) -> Op {
    Op::SetData { path, data, version: None }
}

/// Deletes a node, whatever its version.
pub(crate) fn delete(path: String) -> Op {
    Op::Delete { path, version: None }
}

/// Requires that a node exists.
pub(crate) fn exists(path: String) -> Op {
    Op::Check { path, version: None }
}

/// Splits `writes` into batches that each fit into a multi. Keeps their order.
pub(crate) fn batches<T>(writes: Vec<T>, bytes_of: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut batches: Vec<Vec<T>> = Vec::new();
    let mut free = 0;
    for write in writes {
        let bytes = bytes_of(&write);
        match batches.last_mut() {
            Some(batch) if bytes <= free => {
                free -= bytes;
                batch.push(write);
            }
            _ => {
                free = (BATCH_BYTES_MAX - CHECKS_BYTES).saturating_sub(bytes);
                batches.push(vec![write]);
            }
        }
    }
    batches
}

/// An upper bound of the bytes of `operation` in a multi.
pub(crate) fn operation_bytes(operation: &Op) -> usize {
    let data = match operation {
        Op::Create { data, .. } | Op::SetData { data, .. } => data.len(),
        Op::Delete { .. } | Op::Check { .. } => 0,
    };
    OPERATION_BYTES + operation.path().len() + data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_stay_below_the_bound_and_keep_all_in_order() {
        let writes: Vec<Op> = (0..1_000)
            .map(|number| create(format!("/basalt/regions/{number}"), vec![7; 2_000].into()))
            .collect();
        let batches = batches(writes.clone(), operation_bytes);
        assert!(batches.len() > 3, "{} batches", batches.len());
        for batch in &batches {
            let bytes: usize = batch.iter().map(operation_bytes).sum();
            assert!(bytes <= BATCH_BYTES_MAX - CHECKS_BYTES);
        }
        assert_eq!(batches.concat(), writes);
    }

    #[test]
    fn a_thousand_regions_of_a_usual_size_are_one_batch() {
        let writes: Vec<Op> = (0..1_000)
            .map(|n| replace(format!("/basalt/{n:050}"), vec![7; 250].into(), 1))
            .collect();
        assert_eq!(batches(writes, operation_bytes).len(), 1);
        assert_eq!(batches(Vec::new(), operation_bytes).len(), 0);
    }
}
