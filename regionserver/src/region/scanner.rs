//! A scan over the rows of a region, forward or in reverse, cell by cell.
//!
//! The caller moves to the next row and then takes its cells until none are left. A scan sees the
//! snapshot and the read point with which it began.

use std::sync::Arc;

use basalt_model::{Cell, CellKey, RegionInfo, SequenceId};
use basalt_storage::read::merge::row_after;
use basalt_storage::read::{Decision, MergeCursor, ReadRules, Visibility};
use basalt_storage::store_file::{ScannerOptions, StoreFile};
use bytes::Bytes;

use super::snapshot::FamilySnapshot;
use super::{Result, RowRead};

/// The rows that a scan covers. Rows outside the region are skipped. An empty key is no bound.
#[derive(Clone, Debug)]
pub(crate) struct ScanRange {
    pub(crate) start: Bytes,
    pub(crate) include_start: bool,
    pub(crate) stop: Bytes,
    pub(crate) include_stop: bool,
    /// From high rows to low ones. In this case, `start` is the high end.
    pub(crate) reversed: bool,
}

/// A scan in progress.
pub(crate) struct RegionScanner {
    families: Vec<FamilyScan>,
    read_point: SequenceId,
    /// How many cells of each family of a row are skipped, and how many are taken at most.
    family_offset: u32,
    family_limit: u32,
    bounds: Bounds,
    row: Option<Bytes>,
    /// Which family the next cell comes from.
    family: usize,
    begun: bool,
}

/// How much more may be taken. The last cell may exceed the byte limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScanLimits {
    pub(crate) cells: usize,
    pub(crate) bytes: u64,
}

struct FamilyScan {
    cursor: MergeCursor,
    visibility: Visibility,
    /// For the current row: how many more cells are skipped, and how many more are taken at most.
    to_pass: u32,
    to_take: u32,
    /// The cell at the cursor is visible, but a limit was reached before it was taken.
    is_visible: bool,
}

/// The rows of a scan: at or after `low`, and before `high` if there is one.
struct Bounds {
    low: Bytes,
    high: Option<Bytes>,
    reversed: bool,
}

// === impl ScanRange ===

impl ScanRange {
    /// A range of one row.
    pub(crate) fn of_row(row: &[u8]) -> Self {
        let row = Bytes::copy_from_slice(row);
        Self {
            start: row.clone(),
            include_start: true,
            stop: row,
            include_stop: true,
            reversed: false,
        }
    }

    /// The part of the range that is in `region`.
    fn within(self, region: &RegionInfo) -> Bounds {
        let Self { start, include_start, stop, include_stop, reversed } = self;
        let after = |row: &Bytes| Bytes::from(row_after(row));
        // The first row inside a bound, and the first row beyond it.
        let low_of = |row: Bytes, included| match included || row.is_empty() {
            true => row,
            false => after(&row),
        };
        let high_of = |row: Bytes, included| match (row.is_empty(), included) {
            (true, _) => None,
            (false, true) => Some(after(&row)),
            (false, false) => Some(row),
        };
        let (low, high) = if reversed {
            (low_of(stop, include_stop), high_of(start, include_start))
        } else {
            (low_of(start, include_start), high_of(stop, include_stop))
        };
        let region_end = Some(region.end_key.clone()).filter(|end| !end.is_empty());
        let high = match (high, region_end) {
            (Some(high), Some(end)) => Some(high.min(end)),
            (high, end) => high.or(end),
        };
        Bounds { low: low.max(region.start_key.clone()), high, reversed }
    }
}

// === impl Bounds ===

impl Bounds {
    fn contain(&self, row: &[u8]) -> bool {
        row >= &self.low[..] && self.high.as_ref().is_none_or(|high| row < &high[..])
    }
}

// === impl RegionScanner ===

impl RegionScanner {
    pub(super) fn new(
        region: &RegionInfo,
        range: ScanRange,
        read_point: SequenceId,
        read: &RowRead,
    ) -> Self {
        Self {
            families: Vec::new(),
            read_point,
            family_offset: read.family_offset,
            family_limit: read.family_limit.unwrap_or(u32::MAX),
            bounds: range.within(region),
            row: None,
            family: 0,
            begun: false,
        }
    }

    pub(super) fn add_family(
        &mut self,
        family: &FamilySnapshot,
        files: Vec<Arc<StoreFile>>,
        rules: ReadRules,
        cache_blocks: bool,
    ) {
        let scanners = files.iter().map(|file| file.scanner(ScannerOptions { cache_blocks }));
        let (memstores, scanners) = (family.memstores(), scanners.collect::<Vec<_>>());
        let before_row = self.bounds.high.clone();
        let cursor = MergeCursor::new(memstores, scanners, self.read_point, before_row);
        let visibility = Visibility::new(rules);
        let (to_pass, to_take, is_visible) = (0, 0, false);
        self.families.push(FamilyScan { cursor, visibility, to_pass, to_take, is_visible });
    }

