//! What the coordinator has on record, looked up before an order is carried out.
//!
//! An order is only words: it may come late, twice, or from a stranger. Nothing that cannot be taken
//! back is done before the coordinator's own record has shown that it is to be done. That the
//! record shows something is a fact even if the copy that shows it lags behind, because a later
//! write on condition of the version fails then. So the watched copy is asked first, which costs
//! nothing.

use std::collections::BTreeMap;

use basalt_cluster::{RegionRecord, TableRecord};
use basalt_model::{EncodedRegionName, TableDescriptor, TableName};
use basalt_zk::proto::ErrorCode;
use tracing::warn;

use crate::server::Server;

/// A region's record, and its version in the coordinator.
#[derive(Clone, Debug)]
pub(crate) struct OnRecord {
    pub(crate) record: RegionRecord,
    pub(crate) version: i32,
}

/// Why a record was not found as an order needs it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no such region.
    #[error("the region has no record")]
    Missing,
    /// The record says something else.
    #[error(
        "the region's record does not say so: it is {:?} under epoch {}", .0.state, .0.epoch
    )]
    Otherwise(Box<RegionRecord>),
    /// There is no such table.
    #[error("the table has no record")]
    TableMissing,
    /// The coordinator did not answer.
    #[error(transparent)]
    Coordinator(#[from] basalt_zk::Error),
    /// What lies there cannot be understood.
    #[error(transparent)]
    Record(#[from] basalt_cluster::Error),
}

// === impl Server ===

impl Server {
    /// The record of a region, if the coordinator shows one that `is_so`.
    pub(crate) async fn region_on_record(
        &self,
        name: EncodedRegionName,
        is_so: impl Fn(&RegionRecord) -> bool,
    ) -> Result<OnRecord, Error> {
        if let Some(known) = self.copy_of_region(name).filter(|known| is_so(&known.record)) {
            return Ok(known);
        }
        let read = self.read_regions(&[name]).await?.remove(&name);
        if let Some(read) = read.filter(|read| is_so(&read.record)) {
            return Ok(read);
        }
        match self.newest_region(name).await? {
            Some(read) if is_so(&read.record) => Ok(read),
            Some(read) => Err(Error::Otherwise(Box::new(read.record))),
            None => Err(Error::Missing),
        }
    }

    /// The record of a region as of now: no copy is asked.
    pub(crate) async fn newest_region(
        &self,
        name: EncodedRegionName,
    ) -> Result<Option<OnRecord>, Error> {
        self.client.sync(&self.nodes.region(name)).await?;
        Ok(self.read_regions(&[name]).await?.remove(&name))
    }

    /// The record of a region in the watched copy.
    pub(crate) fn copy_of_region(&self, name: EncodedRegionName) -> Option<OnRecord> {
        let known = self.catalog.region(name)?;
        Some(OnRecord { record: known.record.clone(), version: known.version })
    }

    /// The records of regions in the member of the coordinator that we are connected to, in as few
    /// requests as they fit into.
    pub(crate) async fn read_regions(
        &self,
        names: &[EncodedRegionName],
    ) -> Result<BTreeMap<EncodedRegionName, OnRecord>, Error> {
        let paths: Vec<String> = names.iter().map(|name| self.nodes.region(*name)).collect();
        let mut regions = BTreeMap::new();
        for (name, read) in names.iter().zip(self.client.get_data_of_all(&paths).await?) {
            if let Some((data, stat)) = read {
                let record = RegionRecord::decode(&data)?;
                regions.insert(*name, OnRecord { record, version: stat.version });
            }
        }
        Ok(regions)
    }

    /// The table `name` as it is on record, where an order says that it is `given`.
    pub(crate) async fn table_on_record(
        &self,
        name: &TableName,
        given: &TableDescriptor,
    ) -> Result<TableDescriptor, Error> {
        let known = self.catalog.table(name);
        if let Some(known) = known.filter(|known| known.record.descriptor == *given) {
            return Ok(known.record.descriptor);
        }
        let path = self.nodes.table(name);
        if let Some(read) = self.read_table(&path).await?.filter(|read| *read == *given) {
            return Ok(read);
        }
        self.client.sync(&path).await?;
        let read = self.read_table(&path).await?.ok_or(Error::TableMissing)?;
        if read != *given {
            warn!(table = %name, "an order describes a table otherwise than its record, which counts");
        }
        Ok(read)
    }

    async fn read_table(&self, path: &str) -> Result<Option<TableDescriptor>, Error> {
        match self.client.get_data(path).await {
            Ok((data, _)) => Ok(Some(TableRecord::decode(&data)?.descriptor)),
            Err(error) if error.code() == Some(ErrorCode::NoNode) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
