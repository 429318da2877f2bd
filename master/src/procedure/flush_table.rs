//! Flushes a table: afterwards, all cells that its regions had in memory are in store files.
//!
//! A closed region was flushed when it closed. The procedure waits for a region that is moving to
//! another server. A table that is deleted or disabled in the meantime has nothing left to flush.

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
