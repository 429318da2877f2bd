//! Disables a table by closing all its regions.

use basalt_model::{RegionState, TableName, TableState};
use basalt_zk::Op;

use super::table_regions::{close_all, in_state, read_record, write_state};
use crate::error::StepError;
use crate::term::Term;

/// Disables a table.
pub(super) async fn disable(term: &Term, table: &TableName) -> Result<Vec<Op>, StepError> {
    read_record(term, table).await?;
    // From here on none of its regions becomes OPENING. This read sees those that already are.
    let regions = in_state(&term.views.now(), table, |_| true);
    term.read_regions(regions).await?;
    close_all(term, table, |state| state != RegionState::Closed).await?;
    Ok(vec![write_state(term, table, TableState::Disabled).await?])
}
