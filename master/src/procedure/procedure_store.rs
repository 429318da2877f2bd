//! The procedures of the cluster: in memory as they lie in the coordinator.
//!
//! Only the active master writes them, and every write is tried until its outcome is known, so
//! that memory and coordinator never disagree for long. Ids are `epoch << 32 | number`: they
//! ascend over the cluster's whole life and are never used again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use basalt_model::{FeatureLevel, MasterEpoch, ServerName, TableName};
use basalt_zk::Op;
use basalt_zk::proto::ErrorCode;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;

use super::record::{Nonce, Procedure, Work};
use crate::epoch_guarded_store::{self, EpochGuardedStore};
use crate::error::{CommitError, StepError};

/// How many procedures of clients may be unfinished.
pub(crate) const UNFINISHED_MAX: usize = 256;
/// How many finished procedures are kept at most.
const FINISHED_MAX: usize = 512;
/// How long a finished procedure is kept for those who ask how it went.
const KEPT_MS: u64 = 15 * 60 * 1_000;
/// The pause before a write whose outcome is unknown is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How many records are read at a time.
const READS_AT_ONCE: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct ProcedureStore {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    procedures: BTreeMap<u64, Procedure>,
    /// Procedures that have ended, and whose clients are not told so yet.
    not_shown: BTreeSet<u64>,
    next_id: u64,
}

// === impl ProcedureStore ===

impl ProcedureStore {
    /// What the masters before this one have left, for one that knows the feature levels up to
    /// `known`.
    ///
    /// # Errors
    /// The coordinator cannot be read, or holds a record that is none.
    pub(crate) async fn load(
        store: &EpochGuardedStore,
        known: FeatureLevel,
    ) -> Result<Self, StepError> {
        let nodes = store.nodes();
        let (children, _) = store.client().get_children(&nodes.procedures()).await?;
        let ids = children.iter().filter_map(|name| name.parse::<u64>().ok());
        let reads: Vec<_> = ids.map(|id| read(store, id, known)).collect();
        let found: Vec<_> =
            futures::stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
        let procedures: BTreeMap<u64, Procedure> = found.into_iter().flatten().collect();
        let ended = procedures.iter().filter(|(_, procedure)| procedure.is_finished());
        let not_shown = ended.map(|(id, _)| *id).collect();
        let entries = Entries { procedures, not_shown, next_id: first_id(store.epoch()) };
        Ok(Self { entries: Mutex::new(entries) })
    }

    /// Takes on `work`, together with `writes` that must happen with it. Gives the procedure's id.
    ///
    /// # Errors
    /// A refusal's index counts `writes` alone.
    pub(crate) async fn submit(
        &self,
        store: &EpochGuardedStore,
        procedure: Procedure,
        writes: Vec<Op>,
    ) -> Result<u64, CommitError> {
        let id = {
            let mut entries = self.entries.lock();
            entries.next_id += 1;
            entries.next_id
        };
        let mut operations =
            vec![epoch_guarded_store::create(store.nodes().procedure(id), procedure.encode())];
        operations.extend(writes);
        loop {
            match store.commit(operations.clone()).await {
                Ok(_) => break,
                // The id is ours alone: an earlier try did take effect.
                Err(error) if error.is(0, ErrorCode::NodeExists) => break,
                Err(CommitError::Refused { index, code }) => {
                    return Err(CommitError::Refused { index: index.saturating_sub(1), code });
                }
                Err(CommitError::Deposed) => return Err(CommitError::Deposed),
                Err(CommitError::Unknown(error)) => retry_later("submit", &error).await,
            }
        }
        self.entries.lock().procedures.insert(id, procedure);
        Ok(id)
    }

    /// Writes what has become of procedure `id`, together with `writes`, which must be such that
    /// doing them twice does no harm.
    ///
    /// # Errors
    /// [`CommitError::Deposed`], or a refusal, whose index counts `writes` alone.
    pub(crate) async fn update(
        &self,
        store: &EpochGuardedStore,
        id: u64,
        procedure: Procedure,
        writes: Vec<Op>,
    ) -> Result<(), CommitError> {
        let record =
            epoch_guarded_store::overwrite(store.nodes().procedure(id), procedure.encode());
        let mut operations = vec![record];
        operations.extend(writes);
        loop {
            match store.commit(operations.clone()).await {
                Ok(_) => break,
                Err(CommitError::Refused { index, code }) => {
                    return Err(CommitError::Refused { index: index.saturating_sub(1), code });
                }
                Err(CommitError::Deposed) => return Err(CommitError::Deposed),
                Err(CommitError::Unknown(error)) => retry_later("update", &error).await,
            }
        }
        let mut entries = self.entries.lock();
        if procedure.is_finished() && procedure.work.table().is_some() {
            entries.not_shown.insert(id);
        }
        entries.procedures.insert(id, procedure);
        Ok(())
    }

    /// Procedures that have ended and whose clients are not to know it yet.
    pub(crate) fn not_shown(&self) -> BTreeSet<u64> {
        self.entries.lock().not_shown.clone()
    }

    /// From now on clients of procedure `id` may know that it has ended.
    pub(crate) fn shown(&self, id: u64) {
        self.entries.lock().not_shown.remove(&id);
    }

    /// Procedure `id` as its client may know it: one whose end is not shown yet still runs.
    pub(crate) fn as_shown(&self, id: u64) -> Option<Procedure> {
        let entries = self.entries.lock();
        let mut procedure = entries.procedures.get(&id).cloned()?;
        if entries.not_shown.contains(&id) {
            procedure.outcome = None;
        }
        Some(procedure)
    }

