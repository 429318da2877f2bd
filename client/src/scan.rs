//! Reads rows in order: a scanner on one region after the other.
//!
//! Invariant: rows are returned complete, in order, and each once. If a scanner is lost (its server
//! died, its lease expired, its region moved), a new one is opened after the last complete row.
//! Parts of an incomplete row are discarded and read again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use basalt_hbase_rpc::{CallError, Reaction, Service, message_cells, pb};
use basalt_model::Cell;
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::locate::Place;
use crate::read::TimeRange;
use crate::{Columns, Error, RegionLocation, Result, RowResult, Table};

/// Which rows are read, and how.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The first row. If empty, the table's first row (reversed: the last one).
    pub start: Bytes,
    /// Whether `start` itself is read. Default yes.
    pub include_start: bool,
    /// The last row. If empty, the table's last row (reversed: the first one).
    pub stop: Bytes,
    /// Whether `stop` itself is read. Default no.
    pub include_stop: bool,
    /// Whether rows are read in descending order. Default no.
    pub reversed: bool,
    /// How many rows to read in total.
    pub rows_max: Option<u32>,
    /// How many rows a call requests at most. Default: as many as fit in `bytes_max`.
    pub rows_per_call: u32,
    /// How many bytes an answer may have, approximately. Default 2 MiB.
    pub bytes_max: u64,
    /// Which columns to read; all if none are named.
    pub columns: Columns,
    /// How many versions of each column to read. Default 1.
    pub versions_max: u32,
    /// Only versions with timestamps in this range.
    pub time_range: Option<TimeRange>,
    /// A filter, in the encoding of HBase's protocol.
    pub filter: Option<pb::Filter>,
    /// Whether the blocks that are read are kept in the block cache. Default yes.
    pub cache_blocks: bool,
    /// Whether deletes are returned and hide nothing. Default no.
    pub raw: bool,
}

/// A scan in progress. Dropping it closes the scanner on the server.
#[derive(Debug)]
pub struct Scanner {
    table: Table,
    scan: Scan,
    /// Where to continue if a new scanner must be opened.
    position: Position,
    open: Option<OpenScanner>,
    /// Complete rows that were not returned yet.
    ready: VecDeque<Vec<Cell>>,
    /// A row of which only the first part has arrived.
    partial: Option<Vec<Cell>>,
    rows_read: u32,
    done: bool,
}

#[derive(Clone, Debug)]
struct Position {
    row: Bytes,
    include: bool,
}

#[derive(Debug)]
struct OpenScanner {
    location: Arc<RegionLocation>,
    id: u64,
    next_call: u64,
}

/// Java's "as many as fit".
const ROWS_UNBOUNDED: u32 = i32::MAX as u32;
/// How long to wait for closing a scanner that is no longer needed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

// === impl Scan ===

impl Default for Scan {
    fn default() -> Self {
        Self {
            start: Bytes::new(),
            include_start: true,
            stop: Bytes::new(),
            include_stop: false,
            reversed: false,
            rows_max: None,
            rows_per_call: ROWS_UNBOUNDED,
            bytes_max: 2 << 20,
            columns: Columns::default(),
            versions_max: 1,
            time_range: None,
            filter: None,
            cache_blocks: true,
            raw: false,
        }
    }
}

impl Scan {
    /// All rows from `start` up to, but not including, `stop`.
    pub fn range(start: impl Into<Bytes>, stop: impl Into<Bytes>) -> Self {
        Self { start: start.into(), stop: stop.into(), ..Self::default() }
    }

    fn to_message(&self, position: &Position) -> pb::Scan {
        pb::Scan {
            column: self.columns.to_message(),
            start_row: Some(position.row.clone()),
            include_start_row: Some(position.include),
            stop_row: Some(self.stop.clone()),
            include_stop_row: Some(self.include_stop),
            reversed: Some(self.reversed),
            filter: self.filter.clone(),
            time_range: self.time_range.map(TimeRange::to_message),
            max_versions: Some(self.versions_max),
            cache_blocks: Some(self.cache_blocks),
            max_result_size: Some(self.bytes_max),
            caching: Some(self.rows_per_call),
            attribute: self.raw.then(raw_attribute).into_iter().collect(),
            ..Default::default()
        }
    }

    /// Whether the scan does not continue beyond `region`.
    fn ends_in(&self, location: &RegionLocation) -> bool {
        let region = &location.region;
        if self.reversed {
            let start = &region.start_key;
            return start.is_empty() || (!self.stop.is_empty() && *start <= self.stop);
        }
        let end = &region.end_key;
        end.is_empty()
            || (!self.stop.is_empty()
                && (*end > self.stop || (*end == self.stop && !self.include_stop)))
    }
}

