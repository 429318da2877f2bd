//! One call of a scan: collects rows until a limit of the call is reached.

use basalt_model::Cell;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::Result;
use crate::filter::RowFilter;
use crate::region::{RegionScanner, ScanLimits};

/// The state of a scan between calls.
pub(super) struct Paging {
    pub(super) scanner: RegionScanner,
    pub(super) filter: Option<RowFilter>,
    /// How many cells a result holds at most. A wider row is split into several results.
    pub(super) batch: Option<usize>,
    /// How many more rows the whole scan returns at most.
    pub(super) rows_left: Option<u64>,
    /// Whether the last result ended inside a row.
    pub(super) inside_row: bool,
    /// Whether the client can assemble rows from parts.
    pub(super) partials: bool,
}

/// Why a call ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// A limit of this call was reached.
    Call,
    /// The time limit was reached.
    Time,
    /// The region has no more rows.
    Region,
    /// The scan wants no more rows from any region.
    Scan,
}

/// What a call has collected.
#[derive(Default)]
pub(super) struct Gathered {
    /// The cells of all results, one result after another.
    pub(super) cells: Vec<Cell>,
    pub(super) results: Vec<GatheredResult>,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// One result, which consists of some of the cells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct GatheredResult {
    pub(super) cells: usize,
    /// Whether more cells of the row follow.
    pub(super) partial: bool,
}

/// The limits of one call.
pub(super) struct Limits {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) until: Option<Instant>,
}

/// After this many bytes of cells, other tasks may run.
const PAUSE_BYTES: u64 = 128 << 10;

// === impl Paging ===

impl Paging {
    /// Collects results until a limit is reached.
    pub(super) async fn gather(&mut self, limits: &Limits, gathered: &mut Gathered) -> Result<End> {
        let mut pause_at = PAUSE_BYTES;
        loop {
            if gathered.bytes >= pause_at {
                pause_at = gathered.bytes + PAUSE_BYTES;
                yield_now().await;
            }
            // Checked first, because it saves the client a call that only closes the scanner.
            if self.rows_left == Some(0)
                || self.filter.as_ref().is_some_and(|filter| filter.is_done())
            {
                return Ok(End::Scan);
            }
            if gathered.rows >= limits.rows || gathered.bytes >= limits.bytes {
                return Ok(End::Call);
            }
            if limits.until.is_some_and(|until| Instant::now() >= until) {
                return Ok(End::Time);
            }
            // With a filter, more cells are read than collected.
            if self.filter.is_none()
                && let Some(cells) = gathered.cells_left(limits)
            {
                self.scanner.expect(cells);
            }
            let row = if std::mem::take(&mut self.inside_row) {
                None
            } else {
                match self.scanner.next_row().await? {
                    Some(row) => Some(row),
                    None => return Ok(End::Region),
                }
            };
            match (&mut self.filter, row) {
                (Some(filter), Some(row)) => {
                    if filter.begins_row(&row) {
                        let mut cells = Vec::new();
                        self.scanner.take_row(&mut cells).await?;
                        let cells = filter.filter_cells(cells);
                        self.add_row(cells, gathered);
                    }
                }
                _ => {
                    if self.gather_row(limits, gathered).await? {
                        self.inside_row = true;
                        return Ok(End::Call);
                    }
                }
            }
        }
    }

    /// Collects the rest of the current row. Returns whether the row was cut at the byte limit.
    async fn gather_row(&mut self, limits: &Limits, gathered: &mut Gathered) -> Result<bool> {
        let before = gathered.cells.len();
        loop {
            let begun = gathered.cells.len();
            let bytes = match self.partials {
                true => limits.bytes.saturating_sub(gathered.bytes),
                false => u64::MAX,
            };
            let row_limits = ScanLimits { cells: self.batch.unwrap_or(usize::MAX), bytes };
            let has_more = self.scanner.take_cells(row_limits, &mut gathered.cells).await?;
            gathered.end_result(begun, has_more);
            if !has_more {
                break;
            }
            if self.partials && gathered.bytes >= limits.bytes {
                return Ok(true);
            }
        }
        if gathered.cells.len() > before {
            self.count_row(gathered);
        }
        Ok(false)
    }

    fn add_row(&mut self, cells: Vec<Cell>, gathered: &mut Gathered) {
        if cells.is_empty() {
            return;
        }
        let batch = self.batch.unwrap_or(cells.len());
        let mut cells = cells.into_iter();
        while cells.len() > 0 {
            let begun = gathered.cells.len();
            gathered.cells.extend(cells.by_ref().take(batch));
            gathered.end_result(begun, cells.len() > 0);
        }
        self.count_row(gathered);
    }

    fn count_row(&mut self, gathered: &mut Gathered) {
        gathered.rows += 1;
        self.rows_left = self.rows_left.map(|left| left.saturating_sub(1));
    }
}

// === impl Gathered ===

