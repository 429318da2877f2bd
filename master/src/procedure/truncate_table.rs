//! Truncates a disabled table: deletes its regions and files as if the table were deleted, then
//! creates new regions and enables the table.
//!
//! The deletion is recorded before anything new is created. Otherwise a retry would delete the new
//! regions as if they were the old ones.

use basalt_model::TableState;
use basalt_zk::Op;

use super::record::{Procedure, TruncateStep, Work};
use super::{create_table, delete_table, table_regions};
use crate::error::StepError;
use crate::term::Term;

pub(super) async fn run(term: &Term, id: u64) -> Result<Vec<Op>, StepError> {
    let Some(procedure) = term.procedure_store.get(id) else { return Ok(Vec::new()) };
    let Work::TruncateTable { table, split_keys, region_id, step } = procedure.work.clone() else {
        return Ok(Vec::new());
    };
    if step == TruncateStep::Clearing {
        delete_table::clear(term, id, &table).await?;
        let work = Work::TruncateTable {
            table: table.clone(),
            split_keys: split_keys.clone(),
            region_id,
            step: TruncateStep::Creating,
        };
        let updated_ms = term.clock.wall_ms();
        let next = Procedure { updated_ms, work, ..procedure };
        let enabling = table_regions::write_state(term, &table, TableState::Enabling).await?;
        term.procedure_store.update(&term.store, id, next, vec![enabling]).await?;
    }
    create_table::run(term, id, &table, &split_keys, region_id).await
}
