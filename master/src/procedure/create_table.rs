//! Creates a table: writes its descriptor to the storage root, creates its regions' records, and
//! opens the regions.

use std::io;

use basalt_cluster::RegionRecord;
use basalt_failpoint::{Point, reached};
use basalt_model::{TableDescriptor, TableName, TableState, paths};
use basalt_zk::Op;
use bytes::Bytes;

use super::delete_table::archive;
use super::record::regions_between;
use super::table_regions;
use crate::error::StepError;
use crate::term::{Files, Term};

/// The prefix of descriptor files, as in HBase. Ten digits follow, and the file with the highest
/// number is valid.
const DESCRIPTOR_PREFIX: &str = ".tableinfo.";

pub(super) async fn run(
    term: &Term,
    id: u64,
    table: &TableName,
    split_keys: &[Bytes],
    region_id: u64,
) -> Result<Vec<Op>, StepError> {
    let known = table_regions::read_record(term, table).await?;
    if term.views.now().of_table(table).is_empty() {
        // The table has no regions yet. Any files here were left by a server that opened a region
        // of a deleted table late.
        archive(&term.files, id, table).await?;
    }
    write_descriptor(&term.files, &known.record.descriptor).await.map_err(|error| {
        let too_long = |source: &io::Error| source.kind() == io::ErrorKind::InvalidFilename;
        match error {
            StepError::Storage(basalt_fs::Error::Io { source, .. }) if too_long(&source) => {
                StepError::Impossible(format!("the storage rejects folder {table}: {source}"))
            }
            error => error,
        }
    })?;
    reached(Point::TableDescribed).await;
    let regions = regions_between(table, split_keys, region_id);
    term.create_regions(regions.into_iter().map(RegionRecord::new).collect()).await?;
    reached(Point::TableRecorded).await;
    table_regions::open_all(term, table).await?;
    reached(Point::TableServed).await;
    Ok(vec![table_regions::write_state(term, table, TableState::Enabled).await?])
}

/// Writes the descriptor where HBase's tools look for it, unless it is already there.
pub(super) async fn write_descriptor(
    files: &Files,
    descriptor: &TableDescriptor,
) -> Result<(), StepError> {
    let folder = paths::table_descriptors(&descriptor.name);
    files.create_directories(&folder).await?;
    let contents = crate::rpc::descriptor_file(descriptor);
    let entries = files.list(&folder).await?;
    let number = |name: &str| name.strip_prefix(DESCRIPTOR_PREFIX)?.parse::<u64>().ok();
    let newest = entries.iter().filter_map(|entry| Some((number(&entry.name)?, entry)));
    let newest = newest.max_by_key(|(number, _)| *number);
    let mut next = 1;
    if let Some((number, entry)) = newest {
        let known = files.read_whole(&folder.join(&entry.name), entry.length).await?;
        if known == contents {
            return Ok(());
        }
        next = number + 1;
    }
    let path = folder.join(format!("{DESCRIPTOR_PREFIX}{next:010}"));
    match files.write_whole(&path, contents).await {
        Err(error) if !error.is_already_exists() => return Err(error.into()),
        _ => {}
    }
    for entry in entries.iter().filter(|entry| number(&entry.name).is_some()) {
        match files.delete_file(&folder.join(&entry.name)).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}