impl Gathered {
    /// How many more cells `limits` allow, if the next rows are like those collected so far.
    fn cells_left(&self, limits: &Limits) -> Option<usize> {
        let cells = self.cells.len() as u64;
        let by_rows = (limits.rows - self.rows).saturating_mul(cells).checked_div(self.rows)?;
        let by_bytes = (limits.bytes - self.bytes).saturating_mul(cells).checked_div(self.bytes)?;
        // One more cell, because only the next row's first cell shows that a row has ended.
        usize::try_from(by_rows.min(by_bytes).saturating_add(1)).ok()
    }

    /// Makes a result of the cells from `begun` on, if there are any.
    fn end_result(&mut self, begun: usize, partial: bool) {
        let cells = &self.cells[begun..];
        if !cells.is_empty() {
            self.bytes += cells.iter().map(|cell| cell.bytes().len() as u64).sum::<u64>();
            self.results.push(GatheredResult { cells: cells.len(), partial });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::testing::{TestServer, put, range, shown};
    use crate::region::{Region, RowRead};
    use basalt_fs::MemoryFileSystem;
    use std::sync::Arc;
    use std::time::Duration;

    const ALL: Limits = Limits { rows: u64::MAX, bytes: u64::MAX, until: None };

    /// A region with rows `a` to `c` of three columns each.
    async fn region() -> Arc<Region> {
        let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
        let region = server.region(1).await;
        for row in ["a", "b", "c"] {
            for column in ["f:1", "f:2", "g:3"] {
                put(&region, row, column, row).await.unwrap();
            }
        }
        region
    }

    async fn paging(region: &Region) -> Paging {
        Paging {
            scanner: region.scan(&RowRead::all(), range("", false)).await.unwrap(),
            filter: None,
            batch: None,
            rows_left: None,
            inside_row: false,
            partials: true,
        }
    }

    /// The result of one call: the results, partial ones with a `+`, and why it ended.
    async fn call(paging: &mut Paging, limits: Limits) -> (Vec<String>, End) {
        let mut gathered = Gathered::default();
        let end = paging.gather(&limits, &mut gathered).await.unwrap();
        let mut cells = gathered.cells.iter();
        let results = gathered.results.iter().map(|result| {
            let cells: Vec<String> = cells.by_ref().take(result.cells).map(shown).collect();
            cells.join(" ") + if result.partial { " +" } else { "" }
        });
        let results = results.collect();
        assert_eq!(cells.len(), 0, "cells of no result");
        (results, end)
    }

    fn owned(results: &[&str]) -> Vec<String> {
        results.iter().map(|result| (*result).to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_at_its_rows_and_the_next_goes_on() {
        let region = region().await;
        let mut paging = paging(&region).await;
        let (results, end) = call(&mut paging, Limits { rows: 2, ..ALL }).await;
        assert_eq!(results, owned(&["f:1=a f:2=a g:3=a", "f:1=b f:2=b g:3=b"]));
        assert_eq!(end, End::Call);
        let (results, end) = call(&mut paging, Limits { rows: 2, ..ALL }).await;
        assert_eq!((results, end), (owned(&["f:1=c f:2=c g:3=c"]), End::Region));
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_of_the_whole_scan_ends_it() {
        let region = region().await;
        for limits in [ALL, Limits { rows: 1, ..ALL }] {
            let mut paging = Paging { rows_left: Some(1), ..paging(&region).await };
            let (results, end) = call(&mut paging, limits).await;
            assert_eq!((results.len(), end), (1, End::Scan));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_that_does_not_fit_is_cut_and_loses_no_cell() {
        let region = region().await;
        let mut paging = paging(&region).await;
        let small = || Limits { bytes: 1, ..ALL };
        for expected in ["f:1=a +", "f:2=a +", "g:3=a", "f:1=b +"] {
            let (results, end) = call(&mut paging, small()).await;
            assert_eq!((results, end), (owned(&[expected]), End::Call));
        }
        let (results, end) = call(&mut paging, ALL).await;
        assert_eq!(results, owned(&["f:2=b g:3=b", "f:1=c f:2=c g:3=c"]));
        assert_eq!(end, End::Region);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_cannot_stitch_get_whole_rows() {
        let region = region().await;
        let mut paging = Paging { partials: false, ..paging(&region).await };
        let (results, end) = call(&mut paging, Limits { bytes: 1, ..ALL }).await;
        assert_eq!((results, end), (owned(&["f:1=a f:2=a g:3=a"]), End::Call));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_cuts_rows_into_results() {
        let region = region().await;
        let mut paging = Paging { batch: Some(2), ..paging(&region).await };
        let (results, end) = call(&mut paging, Limits { rows: 1, ..ALL }).await;
        assert_eq!((results, end), (owned(&["f:1=a f:2=a +", "g:3=a"]), End::Call));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_time_is_over_returns_without_rows_and_loses_none() {
        let region = region().await;
        let mut paging = paging(&region).await;
        let over = Instant::now() + Duration::from_millis(1);
        tokio::time::advance(Duration::from_millis(1)).await;
        let (results, end) = call(&mut paging, Limits { until: Some(over), ..ALL }).await;
        assert_eq!((results.len(), end), (0, End::Time));
        assert_eq!(call(&mut paging, ALL).await.0.len(), 3);
    }
}
