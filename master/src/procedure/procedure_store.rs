//! The procedures of the cluster, as an in-memory copy of their records in the coordinator.
//!
//! Only the active master writes the records, and it repeats every write until the outcome is
//! known, so the copy and the coordinator never differ for long. Ids are `epoch << 32 | number`.
//! They ascend over the whole life of the cluster and are never reused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use basalt_model::{FeatureLevel, MasterEpoch, ServerName, TableName};
use basalt_zk::Op;
use basalt_zk::proto::ErrorCode;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::record::{Nonce, Procedure, Work};
use crate::epoch_guarded_store::{self, EpochGuardedStore};
use crate::error::{CommitError, StepError};

/// The maximum number of unfinished client procedures.
pub(crate) const UNFINISHED_MAX: usize = 256;
/// The maximum number of finished procedures that are kept.
const FINISHED_MAX: usize = 512;
/// How long a finished procedure is kept for clients that ask for its result.
const KEPT: Duration = Duration::from_mins(15);
/// The pause before a write with an unknown outcome is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How many records are read at once.
const READS_AT_ONCE: usize = 64;

/// The store of procedures; see the module.
#[derive(Debug)]
pub(crate) struct ProcedureStore {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    procedures: BTreeMap<u64, Procedure>,
    /// Procedures that have ended, but whose end is not yet visible to clients.
    not_shown: BTreeSet<u64>,
    /// When this master learnt that a procedure had ended. The wall-clock times in the records may
    /// be of a master whose clock is wrong.
    ended: BTreeMap<u64, Instant>,
    next_id: u64,
}

// === impl ProcedureStore ===

impl ProcedureStore {
    /// Loads the procedures of earlier masters, for a master that knows the feature levels up to
    /// `known`.
    ///
    /// # Errors
    /// The coordinator cannot be read, or holds an invalid record.
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
        let not_shown: BTreeSet<u64> = ended.map(|(id, _)| *id).collect();
        let now = Instant::now();
        let ended = not_shown.iter().map(|id| (*id, now)).collect();
        let entries = Entries { procedures, not_shown, ended, next_id: first_id(store.epoch()) };
        Ok(Self { entries: Mutex::new(entries) })
    }

    /// Records `procedure` together with `writes`, in one multi. Returns the procedure's id.
    ///
    /// # Errors
    /// [`CommitError::Refused`], whose index counts only `writes`, or [`CommitError::Deposed`].
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
                // No one else uses this id, so an earlier attempt took effect.
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

    /// Records the new state of procedure `id` together with `writes`, in one multi. `writes` must
    /// be idempotent.
    ///
    /// # Errors
    /// [`CommitError::Deposed`], or [`CommitError::Refused`], whose index counts only `writes`.
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
        if procedure.is_finished() {
            entries.ended.insert(id, Instant::now());
            if procedure.work.table().is_some() {
                entries.not_shown.insert(id);
            }
        }
        entries.procedures.insert(id, procedure);
        Ok(())
    }

    /// Procedures that have ended, but whose end must not be visible to clients yet.
    pub(crate) fn not_shown(&self) -> BTreeSet<u64> {
        self.entries.lock().not_shown.clone()
    }

    /// Makes the end of procedure `id` visible to its clients.
    pub(crate) fn shown(&self, id: u64) {
        self.entries.lock().not_shown.remove(&id);
    }

    /// Procedure `id` as clients see it. If its end is not visible yet, it seems to run.
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

    /// The procedure with this id.
    pub(crate) fn get(&self, id: u64) -> Option<Procedure> {
        self.entries.lock().procedures.get(&id).cloned()
    }

    /// The procedure that an earlier request with `nonce` started.
    pub(crate) fn with_nonce(&self, nonce: Nonce) -> Option<u64> {
        let entries = self.entries.lock();
        entries.procedures.iter().find(|(_, p)| p.nonce == Some(nonce)).map(|(id, _)| *id)
    }

    /// All unfinished procedures, the oldest first.
    pub(crate) fn unfinished(&self) -> Vec<(u64, Procedure)> {
        let entries = self.entries.lock();
        let unfinished = entries.procedures.iter().filter(|(_, p)| !p.is_finished());
        unfinished.map(|(id, procedure)| (*id, procedure.clone())).collect()
    }

    /// The servers whose recovery is unfinished, with the id of the recovery.
    pub(crate) fn recovering(&self) -> BTreeMap<ServerName, u64> {
        let entries = self.entries.lock();
        let unfinished = entries.procedures.iter().filter(|(_, p)| !p.is_finished());
        let servers = unfinished.filter_map(|(id, procedure)| match &procedure.work {
            Work::RecoverServer(recovery) => Some((recovery.server.clone(), *id)),
            _ => None,
        });
        servers.collect()
    }

    /// Whether a procedure on `table` is unfinished.
    pub(crate) fn is_busy(&self, table: &TableName) -> bool {
        let entries = self.entries.lock();
        entries.procedures.values().any(|p| !p.is_finished() && p.work.table() == Some(table))
    }

    /// Deletes finished procedures that clients no longer need.
    ///
    /// # Errors
    /// [`CommitError::Deposed`].
    pub(crate) async fn drop_old(&self, store: &EpochGuardedStore) -> Result<(), CommitError> {
        let old = self.entries.lock().old(Instant::now());
        for id in old {
            match store.commit(vec![epoch_guarded_store::delete(store.nodes().procedure(id))]).await
            {
                Err(CommitError::Deposed) => return Err(CommitError::Deposed),
                Err(CommitError::Unknown(_)) => {}
                Ok(_) | Err(CommitError::Refused { .. }) => {
                    let mut entries = self.entries.lock();
                    entries.procedures.remove(&id);
                    entries.not_shown.remove(&id);
                    entries.ended.remove(&id);
                }
            }
        }
        Ok(())
    }
}

