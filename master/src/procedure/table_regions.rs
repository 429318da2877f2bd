//! Steps that procedures on a table share: opening or closing its regions, and writing its state.

use std::time::Duration;

use basalt_cluster::TableRecord;
use basalt_cluster::catalog::Versioned;
use basalt_model::{EncodedRegionName, RegionState, TableName, TableState};
use basalt_zk::Op;

use crate::epoch_guarded_store;
use crate::error::StepError;
use crate::term::Term;
use crate::view::View;

/// How long a step waits for region servers to execute its orders.
const CHANGE_WAIT: Duration = Duration::from_millis(500);

/// Closes the regions of a table whose state satisfies `is_meant`.
pub(super) async fn close_all(
    term: &Term,
    table: &TableName,
    is_meant: fn(RegionState) -> bool,
) -> Result<(), StepError> {
    let not_closed = in_state(&term.views.now(), table, is_meant);
    if !not_closed.is_empty() {
        term.close_for_good(not_closed).await?;
    }
    let left = in_state(&term.views.now(), table, is_meant);
    if left.is_empty() {
        return Ok(());
    }
    Err(StepError::NotYet(format!("{} regions of {table} are not closed yet", left.len())))
}

/// Opens all regions of a table.
///
/// # Errors
/// [`StepError::NotYet`] while some of them are not open.
pub(super) async fn open_all(term: &Term, table: &TableName) -> Result<(), StepError> {
    let closed = in_state(&term.views.now(), table, |state| state == RegionState::Closed);
    if !closed.is_empty() {
        term.assign(&closed).await?;
    }
    let all_open =
        |view: &View| in_state(view, table, |state| state != RegionState::Open).is_empty();
    if term.views.until(CHANGE_WAIT, |views| all_open(&views.now())).await {
        return Ok(());
    }
    let left = in_state(&term.views.now(), table, |state| state != RegionState::Open);
    Err(StepError::NotYet(format!("{} regions of {table} are not open yet", left.len())))
}

/// Reads the record of a table from the coordinator, because the catalog may lag behind the write
/// that submitted the procedure. Later decisions are based on this record.
pub(super) async fn read_record(
    term: &Term,
    table: &TableName,
) -> Result<Versioned<TableRecord>, StepError> {
    let missing = || StepError::NotYet(format!("the record of {table} is missing"));
    term.read_table(table).await?.ok_or_else(missing)
}

/// The write that puts a table into `state`. Only the procedure that holds the table's lock writes
/// the record, so the epoch is the only condition that the write needs.
pub(super) async fn write_state(
    term: &Term,
    table: &TableName,
    state: TableState,
) -> Result<Op, StepError> {
    let known = read_record(term, table).await?;
    let record = TableRecord { state, ..known.record };
    let record = if state == TableState::Disabled { record.in_effect() } else { record };
    Ok(overwrite(term, &record))
}

/// The write that replaces a table's record.
pub(super) fn overwrite(term: &Term, record: &TableRecord) -> Op {
    let path = term.store.nodes().table(&record.descriptor.name);
    epoch_guarded_store::overwrite(path, record.encode())
}

/// The regions of `table` whose state satisfies `is_meant`.
pub(super) fn in_state(
    view: &View,
    table: &TableName,
    is_meant: impl Fn(RegionState) -> bool,
) -> Vec<EncodedRegionName> {
    let regions = view.of_table(table).into_iter().filter(|region| is_meant(region.record.state));
    regions.map(|region| region.record.encoded_name()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::{record_in, view};

    #[test]
    fn regions_are_found_by_their_state() {
        let mut view = view(&["a"], 3);
        let table = "t".parse().unwrap();
        let first = view.regions.values_mut().next().unwrap();
        record_in(first).state = RegionState::Closing;
        let name = first.record.encoded_name();
        assert_eq!(in_state(&view, &table, |state| state != RegionState::Open), [name]);
        assert_eq!(in_state(&view, &table, |state| state == RegionState::Open).len(), 2);
        assert_eq!(in_state(&view, &"u".parse().unwrap(), |_| true), []);
    }
}
