//! Makes a table: its descriptor in the storage root, its regions' records, then serves it.

use basalt_cluster::RegionRecord;
use basalt_model::{TableDescriptor, TableName, TableState, paths};
use basalt_zk::Op;
use bytes::Bytes;

use super::record::regions_between;
use super::serve_table;
use crate::error::StepError;
use crate::term::{Files, Term};

/// The first file of a table's descriptor, named as HBase names it.
const FIRST_DESCRIPTOR: &str = ".tableinfo.0000000001";

pub(super) async fn run(
    term: &Term,
    table: &TableName,
    split_keys: &[Bytes],
    region_id: u64,
) -> Result<Vec<Op>, StepError> {
    let Some(known) = term.views.catalog().table(table) else {
        return Err(StepError::NotYet(format!("the record of {table} is not seen yet")));
    };
    write_descriptor(&term.files, &known.record.descriptor).await?;
    let regions = regions_between(table, split_keys, region_id);
    term.create_regions(regions.into_iter().map(RegionRecord::new).collect()).await?;
    serve_table::serve_all(term, table).await?;
    Ok(vec![serve_table::write_state(term, table, TableState::Enabled)?])
}

/// Leaves the descriptor where HBase's tools look for it.
async fn write_descriptor(files: &Files, descriptor: &TableDescriptor) -> Result<(), StepError> {
    let folder = paths::table_descriptors(&descriptor.name);
    files.create_directories(&folder).await?;
    let contents = crate::rpc::descriptor_file(descriptor);
    match files.write_whole(&folder.join(FIRST_DESCRIPTOR), contents).await {
        Err(error) if !error.is_already_exists() => Err(error.into()),
        _ => Ok(()),
    }
}