/// The attribute that marks a scan as raw in HBase's clients.
fn raw_attribute() -> pb::NameBytesPair {
    pb::NameBytesPair { name: "_raw_".to_owned(), value: Some(Bytes::from_static(&[0xFF])) }
}

// === impl Scanner ===

impl Scanner {
    pub(crate) fn new(table: Table, scan: Scan) -> Self {
        let position = Position { row: scan.start.clone(), include: scan.include_start };
        Self {
            table,
            scan,
            position,
            open: None,
            ready: VecDeque::new(),
            partial: None,
            rows_read: 0,
            done: false,
        }
    }

    /// The next row; `None` at the end. Cancel safe: after a dropped call, the next one repeats it.
    ///
    /// # Errors
    /// Any [`Error`]. The scan can be continued afterwards.
    pub async fn next(&mut self) -> Result<Option<RowResult>> {
        let retry = self.table.connection.shared.config.retry.clone();
        let started = Instant::now();
        let deadline = started + retry.operation_timeout;
        let mut attempts = 0;
        loop {
            if let Some(cells) = self.ready.pop_front() {
                return Ok(Some(self.give(cells)));
            }
            if self.done || self.scan.rows_max.is_some_and(|max| self.rows_read >= max) {
                self.done = true;
                self.close().await;
                return Ok(None);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match self.step(retry.attempt_timeout.min(left)).await {
                Ok(()) => {
                    attempts = 0;
                    continue;
                }
                Err(error) => error,
            };
            if !error.is_retried() {
                return Err(error);
            }
            attempts += 1;
            let random = &self.table.connection.shared.seams.random;
            let pause = retry.pause(random, attempts, &error);
            if Instant::now() + pause >= deadline {
                return Err(Error::OutOfTime {
                    operation: "scan",
                    attempts,
                    waited: started.elapsed(),
                    last: Box::new(error),
                });
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// All remaining rows.
    ///
    /// # Errors
    /// As [`Scanner::next`].
    pub async fn rows(&mut self) -> Result<Vec<RowResult>> {
        let mut rows = Vec::new();
        while let Some(row) = self.next().await? {
            rows.push(row);
        }
        Ok(rows)
    }

    /// Keeps the scanner alive on its server while the caller processes the rows that were read.
    ///
    /// # Errors
    /// Any [`Error`]. The scan can still continue, with a new scanner.
    pub async fn renew(&mut self) -> Result<()> {
        let Some(open) = self.open.as_mut() else {
            return Ok(());
        };
        let request = pb::ScanRequest {
            scanner_id: Some(open.id),
            number_of_rows: Some(0),
            close_scanner: Some(false),
            next_call_seq: Some(open.next_call),
            client_handles_partials: Some(true),
            client_handles_heartbeats: Some(true),
            renew: Some(true),
            ..Default::default()
        };
        open.next_call += 1;
        let location = open.location.clone();
        let wait = self.table.connection.shared.config.retry.attempt_timeout;
        let called = self.table.call_at(&location, "Scan", &request, &[], wait);
        let answer: Result<(pb::ScanResponse, _)> = called.await;
        if let Err(error) = answer {
            self.open = None;
            return Err(error);
        }
        Ok(())
    }

    /// Closes the scanner on its server; [`Scanner::next`] would open a new one.
    pub async fn close(&mut self) {
        if let Some(open) = self.open.take() {
            close(&self.table, open).await;
        }
    }

    fn give(&mut self, cells: Vec<Cell>) -> RowResult {
        self.rows_read += 1;
        RowResult { cells, stale: false }
    }

    /// Makes one call: opens a scanner on the region at the position, or continues with the open
    /// one. Boxed like the attempt of [`Table::try_put`].
    fn step(&mut self, wait: Duration) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.step_here(wait))
    }

    async fn step_here(&mut self, wait: Duration) -> Result<()> {
        let deadline = Instant::now() + wait;
        let location = match &self.open {
            Some(open) => open.location.clone(),
            None => {
                // The parts came from the scanner that was lost.
                self.partial = None;
                self.locate(wait).await?
            }
        };
        let request = self.request(&location);
        // The scanner counts as lost until the answer arrives.
        let open = self.open.take();
        let left = deadline.saturating_duration_since(Instant::now());
        let called = self.table.call_at(&location, "Scan", &request, &[], left);
        let answer: Result<(pb::ScanResponse, Vec<Cell>)> = called.await;
        let (response, cells) = match answer {
            Ok(answer) => answer,
            Err(Error::Call(CallError::Remote(exception)))
                if exception.reaction() == Reaction::ReopenScanner =>
            {
                // The server works, so retry immediately, unless the scanner was just opened.
                return match open {
                    Some(_) => Ok(()),
                    None => Err(CallError::Remote(exception).into()),
                };
            }
            Err(error) => return Err(error),
        };
        self.take_in(location, open, &response, cells)
    }

    fn take_in(
        &mut self,
        location: Arc<RegionLocation>,
        open: Option<OpenScanner>,
        response: &pb::ScanResponse,
        cells: Vec<Cell>,
    ) -> Result<()> {
        let results = message_cells::scanned_results(response, cells)
            .map_err(|source| Error::BadAnswer { server: location.server.clone(), source })?;
        for (index, cells) in results.into_iter().enumerate() {
            let is_partial = match response.partial_flag_per_result.get(index) {
                Some(flag) => *flag,
                None => response.results.get(index).is_some_and(pb::Result::partial),
            };
            self.add(cells, is_partial);
        }
        if response.more_results == Some(false) {
            self.complete();
            self.done = true;
            return Ok(());
        }
        if response.more_results_in_region == Some(false) {
            self.complete();
            self.leave(&location);
            return Ok(());
        }
        let id = response.scanner_id.or(open.as_ref().map(|open| open.id));
        // Without an id (a server that returns everything in one answer) the region is done.
        let Some(id) = id else {
            self.complete();
            self.leave(&location);
            return Ok(());
        };
        // The opening call has no number; later calls count from 0.
        let next_call = open.map_or(0, |open| open.next_call + 1);
        self.open = Some(OpenScanner { location, id, next_call });
        Ok(())
    }

    /// Adds a row, or a part of one.
    fn add(&mut self, cells: Vec<Cell>, is_partial: bool) {
        if cells.is_empty() {
            return;
        }
        let same_row =
            |partial: &Vec<Cell>| partial.first().map(Cell::row) == cells.first().map(Cell::row);
        let row = match self.partial.take() {
            Some(mut partial) if same_row(&partial) => {
                partial.extend(cells);
                partial
            }
            Some(partial) => {
                self.finish_row(partial);
                cells
            }
            None => cells,
        };
        if is_partial {
            self.partial = Some(row);
        } else {
            self.finish_row(row);
        }
    }

    /// Finishes the last row, because no more of it will arrive.
    fn complete(&mut self) {
        if let Some(partial) = self.partial.take() {
            self.finish_row(partial);
        }
    }

    /// Finishes a row: it will be returned, and is not read again.
    fn finish_row(&mut self, cells: Vec<Cell>) {
        if let Some(first) = cells.first() {
            // Copied, not a slice of the answer, because it is kept for long.
            let row = Bytes::copy_from_slice(first.row());
            self.position = Position { row, include: false };
        }
        self.ready.push_back(cells);
    }

    /// The region is done: moves to the next one, if the scan continues there.
    fn leave(&mut self, location: &RegionLocation) {
        if self.scan.ends_in(location) {
            self.done = true;
            return;
        }
        let region = &location.region;
        self.position = if self.scan.reversed {
            Position { row: region.start_key.clone(), include: false }
        } else {
            Position { row: region.end_key.clone(), include: true }
        };
    }

    async fn locate(&self, wait: Duration) -> Result<Arc<RegionLocation>> {
        let Position { row, include } = &self.position;
        // In descending order from a row that is not included, or from the end of the table.
        let place = if self.scan.reversed && (row.is_empty() || !include) {
            Place::Before(row)
        } else {
            Place::Of(row)
        };
        let shared = &self.table.connection.shared;
        shared.locate(&self.table.regions, place, wait).await
    }

    fn request(&self, location: &RegionLocation) -> pb::ScanRequest {
        let left = self.scan.rows_max.map(|max| {
            let ready = u32::try_from(self.ready.len()).unwrap_or(u32::MAX);
            max.saturating_sub(self.rows_read).saturating_sub(ready)
        });
        let (region, scan) = match &self.open {
            Some(_) => (None, None),
            None => {
                let scan = self.scan.to_message(&self.position);
                (Some(location.specifier()), Some(scan))
            }
        };
        pb::ScanRequest {
            region,
            scan,
            scanner_id: self.open.as_ref().map(|open| open.id),
            next_call_seq: self.open.as_ref().map(|open| open.next_call),
            number_of_rows: Some(self.scan.rows_per_call),
            limit_of_rows: left,
            close_scanner: Some(false),
            client_handles_partials: Some(true),
            client_handles_heartbeats: Some(true),
            ..Default::default()
        }
    }
}

impl Drop for Scanner {
    fn drop(&mut self) {
        if let Some(open) = self.open.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let table = self.table.clone();
            runtime.spawn(async move { close(&table, open).await });
        }
    }
}

/// Best effort: a scanner that is not closed ends with its lease.
fn close(table: &Table, open: OpenScanner) -> BoxFuture<'_, ()> {
    Box::pin(close_here(table, open))
}

