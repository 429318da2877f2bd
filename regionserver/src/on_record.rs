//! Looks up the coordinator's records before an order is carried out.
//!
//! An order by itself proves nothing: it may be late, repeated, or from a stranger. Nothing
//! irreversible is done until the coordinator's own record confirms it. A record that confirms an
//! order is sufficient even if it comes from a copy that lags behind, because a later conditional
//! write then fails on the version. The watched copy is therefore checked first, which costs
//! nothing. This does not hold for the record of a table, because nothing is written on condition
//! of its version.

use std::collections::BTreeMap;

use basalt_cluster::records::FamilyIncarnations;
use basalt_cluster::{RegionRecord, TableRecord};
use basalt_model::{EncodedRegionName, ServerName, TableDescriptor, TableName};
use basalt_zk::proto::Stat;
use bytes::Bytes;
use tracing::warn;

use crate::recovery::replay::SealedLogs;
use crate::server::Server;

/// A region's record and its version in the coordinator.
#[derive(Clone, Debug)]
pub(crate) struct OnRecord {
    pub(crate) record: RegionRecord,
    pub(crate) version: i32,
}

/// Why no record was found that confirms an order.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no such region.
    #[error("the region has no record")]
    Missing,
    /// The record does not match the order.
    #[error(
        "the region's record differs: it is {:?} under epoch {}", .0.state, .0.epoch
    )]
    Otherwise(Box<RegionRecord>),
    /// There is no such table.
    #[error("the table has no record")]
    TableMissing,
    /// The coordinator did not answer.
    #[error(transparent)]
    Coordinator(#[from] basalt_zk::Error),
    /// The record cannot be decoded.
    #[error(transparent)]
    Record(#[from] basalt_cluster::Error),
}

/// The table of a region that is to be opened. Both parts must be of the same version of the
/// record: a family that was removed and added again leaves the descriptor as it was.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct OrderedTable {
    pub(crate) descriptor: TableDescriptor,
    pub(crate) incarnations: FamilyIncarnations,
}

/// What the coordinator records about the regions of an order.
#[derive(Default)]
pub(crate) struct ForOpening {
    pub(crate) regions: BTreeMap<EncodedRegionName, OnRecord>,
    pub(crate) tables: BTreeMap<TableName, OrderedTable>,
    pub(crate) sealed: BTreeMap<ServerName, SealedLogs>,
}

// === impl OnRecord ===

impl OnRecord {
    fn decode((data, stat): (Bytes, Stat)) -> Result<Self, Error> {
        Ok(Self { record: RegionRecord::decode(&data)?, version: stat.version })
    }
}

// === impl Server ===

impl Server {
    /// The record of a region, if the coordinator has one for which `is_so` holds.
    pub(crate) async fn region_on_record(
        &self,
        name: EncodedRegionName,
        is_so: impl Fn(&RegionRecord) -> bool,
    ) -> Result<OnRecord, Error> {
        if let Some(known) = self.copy_of_region(name).filter(|known| is_so(&known.record)) {
            return Ok(known);
        }
        if let Some(read) = self.read_region(name).await?.filter(|read| is_so(&read.record)) {
            return Ok(read);
        }
        match self.newest_region(name).await? {
            Some(read) if is_so(&read.record) => Ok(read),
            Some(read) => Err(Error::Otherwise(Box::new(read.record))),
            None => Err(Error::Missing),
        }
    }

    /// The current record of a region, not from a copy.
    pub(crate) async fn newest_region(
        &self,
        name: EncodedRegionName,
    ) -> Result<Option<OnRecord>, Error> {
        self.catch_up().await?;
        self.read_region(name).await
    }

    /// The record of a region in the watched copy.
    pub(crate) fn copy_of_region(&self, name: EncodedRegionName) -> Option<OnRecord> {
        let known = self.catalog.region(name)?;
        Some(OnRecord { record: known.record.clone(), version: known.version })
    }

    /// Waits until the coordinator's member that we are connected to has everything that is
    /// committed by now.
    pub(crate) async fn catch_up(&self) -> Result<(), Error> {
        Ok(self.client.sync(&self.nodes.regions()).await?)
    }

    /// The existing records among the given regions and tables, and the existing sealed logs of the
    /// given dead servers, in as few requests as possible.
    pub(crate) async fn read_for_opening(
        &self,
        regions: &[EncodedRegionName],
        tables: &[TableName],
        dead: &[ServerName],
    ) -> Result<ForOpening, Error> {
        let records = regions.iter().map(|name| self.nodes.region(*name));
        let of_tables = tables.iter().map(|table| self.nodes.table(table));
        let fenced = dead.iter().map(|server| self.nodes.fenced_server(server));
        let paths: Vec<String> = records.chain(of_tables).chain(fenced).collect();
        let mut read = self.client.get_data_of_all(&paths).await?.into_iter();
        let mut found = ForOpening::default();
        for (name, read) in regions.iter().zip(read.by_ref()) {
            if let Some(read) = read {
                found.regions.insert(*name, OnRecord::decode(read)?);
            }
        }
        for (table, read) in tables.iter().zip(read.by_ref()) {
            if let Some((data, _)) = read {
                found.tables.insert(table.clone(), TableRecord::decode(&data)?.into());
            }
        }
        for (server, read) in dead.iter().zip(read) {
            if let Some((data, _)) = read {
                found.sealed.insert(server.clone(), SealedLogs::decode(server.clone(), data)?);
            }
        }
        Ok(found)
    }

    /// The record of a region, from the coordinator's member that we are connected to.
    pub(crate) async fn read_region(
        &self,
        name: EncodedRegionName,
    ) -> Result<Option<OnRecord>, Error> {
        let found = self.client.find_data(&self.nodes.region(name)).await?;
        found.map(OnRecord::decode).transpose()
    }

    /// The table `name` on record, where the order contains `given`. `read` was read after the
    /// region's record had been seen, or is `None`.
    ///
    /// A region becomes OPENING only on condition of the version of its table's record. Our session
    /// never goes back in time. So what is read after the region's record is at least the version
    /// that the region must be opened with. The watched copy may be older.
    pub(crate) async fn table_on_record(
        &self,
        name: &TableName,
        given: &OrderedTable,
        read: Option<&OrderedTable>,
    ) -> Result<OrderedTable, Error> {
        let path = self.nodes.table(name);
        let read = match read {
            Some(read) => Some(read.clone()),
            None => self.read_table(&path).await?,
        };
        if let Some(read) = read.filter(|read| *read == *given) {
            return Ok(read);
        }
        self.client.sync(&path).await?;
        let read = self.read_table(&path).await?.ok_or(Error::TableMissing)?;
        if read != *given {
            warn!(
                table = %name,
                "an order describes a table differently from its record; using the record"
            );
        }
        Ok(read)
    }

    async fn read_table(&self, path: &str) -> Result<Option<OrderedTable>, Error> {
        let Some((data, _)) = self.client.find_data(path).await? else { return Ok(None) };
        Ok(Some(TableRecord::decode(&data)?.into()))
    }
}

// === impl OrderedTable ===

impl From<TableRecord> for OrderedTable {
    fn from(record: TableRecord) -> Self {
        Self { descriptor: record.descriptor, incarnations: record.incarnations }
    }
}
