//! Enables a table by opening all its regions.

use basalt_model::{RegionState, TableName, TableState};
use basalt_zk::Op;

use super::table_regions::{close_all, open_all, read_record, write_state};
use crate::error::StepError;
use crate::term::Term;

/// Enables a table.
pub(super) async fn enable(term: &Term, table: &TableName) -> Result<Vec<Op>, StepError> {
    read_record(term, table).await?;
    close_all(term, table, |state| state == RegionState::Closing).await?;
    open_all(term, table).await?;
    Ok(vec![write_state(term, table, TableState::Enabled).await?])
}
