//! Deletes a disabled table: its regions' records, then its files go to the archive.

use std::path::PathBuf;

use basalt_model::{RegionState, TableName, paths};
use basalt_zk::Op;

use crate::error::StepError;
use crate::ledger;
use crate::term::{Files, Term};

pub(super) async fn run(term: &Term, id: u64, table: &TableName) -> Result<Vec<Op>, StepError> {
    let view = term.views.now();
    let regions = view.of_table(table);
    if regions.iter().any(|region| region.record.state != RegionState::Closed) {
        return Err(StepError::NotYet(format!("{table} still has regions that are not closed")));
    }
    let names = regions.iter().map(|region| region.record.encoded_name()).collect();
    term.delete_regions(names).await?;
    archive(&term.files, id, table).await?;
    Ok(vec![ledger::delete(term.ledger.nodes().table(table))])
}

/// Moves the table's folder into the archive, under a name that no other table has had there: a
/// table of the same name may be made, and deleted, again.
async fn archive(files: &Files, id: u64, table: &TableName) -> Result<(), StepError> {
    let folder = paths::table(table);
    let archived = archived_as(id, table);
    if let Some(parent) = archived.parent() {
        files.create_directories(parent).await?;
    }
    match files.rename(&folder, &archived).await {
        Err(error) if !error.is_not_found() => return Err(error.into()),
        _ => {}
    }
    if let Some(parent) = folder.parent() {
        match files.sync_directory(parent).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

fn archived_as(id: u64, table: &TableName) -> PathBuf {
    let mut archived = paths::archived(&paths::table(table));
    archived.set_file_name(format!("{}.deleted-{id}", table.qualifier()));
    archived
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_deleted_twice_is_archived_twice() {
        let table: TableName = "ns:t".parse().unwrap();
        assert_eq!(archived_as(7, &table), PathBuf::from("/archive/data/ns/t.deleted-7"));
        assert_ne!(archived_as(8, &table), archived_as(7, &table));
    }
}