async fn close_here(table: &Table, open: OpenScanner) {
    let request = pb::ScanRequest {
        scanner_id: Some(open.id),
        close_scanner: Some(true),
        number_of_rows: Some(0),
        client_handles_partials: Some(true),
        client_handles_heartbeats: Some(true),
        ..Default::default()
    };
    let pool = &table.connection.shared.pool;
    let address = open.location.server.address();
    let closed = tokio::time::timeout(CLOSE_TIMEOUT, async {
        let connection = pool.get(&address, Service::Client).await?;
        connection.call("Scan", &request, &[], CLOSE_TIMEOUT).await
    });
    let _ = closed.await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Connection, ConnectionConfig, RegistryConfig};
    use basalt_model::RegionInfo;
    use basalt_runtime::Seams;

    fn scanner(scan: Scan) -> Scanner {
        let servers = Vec::new();
        let config = ConnectionConfig::new(RegistryConfig::Bootstrap { servers });
        let connection = Connection::new(&Seams::system(), config);
        connection.table(&"t".parse().unwrap()).scan(scan)
    }

    fn cell(row: &str, qualifier: &str) -> Vec<Cell> {
        let (row, qualifier) = (row.as_bytes(), qualifier.as_bytes());
        vec![Cell::put(row, b"f", qualifier, 1, b"v").unwrap()]
    }

    fn location(start: &'static str, end: &'static str) -> RegionLocation {
        let (start, end) = (Bytes::from(start), Bytes::from(end));
        let region = RegionInfo::primary("t".parse().unwrap(), start, end, 1);
        RegionLocation {
            name: region.name(),
            region,
            server: "a,1,1".parse().unwrap(),
            open_sequence_id: 1,
            replicas: std::collections::BTreeMap::new(),
        }
    }

    fn shapes(scanner: &Scanner) -> Vec<(&[u8], usize)> {
        let rows = scanner.ready.iter();
        rows.map(|cells| (cells[0].row(), cells.len())).collect()
    }

    #[test]
    fn pieces_of_a_row_are_put_together() {
        let mut scanner = scanner(Scan::default());
        scanner.add(cell("a", "1"), true);
        scanner.add(cell("a", "2"), true);
        scanner.add(cell("a", "3"), false);
        // The server may notice only later that a part was the last one.
        scanner.add(cell("b", "1"), true);
        scanner.add(cell("c", "1"), true);
        scanner.complete();
        let expected: [(&[u8], usize); 3] = [(b"a", 3), (b"b", 1), (b"c", 1)];
        assert_eq!(shapes(&scanner), expected);
    }

    #[test]
    fn a_scan_ends_in_the_region_of_its_stop_row() {
        let range = |stop: &'static str, include_stop, reversed| Scan {
            stop: Bytes::from(stop),
            include_stop,
            reversed,
            ..Scan::default()
        };
        let middle = location("d", "h");
        for (scan, ends) in [
            (range("", false, false), false),
            (range("f", false, false), true),
            (range("h", false, false), true),
            (range("h", true, false), false),
            (range("i", false, false), false),
            (range("", false, true), false),
            (range("e", false, true), true),
            (range("d", true, true), true),
            (range("c", true, true), false),
        ] {
            assert_eq!(scan.ends_in(&middle), ends, "{scan:?}");
        }
        assert!(range("", false, false).ends_in(&location("h", "")));
        assert!(range("", false, true).ends_in(&location("", "d")));
    }

    #[test]
    fn a_scanner_is_opened_again_after_the_last_row_that_came_whole() {
        let mut scanner = scanner(Scan::default());
        scanner.add(cell("b", "1"), false);
        scanner.add(cell("c", "1"), true);
        let request = scanner.request(&location("", ""));
        let scan = request.scan.unwrap();
        assert_eq!(scan.start_row.as_deref(), Some(&b"b"[..]));
        assert_eq!(scan.include_start_row, Some(false));
    }
}
