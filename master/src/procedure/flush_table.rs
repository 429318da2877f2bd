//! Flushes a table: whatever its regions hold in memory is in store files afterwards.
//!
//! A region that is closed has been flushed when it was; one that is on its way to another server
//! is waited for. A table that is gone or disabled in the meantime has nothing left to flush.

use basalt_model::{RegionState, TableName};
use basalt_zk::Op;

use crate::error::StepError;
use crate::term::Term;

pub(super) async fn run(term: &Term, table: &TableName) -> Result<Vec<Op>, StepError> {
    let view = term.views.now();
    let regions = view.of_table(table);
    let in_service = regions.iter().filter(|region| region.record.state != RegionState::Closed);
    let left = term.flush_regions(&view, in_service.copied()).await;
    if left > 0 {
        return Err(StepError::NotYet(format!("{left} regions of {table} are not flushed yet")));
    }
    Ok(Vec::new())
}
