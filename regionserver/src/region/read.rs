//! Reads of single rows, and the scanners behind them.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_model::{Cell, SequenceId};
use basalt_runtime::WITNESS;
use basalt_storage::read::{Columns, ReadRules, TimeRange};
use basalt_storage::store_file::StoreFile;
use bytes::Bytes;
use tracing::trace;

use super::scanner::{RegionScanner, ScanRange};
use super::snapshot::{FamilySnapshot, RegionSnapshot};
use super::write::Change;
use super::{Region, Result};

/// Which cells of a row to read.
#[derive(Clone, Debug)]
pub(crate) struct RowRead {
    /// The families and their columns; `None` for all.
    pub(crate) families: Option<BTreeMap<Bytes, Columns>>,
    pub(crate) versions: u32,
    pub(crate) time_range: TimeRange,
    /// The time ranges of the families that have their own.
    pub(crate) family_time_ranges: BTreeMap<Bytes, TimeRange>,
    /// Return everything as it is stored, deleted or not.
    pub(crate) raw: bool,
    /// Whether blocks that are read stay in the cache.
    pub(crate) cache_blocks: bool,
    /// How many cells of each family are skipped, and how many are taken at most.
    pub(crate) family_offset: u32,
    pub(crate) family_limit: Option<u32>,
}

// === impl RowRead ===

impl RowRead {
    /// The newest version of every column.
    pub(crate) fn all() -> Self {
        Self {
            families: None,
            versions: 1,
            time_range: TimeRange::ALL,
            family_time_ranges: BTreeMap::new(),
            raw: false,
            cache_blocks: true,
            family_offset: 0,
            family_limit: None,
        }
    }

    /// The newest version of some columns of one family.
    pub(crate) fn of_family(family: Bytes, columns: Columns) -> Self {
        Self { families: Some([(family, columns)].into()), ..Self::all() }
    }

    /// The columns that `changes` change.
    pub(crate) fn of_changes<'a>(
        changes: impl IntoIterator<Item = &'a Change>,
        time_range: TimeRange,
    ) -> Self {
        let mut families: BTreeMap<Bytes, Columns> = BTreeMap::new();
        for change in changes {
            let columns = families
                .entry(change.family.clone())
                .or_insert_with(|| Columns::Some(std::collections::BTreeSet::new()));
            if let Columns::Some(qualifiers) = columns {
                qualifiers.insert(change.qualifier.clone());
            }
        }
        Self { families: Some(families), time_range, ..Self::all() }
    }
}

// === impl Region ===

impl Region {
    /// Reads a row for a client.
    pub(crate) async fn get(&self, row: &[u8], read: &RowRead) -> Result<Vec<Cell>> {
        self.check_row(row)?;
        let (snapshot, read_point) = self.view.load_with_read_point();
        let cells = self.read_row(&snapshot, read_point, row, read).await?;
        self.check_lease().await?;
        Ok(cells)
    }

    /// Checks that this server may still answer as the owner. To be called after reading.
    pub(crate) async fn check_lease(&self) -> Result<()> {
        self.shared.lease.check_patiently(self.shared.config.lease_patience).await?;
        trace!(target: WITNESS, region = %self.encoded_name, epoch = self.epoch.0, "answers");
        Ok(())
    }

    /// Reads a row including edits that are not durable yet, for a task that holds the row's lock
    /// and decides on the result.
    pub(super) async fn read_latest(&self, row: &[u8], read: &RowRead) -> Result<Vec<Cell>> {
        let snapshot = self.view.load_full();
        self.read_row(&snapshot, SequenceId(u64::MAX), row, read).await
    }

    async fn read_row(
        &self,
        snapshot: &Arc<RegionSnapshot>,
        read_point: SequenceId,
        row: &[u8],
        read: &RowRead,
    ) -> Result<Vec<Cell>> {
        let range = ScanRange::of_row(row);
        let mut scanner = self.scanner_of(snapshot, read_point, read, range, Some(row)).await?;
        let mut cells = Vec::new();
        if scanner.next_row().await?.is_some() {
            scanner.take_row(&mut cells).await?;
        }
        Ok(cells)
    }

    /// A scanner over rows as they are now.
    pub(crate) async fn scan(&self, read: &RowRead, range: ScanRange) -> Result<RegionScanner> {
        let (snapshot, read_point) = self.view.load_with_read_point();
        self.scanner_of(&snapshot, read_point, read, range, None).await
    }

    async fn scanner_of(
        &self,
        snapshot: &RegionSnapshot,
        read_point: SequenceId,
        read: &RowRead,
        range: ScanRange,
        only_row: Option<&[u8]>,
    ) -> Result<RegionScanner> {
        let wanted: Vec<(&Bytes, Columns)> = match &read.families {
            None => snapshot.families.keys().map(|family| (family, Columns::All)).collect(),
            Some(families) => families.iter().map(|(f, columns)| (f, columns.clone())).collect(),
        };
        let now_ms = self.shared.timestamps.best_now_ms();
        let mut scanner = RegionScanner::new(&self.info, range, read_point, read);
        for (name, columns) in wanted {
            self.check_family(name)?;
            let Some(family) = snapshot.families.get(name) else { continue };
            let Some(descriptor) =
                std::str::from_utf8(name).ok().and_then(|name| self.table.families.get(name))
            else {
                continue;
            };
            let time_range = read.family_time_ranges.get(name).unwrap_or(&read.time_range);
            let (versions, time_range) = (read.versions, *time_range);
            let rules = if read.raw {
                ReadRules::raw(descriptor, columns, versions, time_range, now_ms)
            } else {
                ReadRules::read(descriptor, columns, versions, time_range, now_ms)
            };
            let files = files_to_read(family, &rules, only_row).await?;
            let cache_blocks = read.cache_blocks && descriptor.block_cache;
            scanner.add_family(family, files, rules, cache_blocks);
        }
        Ok(scanner)
    }
}

/// The store files that may contain cells for a read.
async fn files_to_read(
    family: &FamilySnapshot,
    rules: &ReadRules,
    only_row: Option<&[u8]>,
) -> Result<Vec<Arc<StoreFile>>> {
    let mut files = Vec::with_capacity(family.files.len());
    for file in &family.files {
        // A file with only older cells is not needed. A file with newer cells may hold deletes.
        if file.time_range().is_some_and(|range| range.max < rules.time_range.from) {
            continue;
        }
        if let Some(row) = only_row {
            let may_contain = match &rules.columns {
                Columns::Some(qualifiers) if qualifiers.len() == 1 => match qualifiers.first() {
                    Some(qualifier) => file.may_contain_row_column(row, qualifier).await?,
                    None => true,
                },
                _ => file.may_contain_row(row).await?,
            };
            if !may_contain {
                continue;
            }
        }
        files.push(Arc::clone(file));
    }
    Ok(files)
}
