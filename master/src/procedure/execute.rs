//! Runs procedures until they are finished.

use std::sync::Arc;
use std::time::Duration;

use basalt_failpoint::{Point, reached};
use basalt_runtime::WITNESS;
use basalt_zk::Op;

use super::record::{Outcome, Procedure, Work};
use super::{create_table, delete_table, flush_table, modify_table, recover_server, serve_table};
use crate::error::StepError;
use crate::term::Term;

/// The pauses between tries.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How many pauses go by between two lines in the log about a procedure that waits.
const TRIES_PER_LINE: u32 = 20;

/// Runs procedure `id` until it is finished or the term is over.
pub(crate) fn execute(term: &Arc<Term>, id: u64) {
    let running = Arc::clone(term);
    term.spawn(async move {
        let mut pause = PAUSE_MIN;
        let mut tries: u32 = 0;
        while let Some(procedure) = running.journal.get(id).filter(|p| !p.is_finished()) {
            let name = procedure.work.name();
            let finished = match advance(&running, id, &procedure.work).await {
                Ok(writes) => finish(&running, id, writes).await,
                Err(error) => Err(error),
            };
            match finished {
                Ok(()) => {
                    tracing::trace!(target: WITNESS, id, "finished");
                    tracing::info!(id, name, "procedure finished");
                    break;
                }
                Err(error) if error.is_deposed() => return,
                Err(error) if tries.is_multiple_of(TRIES_PER_LINE) => {
                    tracing::warn!(id, name, %error, "procedure cannot go on yet");
                }
                Err(error) => tracing::debug!(id, name, %error, "procedure cannot go on yet"),
            }
            tries += 1;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        running.wake.notify_one();
    });
}

/// Takes a procedure to its end. Gives the writes that belong to its last one.
async fn advance(term: &Term, id: u64, work: &Work) -> Result<Vec<Op>, StepError> {
    match work {
        Work::CreateTable { table, split_keys, region_id } => {
            create_table::run(term, table, split_keys, *region_id).await
        }
        Work::DeleteTable { table } => delete_table::run(term, id, table).await,
        Work::EnableTable { table } => serve_table::enable(term, table).await,
        Work::DisableTable { table } => serve_table::disable(term, table).await,
        Work::FlushTable { table } => flush_table::run(term, table).await,
        Work::ModifyTable { table } => modify_table::run(term, table).await,
        Work::RecoverServer(_) => recover_server::run(term, id).await,
    }
}

async fn finish(term: &Term, id: u64, writes: Vec<Op>) -> Result<(), StepError> {
    let Some(procedure) = term.journal.get(id) else { return Ok(()) };
    reached(Point::ProcedureDone).await;
    let finished =
        Procedure { updated_ms: term.clock.wall_ms(), outcome: Some(Outcome::Done), ..procedure };
    Ok(term.journal.update(&term.ledger, id, finished, writes).await?)
}
