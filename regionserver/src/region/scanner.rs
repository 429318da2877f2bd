//! A walk over the rows of a region, forward or in reverse, cell by cell.
//!
//! The caller asks for the next row, then for its cells until there are none. What the walk sees was
//! fixed when it began.

use std::sync::Arc;

use basalt_model::{Cell, CellKey, RegionInfo, SequenceId};
use basalt_storage::read::merge::row_after;
use basalt_storage::read::{Decision, MergeCursor, ReadRules, Visibility};
use basalt_storage::store_file::{ScannerOptions, StoreFile};
use bytes::Bytes;

use super::state::FamilyState;
use super::{Result, RowRead};

/// Which rows a walk covers. Rows of the region outside are not entered; an empty key is no bound.
#[derive(Clone, Debug)]
pub(crate) struct ScanRange {
    pub(crate) start: Bytes,
    pub(crate) include_start: bool,
    pub(crate) stop: Bytes,
    pub(crate) include_stop: bool,
    /// From high rows to low ones; then `start` is the high end.
    pub(crate) reversed: bool,
}

/// The walk.
pub(crate) struct RegionScanner {
    families: Vec<FamilyScan>,
    read_point: SequenceId,
    family_offset: u32,
    family_limit: Option<u32>,
    bounds: Bounds,
    row: Option<Bytes>,
    /// Which family the next cell comes from.
    family: usize,
    begun: bool,
    /// A cell that was read and given back.
    given_back: Option<Cell>,
}

struct FamilyScan {
    cursor: MergeCursor,
    visibility: Visibility,
    passed: u32,
    taken: u32,
}

/// The rows of a walk: at or after `low`, before `high` where there is one.
struct Bounds {
    low: Bytes,
    high: Option<Bytes>,
    reversed: bool,
}

// === impl ScanRange ===

impl ScanRange {
    /// One row.
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

    /// The part of the range that lies in `region`.
    fn within(self, region: &RegionInfo) -> Bounds {
        let Self { start, include_start, stop, include_stop, reversed } = self;
        let after = |row: &Bytes| Bytes::from(row_after(row));
        // The first row that is inside, and the first beyond the last, of a bound by itself.
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
            family_limit: read.family_limit,
            bounds: range.within(region),
            row: None,
            family: 0,
            begun: false,
            given_back: None,
        }
    }

    pub(super) fn add_family(
        &mut self,
        family: &FamilyState,
        files: Vec<Arc<StoreFile>>,
        rules: ReadRules,
        cache_blocks: bool,
    ) {
        let scanners = files.iter().map(|file| file.scanner(ScannerOptions { cache_blocks }));
        let (memstores, scanners) = (family.memstores(), scanners.collect::<Vec<_>>());
        let before_row = self.bounds.high.clone();
        let cursor = MergeCursor::new(memstores, scanners, self.read_point, before_row);
        let visibility = Visibility::new(rules);
        self.families.push(FamilyScan { cursor, visibility, passed: 0, taken: 0 });
    }

    /// The highest edit that the walk sees.
    pub(crate) fn read_point(&self) -> SequenceId {
        self.read_point
    }

    /// Goes to the next row that has cells, visible or not. `None` past the last.
    pub(crate) async fn next_row(&mut self) -> Result<Option<Bytes>> {
        let next = match self.bounds.reversed {
            false => self.next_row_forward().await?,
            true => self.next_row_reversed().await?,
        };
        self.row = next.filter(|row| self.bounds.contain(row));
        self.family = 0;
        for family in &mut self.families {
            family.begin_row();
        }
        Ok(self.row.clone())
    }

    /// The next visible cell of the row; `None` when there are no more.
    pub(crate) async fn next_cell(&mut self) -> Result<Option<Cell>> {
        if let Some(cell) = self.given_back.take() {
            return Ok(Some(cell));
        }
        let Some(row) = &self.row else { return Ok(None) };
        while let Some(family) = self.families.get_mut(self.family) {
            if let Some(cell) = family.next_visible(row).await? {
                if family.passed < self.family_offset {
                    family.passed += 1;
                    continue;
                }
                if self.family_limit.is_none_or(|limit| family.taken < limit) {
                    family.taken += 1;
                    return Ok(Some(cell));
                }
            }
            self.family += 1;
        }
        Ok(None)
    }

    /// Gives a cell back: it is the next one again.
    pub(crate) fn push_back(&mut self, cell: Option<Cell>) {
        self.given_back = cell;
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
    fn begin_row(&mut self) {
        self.visibility.begin_row();
        self.passed = 0;
        self.taken = 0;
    }

    async fn next_visible(&mut self, row: &[u8]) -> Result<Option<Cell>> {
        while let Some(cell) = self.cursor.peek() {
            if cell.row() != row {
                break;
            }
            match self.visibility.decide(cell) {
                Decision::Include => return Ok(self.cursor.take().await?),
                Decision::Skip => drop(self.cursor.take().await?),
                Decision::SkipColumn => self.cursor.skip_column().await?,
                Decision::SkipRow => self.cursor.skip_row().await?,
            }
        }
        Ok(None)
    }
}