/// Reads procedure `id`, if it exists.
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

/// The first id of a term. All ids of earlier terms are lower.
fn first_id(epoch: MasterEpoch) -> u64 {
    epoch.0 << 32
}

// === impl Entries ===

impl Entries {
    /// The finished procedures that have expired, and the oldest ones beyond the maximum number.
    fn old(&self, now: Instant) -> Vec<u64> {
        let too_many = self.ended.len().saturating_sub(FINISHED_MAX);
        let old = self.ended.iter().enumerate().filter(|(place, (id, ended))| {
            let procedure = self.procedures.get(id);
            let is_recovery = procedure.is_some_and(|p| matches!(p.work, Work::RecoverServer(_)));
            // Clients do not look up a recovery by its procedure. It has a record of its own.
            *place < too_many || is_recovery || now.saturating_duration_since(**ended) > KEPT
        });
        old.map(|(_, (id, _))| *id).collect()
    }
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

    fn entries(procedures: impl IntoIterator<Item = (u64, Procedure, Instant)>) -> Entries {
        let mut entries = Entries::default();
        for (id, procedure, ended) in procedures {
            if procedure.is_finished() {
                entries.ended.insert(id, ended);
            }
            entries.procedures.insert(id, procedure);
        }
        entries
    }

    #[tokio::test(start_paused = true)]
    async fn results_are_kept_for_a_quarter_of_an_hour_whatever_wall_clocks_say() {
        let begun = Instant::now();
        let mut running = finished(0);
        running.outcome = None;
        let later = begun + Duration::from_secs(1);
        let all = [(1, finished(u64::MAX), begun), (2, finished(0), later), (3, running, begun)];
        assert_eq!(entries(all).old(begun + KEPT + Duration::from_millis(500)), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_of_too_many_results_are_dropped() {
        let now = Instant::now();
        let all = (0..FINISHED_MAX as u64 + 3).map(|id| (id, finished(5), now));
        assert_eq!(entries(all).old(now), [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_finished_recovery_is_not_kept() {
        let (now, mut procedure) =
            (Instant::now(), Procedure::new(Work::RecoverServer(recovery("a")), None, 5));
        assert_eq!(entries([(1, procedure.clone(), now)]).old(now), [0_u64; 0]);
        procedure.outcome = Some(ProcedureOutcome::Done);
        assert_eq!(entries([(1, procedure, now)]).old(now), [1]);
    }

    #[test]
    fn ids_of_a_later_term_are_higher() {
        assert!(first_id(MasterEpoch(2)) > first_id(MasterEpoch(1)) + 1_000_000);
    }
}
