//! Runs procedures until they are finished.

use std::sync::Arc;
use std::time::Duration;

use basalt_failpoint::{Point, reached};
use basalt_runtime::WITNESS;
use basalt_zk::Op;
use tokio::time::Instant;

use super::record::{Procedure, ProcedureOutcome, Work};
use super::{
    create_table, delete_table, disable_table, enable_table, failure, flush_table, modify_table,
    recover_server, truncate_table,
};
use crate::error::StepError;
use crate::locks::{Holder, Lock, Resource, TooManyWaiting};
use crate::term::Term;

/// The shortest and the longest pause between attempts.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// One in so many failed attempts of a procedure is logged as a warning.
const TRIES_PER_LINE: u32 = 20;

/// Runs procedure `id` until it is finished or the term is over. Requests its locks before it
/// returns, so that procedures get their locks in the order in which they were submitted.
pub(crate) fn execute(term: &Arc<Term>, id: u64) {
    let running = Arc::clone(term);
    let requested = request_locks(term, id);
    term.spawn(async move {
        let (mut last, begun) = (None, Instant::now());
        // Without its locks the procedure takes no step. Its time is then over, and it fails below.
        let locks = within(&running, id, begun, hold_locks(&running, id, requested)).await;
        let locks = locks.unwrap_or_default();
        let mut pause = PAUSE_MIN;
        let mut tries: u32 = 0;
        while let Some(procedure) = running.procedure_store.get(id).filter(|p| !p.is_finished()) {
            let name = procedure.work.name();
            let advancing = advance(&running, id, &procedure.work);
            let advanced = within(&running, id, begun, advancing).await;
            let finished = match advanced {
                Some(Ok(writes)) => finish(&running, id, ProcedureOutcome::Done, writes).await,
                Some(Err(StepError::Impossible(reason))) => {
                    end_in_failure(&running, id, &procedure.work, reason).await
                }
                Some(Err(error)) => {
                    last = Some(error.to_string());
                    Err(error)
                }
                None => {
                    let reason = failure::out_of_time(last.as_deref());
                    end_in_failure(&running, id, &procedure.work, reason).await
                }
            };
            match finished {
                Ok(()) => {
                    tracing::trace!(target: WITNESS, id, "finished");
                    tracing::info!(id, name, "procedure finished");
                    break;
                }
                Err(error) if error.is_deposed() => return,
                Err(error) if tries.is_multiple_of(TRIES_PER_LINE) => {
                    tracing::warn!(id, name, %error, "procedure cannot continue yet");
                }
                Err(error) => tracing::debug!(id, name, %error, "procedure cannot continue yet"),
            }
            tries += 1;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        witness_locks(id, &locks, "procedure lets go");
        drop(locks);
        running.wake.notify_one();
        running.show_end(id).await;
    });
}

/// Runs a procedure to its end. Returns the writes to commit together with its end.
async fn advance(term: &Arc<Term>, id: u64, work: &Work) -> Result<Vec<Op>, StepError> {
    if work.table().is_some() {
        // A region that the catalog does not show yet would be left out.
        term.views.catalog().catch_up().await?;
    }
    match work {
        Work::CreateTable { table, split_keys, region_id } => {
            create_table::run(term, id, table, split_keys, *region_id).await
        }
        Work::DeleteTable { table } => delete_table::run(term, id, table).await,
        Work::EnableTable { table } => enable_table::enable(term, table).await,
        Work::DisableTable { table } => disable_table::disable(term, table).await,
        Work::FlushTable { table } => flush_table::run(term, table).await,
        Work::ModifyTable { table } => modify_table::run(term, table).await,
        Work::TruncateTable { .. } => truncate_table::run(term, id).await,
        Work::RecoverServer(_) => recover_server::run(term, id).await,
    }
}

/// The result of `work`; `None` once the time of procedure `id`, which this master has attempted
/// since `begun`, is over.
async fn within<T>(
    term: &Term,
    id: u64,
    begun: Instant,
    work: impl Future<Output = T>,
) -> Option<T> {
    let procedure = term.procedure_store.get(id)?;
    match failure::time_left(&procedure, term.clock.wall_ms(), begun.elapsed()) {
        Some(left) => tokio::time::timeout(left, work).await.ok(),
        None => Some(work.await),
    }
}

async fn end_in_failure(
    term: &Term,
    id: u64,
    work: &Work,
    reason: String,
) -> Result<(), StepError> {
    let (outcome, writes) = failure::fail(term, id, work, reason).await?;
    finish(term, id, outcome, writes).await
}

fn request_locks(term: &Term, id: u64) -> Result<Vec<Lock>, TooManyWaiting> {
    let locks = term.procedure_store.get(id).map(|procedure| procedure.locks).unwrap_or_default();
    let requests = locks.into_iter().map(|(table, mode)| {
        term.locks.request(Resource::Table(table), mode, Holder::Procedure(id))
    });
    requests.collect()
}

/// Waits until all locks of a procedure are granted.
async fn hold_locks(
    term: &Term,
    id: u64,
    mut requested: Result<Vec<Lock>, TooManyWaiting>,
) -> Vec<Lock> {
    loop {
        match requested {
            Ok(locks) => {
                for lock in &locks {
                    lock.granted().await;
                }
                witness_locks(id, &locks, "procedure holds");
                return locks;
            }
            Err(error) => tracing::warn!(id, %error, "procedure cannot continue yet"),
        }
        tokio::time::sleep(PAUSE_MAX).await;
        requested = request_locks(term, id);
    }
}

fn witness_locks(id: u64, locks: &[Lock], what: &'static str) {
    for lock in locks {
        if let Resource::Table(table) = lock.resource() {
            tracing::trace!(target: WITNESS, id, %table, "{what}");
        }
    }
}

async fn finish(
    term: &Term,
    id: u64,
    outcome: ProcedureOutcome,
    writes: Vec<Op>,
) -> Result<(), StepError> {
    let Some(procedure) = term.procedure_store.get(id) else { return Ok(()) };
    reached(Point::ProcedureDone).await;
    let updated_ms = term.clock.wall_ms();
    let finished = Procedure { updated_ms, outcome: Some(outcome), ..procedure };
    Ok(term.procedure_store.update(&term.store, id, finished, writes).await?)
}
