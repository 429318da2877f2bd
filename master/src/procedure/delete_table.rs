//! Deletes a disabled table: deletes its regions' records, then moves its files to the archive.

use std::path::PathBuf;

use basalt_model::{RegionState, TableName, paths};
use basalt_zk::Op;

use crate::epoch_guarded_store;
use crate::error::StepError;
use crate::term::{Files, Term};

/// The longest name of a file or folder in bytes, on Linux and HDFS.
const NAME_BYTES_MAX: usize = 255;
/// How many archive folders one deletion may try.
const ARCHIVED_MAX: u32 = 1_000;

pub(super) async fn run(term: &Term, id: u64, table: &TableName) -> Result<Vec<Op>, StepError> {
    clear(term, id, table).await?;
    term.views.forget_table(table);
    Ok(vec![epoch_guarded_store::delete(term.store.nodes().table(table))])
}

/// Deletes the records of the table's regions, which are closed, and moves its files to the
/// archive.
pub(super) async fn clear(term: &Term, id: u64, table: &TableName) -> Result<(), StepError> {
    let view = term.views.now();
    let regions = view.of_table(table);
    if regions.iter().any(|region| region.record.state != RegionState::Closed) {
        return Err(StepError::NotYet(format!("{table} still has regions that are not closed")));
    }
    let names = regions.iter().map(|region| region.record.encoded_name()).collect();
    term.delete_regions(names).await?;
    archive(&term.files, id, table).await
}

/// Moves the table's folder into the archive, under a name that no other table has had there,
/// because a table of the same name may be created and deleted again. Each further call uses
/// another name, because a server that opened a region late may have created the folder again.
pub(super) async fn archive(files: &Files, id: u64, table: &TableName) -> Result<(), StepError> {
    let folder = paths::table(table);
    if !files.exists(&folder).await? {
        return Ok(());
    }
    let mut is_moved = false;
    for number in 0..ARCHIVED_MAX {
        let archived = archived_as(id, number, table);
        if let Some(parent) = archived.parent() {
            files.create_directories(parent).await?;
        }
        match files.rename(&folder, &archived).await {
            Err(error) if error.is_already_exists() => {}
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {
                is_moved = true;
                break;
            }
        }
    }
    if !is_moved {
        let reason =
            format!("the archive already has {ARCHIVED_MAX} folders from this deletion of {table}");
        return Err(StepError::NotYet(reason));
    }
    if let Some(parent) = folder.parent() {
        match files.sync_directory(parent).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Truncates a name that is too long for its suffix. The id in the suffix keeps the result unique.
fn archived_as(id: u64, number: u32, table: &TableName) -> PathBuf {
    let mut archived = paths::archived(&paths::table(table));
    let suffix = match number {
        0 => format!(".deleted-{id}"),
        _ => format!(".deleted-{id}-{number}"),
    };
    let qualifier = table.qualifier();
    let end = qualifier.floor_char_boundary(NAME_BYTES_MAX.saturating_sub(suffix.len()));
    archived.set_file_name(format!("{}{suffix}", qualifier.get(..end).unwrap_or_default()));
    archived
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_deleted_twice_is_archived_twice() {
        let table: TableName = "ns:t".parse().unwrap();
        assert_eq!(archived_as(7, 0, &table), PathBuf::from("/archive/data/ns/t.deleted-7"));
        assert_eq!(archived_as(7, 2, &table), PathBuf::from("/archive/data/ns/t.deleted-7-2"));
        assert_ne!(archived_as(8, 0, &table), archived_as(7, 0, &table));
    }

    #[test]
    fn the_longest_name_fits_with_its_suffix() {
        for letter in ["l", "\u{e4}", "\u{4e2d}"] {
            let table: TableName = letter.repeat(NAME_BYTES_MAX / letter.len()).parse().unwrap();
            let archived = archived_as(u64::MAX, ARCHIVED_MAX, &table);
            let name = archived.file_name().unwrap().to_str().unwrap();
            assert!(name.len() <= NAME_BYTES_MAX, "{} bytes", name.len());
            assert!(name.ends_with(&format!(".deleted-{}-{ARCHIVED_MAX}", u64::MAX)));
        }
    }
}