    /// All procedures, the oldest first.
    pub(crate) fn all(&self) -> BTreeMap<u64, Procedure> {
        self.entries.lock().procedures.clone()
    }

    /// Procedure `id`.
    pub(crate) fn get(&self, id: u64) -> Option<Procedure> {
        self.entries.lock().procedures.get(&id).cloned()
    }

    /// The procedure that a request with `nonce` started before.
    pub(crate) fn with_nonce(&self, nonce: Nonce) -> Option<u64> {
        let entries = self.entries.lock();
        entries.procedures.iter().find(|(_, p)| p.nonce == Some(nonce)).map(|(id, _)| *id)
    }

    /// All that are not finished, the oldest first.
    pub(crate) fn unfinished(&self) -> Vec<(u64, Procedure)> {
        let entries = self.entries.lock();
        let unfinished = entries.procedures.iter().filter(|(_, p)| !p.is_finished());
        unfinished.map(|(id, procedure)| (*id, procedure.clone())).collect()
    }

    /// The servers whose recovery is not finished, with its id.
    pub(crate) fn recovering(&self) -> BTreeMap<ServerName, u64> {
        let entries = self.entries.lock();
        let unfinished = entries.procedures.iter().filter(|(_, p)| !p.is_finished());
        let servers = unfinished.filter_map(|(id, procedure)| match &procedure.work {
            Work::RecoverServer(recovery) => Some((recovery.server.clone(), *id)),
            _ => None,
        });
        servers.collect()
    }

    /// Whether a procedure on `table` is not finished.
    pub(crate) fn is_busy(&self, table: &TableName) -> bool {
        let entries = self.entries.lock();
        entries.procedures.values().any(|p| !p.is_finished() && p.work.table() == Some(table))
    }

    /// Drops those that nobody will ask for any more.
    ///
    /// # Errors
    /// [`CommitError::Deposed`].
    pub(crate) async fn drop_old(
        &self,
        store: &EpochGuardedStore,
        now_ms: u64,
    ) -> Result<(), CommitError> {
        let old = old_ones(&self.entries.lock().procedures, now_ms);
        for id in old {
            match store.commit(vec![epoch_guarded_store::delete(store.nodes().procedure(id))]).await
            {
                Err(CommitError::Deposed) => return Err(CommitError::Deposed),
                Err(CommitError::Unknown(_)) => {}
                Ok(_) | Err(CommitError::Refused { .. }) => {
                    let mut entries = self.entries.lock();
                    entries.procedures.remove(&id);
                    entries.not_shown.remove(&id);
                }
            }
        }
        Ok(())
    }
}

/// Procedure `id`, if it is there.
async fn read(
    store: &EpochGuardedStore,
    id: u64,
    known: FeatureLevel,
) -> Result<Option<(u64, Procedure)>, StepError> {
    match store.client().find_data(&store.nodes().procedure(id)).await? {
        Some((data, _)) => Ok(Some((id, Procedure::decode(&data, known)?))),
        None => Ok(None),
    }
}

/// The first id of a term; no id of an earlier term is as high.
fn first_id(epoch: MasterEpoch) -> u64 {
    epoch.0 << 32
}

/// The finished ones whose time is over, and the oldest of those that are too many.
fn old_ones(procedures: &BTreeMap<u64, Procedure>, now_ms: u64) -> Vec<u64> {
    let finished: Vec<_> = procedures.iter().filter(|(_, p)| p.is_finished()).collect();
    let too_many = finished.len().saturating_sub(FINISHED_MAX);
    let old = finished.iter().enumerate().filter(|(place, (_, procedure))| {
        let is_recovery = matches!(procedure.work, Work::RecoverServer(_));
        let is_over = procedure.updated_ms.saturating_add(KEPT_MS) < now_ms;
        // Nobody asks for a recovery by its procedure; it has a record of its own.
        *place < too_many || is_recovery || is_over
    });
    old.map(|(_, (id, _))| **id).collect()
}

async fn retry_later(what: &'static str, error: &basalt_zk::Error) {
    tracing::warn!(%error, "{what} procedure: outcome unknown; retrying");
    tokio::time::sleep(RETRY_PAUSE).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procedure::record::ProcedureOutcome;
    use crate::procedure::record::tests::recovery;

    fn finished(updated_ms: u64) -> Procedure {
        let work = Work::EnableTable { table: "t".parse().unwrap() };
        let mut procedure = Procedure::new(work, None, updated_ms);
        procedure.outcome = Some(ProcedureOutcome::Done);
        procedure
    }

    #[test]
    fn results_are_kept_for_a_quarter_of_an_hour() {
        let mut running = finished(0);
        running.outcome = None;
        let procedures = [(1, finished(0)), (2, finished(1_000)), (3, running)].into();
        assert_eq!(old_ones(&procedures, KEPT_MS + 500), [1]);
    }

    #[test]
    fn the_oldest_of_too_many_results_are_dropped() {
        let procedures = (0..FINISHED_MAX as u64 + 3).map(|id| (id, finished(5))).collect();
        assert_eq!(old_ones(&procedures, 5), [0, 1, 2]);
    }

    #[test]
    fn a_finished_recovery_is_not_kept() {
        let mut procedure = Procedure::new(Work::RecoverServer(recovery("a")), None, 5);
        assert_eq!(old_ones(&[(1, procedure.clone())].into(), 5), [0_u64; 0]);
        procedure.outcome = Some(ProcedureOutcome::Done);
        assert_eq!(old_ones(&[(1, procedure)].into(), 5), [1]);
    }

    #[test]
    fn ids_of_a_later_term_are_higher() {
        assert!(first_id(MasterEpoch(2)) > first_id(MasterEpoch(1)) + 1_000_000);
    }
}