    /// The highest edit that the scan sees.
    pub(crate) fn read_point(&self) -> SequenceId {
        self.read_point
    }

    /// Moves to the next row that has cells, visible or not. `None` after the last row.
    pub(crate) async fn next_row(&mut self) -> Result<Option<Bytes>> {
        let next = match self.bounds.reversed {
            false => self.next_row_forward().await?,
            true => self.next_row_reversed().await?,
        };
        self.row = next.filter(|row| self.bounds.contain(row));
        self.family = 0;
        for family in &mut self.families {
            family.begin_row(self.family_offset, self.family_limit);
        }
        Ok(self.row.clone())
    }

    /// A hint that about this many more cells are likely to be taken.
    pub(crate) fn expect(&mut self, cells: usize) {
        for family in &mut self.families {
            family.cursor.expect(cells);
        }
    }

    /// Appends the next visible cells of the row to `cells`, within `limits`. Returns whether
    /// the row has more.
    pub(crate) async fn take_cells(
        &mut self,
        mut limits: ScanLimits,
        cells: &mut Vec<Cell>,
    ) -> Result<bool> {
        let Some(row) = &self.row else { return Ok(false) };
        while let Some(family) = self.families.get_mut(self.family) {
            if family.take_cells(row, &mut limits, cells).await? {
                return Ok(true);
            }
            self.family += 1;
        }
        Ok(false)
    }

    /// Appends all remaining visible cells of the row to `cells`.
    pub(crate) async fn take_row(&mut self, cells: &mut Vec<Cell>) -> Result<()> {
        self.take_cells(ScanLimits::UNBOUNDED, cells).await?;
        Ok(())
    }

    async fn next_row_forward(&mut self) -> Result<Option<Bytes>> {
        let low = self.bounds.low.clone();
        let begun = std::mem::replace(&mut self.begun, true);
        let mut next: Option<Bytes> = None;
        for family in &mut self.families {
            if !begun {
                family.cursor.seek(&CellKey::before_row(&low)).await?;
            } else if let Some(row) = &self.row
                && family.cursor.peek().is_some_and(|cell| cell.row() == &row[..])
            {
                family.cursor.skip_row().await?;
            }
            let Some(cell) = family.cursor.peek() else { continue };
            if next.as_ref().is_none_or(|row| cell.row() < &row[..]) {
                next = Some(cell.row_bytes());
            }
        }
        Ok(next)
    }

    async fn next_row_reversed(&mut self) -> Result<Option<Bytes>> {
        let before = match &self.row {
            Some(row) => Some(row.clone()),
            None if self.begun => return Ok(None),
            None => self.bounds.high.clone(),
        };
        self.begun = true;
        let mut next: Option<Bytes> = None;
        for family in &mut self.families {
            next = next.max(family.cursor.row_before(before.as_deref()).await?);
        }
        if let Some(row) = &next {
            for family in &mut self.families {
                family.cursor.seek(&CellKey::before_row(row)).await?;
            }
        }
        Ok(next)
    }
}

// === impl FamilyScan ===

impl FamilyScan {
    fn begin_row(&mut self, to_pass: u32, to_take: u32) {
        self.visibility.begin_row();
        (self.to_pass, self.to_take, self.is_visible) = (to_pass, to_take, false);
    }

    /// Appends visible cells of `row` to `cells`. Returns whether it stopped at a limit before a
    /// visible cell.
    async fn take_cells(
        &mut self,
        row: &[u8],
        limits: &mut ScanLimits,
        cells: &mut Vec<Cell>,
    ) -> Result<bool> {
        while self.to_take > 0
            && let Some(cell) = self.cursor.peek()
        {
            let key = cell.key();
            if key.row != row {
                break;
            }
            let decision = match std::mem::take(&mut self.is_visible) {
                true => Decision::Include,
                false => self.visibility.decide(&key),
            };
            match decision {
                Decision::Include if self.to_pass > 0 => {
                    self.to_pass -= 1;
                    self.cursor.take().await?;
                }
                Decision::Include if !limits.are_left() => {
                    self.is_visible = true;
                    return Ok(true);
                }
                Decision::Include => {
                    limits.take(cell);
                    self.to_take -= 1;
                    if !self.cursor.try_take_into(cells)? {
                        cells.extend(self.cursor.take().await?);
                    }
                }
                Decision::Skip => drop(self.cursor.take().await?),
                Decision::SkipColumn => self.cursor.skip_column().await?,
                Decision::SkipRow => self.cursor.skip_row().await?,
            }
        }
        Ok(false)
    }
}

// === impl ScanLimits ===

impl ScanLimits {
    /// The limits for reading a whole row.
    const UNBOUNDED: Self = Self { cells: usize::MAX, bytes: u64::MAX };

    fn are_left(&self) -> bool {
        self.cells > 0 && self.bytes > 0
    }

    fn take(&mut self, cell: &Cell) {
        self.cells -= 1;
        self.bytes = self.bytes.saturating_sub(cell.bytes().len() as u64);
    }
}
