//! The end of a procedure that failed. Its client learns why, and its table is left in a state in
//! which it can be used, changed again or deleted.
//!
//! A step that can never succeed ends its procedure at once. A procedure also ends when it has not
//! succeeded for as long as HBase's clients wait. The reconciler then opens the regions that remain
//! to be opened.

use std::time::Duration;

use basalt_hbase_rpc::ExceptionKind;
use basalt_model::{TableName, TableState};
use basalt_zk::Op;

use super::record::{Procedure, ProcedureOutcome, TruncateStep, Work};
use super::{delete_table, table_regions};
use crate::error::StepError;
use crate::term::Term;

/// How long a client's procedure is attempted: HBase's `hbase.client.sync.wait.timeout.msec`.
const PATIENCE: Duration = Duration::from_mins(20);

/// What remains of the table of a failed procedure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Remains {
    /// The table stays as it is.
    AsItIs,
    /// The table gets this state. If it is enabled, its regions are opened as far as possible.
    Table(TableState),
    /// The table is deleted.
    Nothing,
}

/// How long the procedure may still take. `None` for a recovery, which must never be given up.
///
/// `tried`: how long this master has attempted it. Its wall clock may be behind that of the master
/// that accepted the procedure.
pub(super) fn time_left(procedure: &Procedure, now_ms: u64, tried: Duration) -> Option<Duration> {
    if matches!(procedure.work, Work::RecoverServer(_)) {
        return None;
    }
    let age = Duration::from_millis(now_ms.saturating_sub(procedure.submitted_ms));
    Some(PATIENCE.saturating_sub(age.max(tried)))
}

/// The message for the client of a procedure that ran out of time.
pub(super) fn out_of_time(last: Option<&str>) -> String {
    format!("not finished within {PATIENCE:?}: {}", last.unwrap_or("its turn never came"))
}

/// The outcome of a procedure that failed because of `reason`, and the writes that belong to it.
pub(super) async fn fail(
    term: &Term,
    id: u64,
    work: &Work,
    reason: String,
) -> Result<(ProcedureOutcome, Vec<Op>), StepError> {
    tracing::error!(id, name = work.name(), reason, "procedure failed");
    let writes = match work.table() {
        Some(table) => leave(term, id, work, table).await?,
        None => Vec::new(),
    };
    let exception = ExceptionKind::DoNotRetry.class_name().to_owned();
    Ok((ProcedureOutcome::Failed { exception, message: reason }, writes))
}

async fn leave(term: &Term, id: u64, work: &Work, table: &TableName) -> Result<Vec<Op>, StepError> {
    let is_whole = match work.region_count() {
        Some(count) => {
            term.views.catalog().catch_up().await?;
            term.views.now().of_table(table).len() == count
        }
        None => true,
    };
    match remains(work, is_whole) {
        Remains::AsItIs => Ok(Vec::new()),
        Remains::Table(state) => Ok(vec![table_regions::write_state(term, table, state).await?]),
        Remains::Nothing => delete_table::run(term, id, table).await,
    }
}

/// `is_whole`: all regions that the procedure should create exist.
fn remains(work: &Work, is_whole: bool) -> Remains {
    match work {
        Work::CreateTable { .. } if !is_whole => Remains::Nothing,
        Work::TruncateTable { step: TruncateStep::Creating, .. } if is_whole => {
            Remains::Table(TableState::Enabled)
        }
        Work::DeleteTable { .. } | Work::TruncateTable { .. } => {
            Remains::Table(TableState::Disabled)
        }
        Work::CreateTable { .. } | Work::EnableTable { .. } | Work::DisableTable { .. } => {
            Remains::Table(TableState::Enabled)
        }
        Work::FlushTable { .. } | Work::ModifyTable { .. } | Work::RecoverServer(_) => {
            Remains::AsItIs
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procedure::record::tests::recovery;

    #[test]
    fn a_procedure_of_a_client_is_given_up_and_a_recovery_never() {
        let table: TableName = "t".parse().unwrap();
        let procedure = Procedure::new(Work::EnableTable { table }, None, 1_000);
        let none = Duration::ZERO;
        assert_eq!(time_left(&procedure, 1_000, none), Some(PATIENCE));
        assert_eq!(time_left(&procedure, 500, none), Some(PATIENCE), "another clock");
        assert_eq!(time_left(&procedure, 500, PATIENCE), Some(Duration::ZERO), "tried enough");
        let patience_ms = u64::try_from(PATIENCE.as_millis()).unwrap();
        assert_eq!(time_left(&procedure, 2_000 + patience_ms, none), Some(Duration::ZERO));
        let recovery = Procedure::new(Work::RecoverServer(recovery("a")), None, 1_000);
        assert_eq!(time_left(&recovery, u64::MAX, PATIENCE), None);
    }

    #[test]
    fn a_table_is_left_so_that_it_can_be_used_or_changed_again() {
        let table: TableName = "t".parse().unwrap();
        let truncate = |step| {
            let (table, split_keys) = (table.clone(), Vec::new());
            Work::TruncateTable { table, split_keys, region_id: 1, step }
        };
        let (enabled, disabled) =
            (Remains::Table(TableState::Enabled), Remains::Table(TableState::Disabled));
        let (of, keys) = (|| table.clone(), Vec::new());
        let create = Work::CreateTable { table: of(), split_keys: keys, region_id: 1 };
        for (work, is_whole, expected) in [
            (create.clone(), false, Remains::Nothing),
            (create, true, enabled),
            (Work::EnableTable { table: of() }, true, enabled),
            (Work::DisableTable { table: of() }, true, enabled),
            (Work::DeleteTable { table: of() }, false, disabled),
            (truncate(TruncateStep::Clearing), true, disabled),
            (truncate(TruncateStep::Creating), false, disabled),
            (truncate(TruncateStep::Creating), true, enabled),
            (Work::ModifyTable { table: of() }, true, Remains::AsItIs),
        ] {
            assert_eq!(remains(&work, is_whole), expected, "{work:?}");
        }
    }
}
