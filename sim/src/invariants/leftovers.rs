//! Data that deleted tables must not leave behind: records of regions, and folders.

use std::collections::BTreeSet;

use basalt_cluster::{Nodes, REGION_BUCKETS, RegionRecord};
use basalt_fs::{FileSystem, MemoryFileSystem};
use basalt_model::{TableName, paths};
use basalt_runtime::Seams;
use futures::FutureExt;

use super::Violation;
use crate::plan::NODES_PARENT;
use crate::simulate::connect;

/// The tables in the coordinator.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    tables: BTreeSet<TableName>,
    /// The tables whose regions are on record.
    tables_of_regions: BTreeSet<TableName>,
}

// === impl Leftovers ===

impl Leftovers {
    pub(crate) async fn read(seams: Seams, servers: Vec<String>) -> anyhow::Result<Self> {
        let client = connect(&seams, &servers).await?;
        let nodes = Nodes::below(NODES_PARENT);
        client.sync(nodes.parent()).await?;
        let mut left = Self::default();
        for name in client.get_children(&nodes.tables()).await?.0 {
            left.tables.insert(name.parse()?);
        }
        for bucket in 0..REGION_BUCKETS {
            let bucket = nodes.region_bucket(u8::try_from(bucket)?);
            for region in client.get_children(&bucket).await?.0 {
                let (data, _) = client.get_data(&format!("{bucket}/{region}")).await?;
                left.tables_of_regions.insert(RegionRecord::decode(&data)?.info.table);
            }
        }
        client.close().await;
        Ok(left)
    }

    /// `folders` are the tables that have a folder in the storage root.
    pub(crate) fn violations(&self, folders: &BTreeSet<TableName>) -> Vec<Violation> {
        let deleted = |table: &&TableName| !self.tables.contains(*table);
        let violation = |seen| Violation::new("a deleted table leaves nothing", seen);
        let regions = self.tables_of_regions.iter().filter(deleted);
        let regions = regions.map(|table| violation(format!("{table}: regions are on record")));
        let folders = folders.iter().filter(deleted);
        let folders = folders.map(|table| violation(format!("{table}: its folder is there")));
        regions.chain(folders).collect()
    }
}

/// The tables of the default namespace that have a folder.
pub(crate) fn tables_on_disk(disk: &MemoryFileSystem) -> BTreeSet<TableName> {
    let Ok(example) = TableName::new("default", "t") else { return BTreeSet::new() };
    let table = paths::table(&example);
    let Some(namespace) = table.parent() else { return BTreeSet::new() };
    // Files in memory answer at once.
    let listed = disk.list(namespace).now_or_never().and_then(Result::ok).unwrap_or_default();
    let names = listed.iter().filter_map(|entry| TableName::new("default", &entry.name).ok());
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_and_folders_of_no_table_are_violations() {
        let table: TableName = "t".parse().unwrap();
        let mut left = Leftovers::default();
        left.tables_of_regions.insert(table.clone());
        assert_eq!(left.violations(&[table.clone()].into()).len(), 2);
        left.tables.insert(table.clone());
        assert_eq!(left.violations(&[table].into()), []);
    }
}
