//! `Scan`: open, next, renew and close.
//!
//! An open scanner is kept between calls under an id and a lease. Each call returns what fits its
//! limits: rows, bytes and time. A row that does not fit is cut and marked partial, for clients that
//! can stitch it; where time runs out first, the reply is a heartbeat and the client calls again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use basalt_hbase_rpc::{Call, Exception, ExceptionKind, Reply, pb};
use basalt_model::Cell;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::results::Results;
use super::{Result, Rpc, decode, request};
use crate::filter::{self, Filter};
use crate::region::RegionScanner;
use crate::server::Served;

/// How long a scanner is kept without a call. HBase's default.
const LEASE: Duration = Duration::from_secs(60);
/// How many scanners are open at once.
const SCANNERS_MAX: usize = 10_000;
/// A reply is closed at this many bytes of cells, whatever the client allows.
const REPLY_BYTES_MAX: u64 = 64 << 20;
/// A call is answered within this time, rows or none, if its client takes heartbeats.
const TIME_MAX: Duration = Duration::from_secs(10);

/// The open scanners of a server, by id.
#[derive(Default)]
pub(super) struct Scanners {
    open: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last_id: u64,
    scanners: BTreeMap<u64, (Arc<tokio::sync::Mutex<OpenScanner>>, Instant)>,
}

/// A scan under way.
struct OpenScanner {
    served: Arc<Served>,
    scanner: RegionScanner,
    filter: Option<Box<dyn Filter>>,
    /// How many cells a result holds at most; a wider row is cut into several.
    batch: Option<usize>,
    /// How many rows the whole scan returns at most.
    rows_left: Option<u64>,
    result_bytes_max: u64,
    next_call: u64,
    /// The row that was cut, if one was.
    inside_row: bool,
    /// Whether the client can stitch rows that were cut.
    partials: bool,
}

/// Why a reply was closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// The limits of this call are reached.
    Call,
    /// The time is over.
    Time,
    /// There are no more rows in the region.
    Region,
    /// The scan wants no more rows, of any region.
    Scan,
}

/// What a call has gathered.
#[derive(Default)]
struct Gathered {
    results: Vec<(Vec<Cell>, bool)>,
    rows: u64,
    bytes: u64,
}

/// The limits of one call.
struct Limits {
    rows: u64,
    bytes: u64,
    until: Option<Instant>,
}

// === impl Rpc ===

impl Rpc {
    pub(super) async fn scan(&self, call: Call) -> Result<Reply> {
        let request: pb::ScanRequest = request(&call)?;
        let opened = match request.scanner_id {
            Some(id) => (id, self.scanners.get(id)?),
            None => self.open_scanner(&request).await?,
        };
        let (id, scanner) = opened;
        let mut scanner = scanner.lock().await;
        if request.renew() {
            let response = response(id, &scanner);
            return Ok(Reply::new(&response));
        }
        match self.next(&call, &request, id, &mut scanner).await {
            Ok(reply) => Ok(reply),
            Err(exception) => {
                self.scanners.close(id);
                Err(exception)
            }
        }
    }

    async fn open_scanner(
        &self,
        request: &pb::ScanRequest,
    ) -> Result<(u64, Arc<tokio::sync::Mutex<OpenScanner>>)> {
        let (Some(region), Some(scan)) = (&request.region, &request.scan) else {
            let message = "a scan needs a scanner id, or a region and what to scan";
            return Err(Exception::bad_request(message));
        };
        let served = self.region(region)?;
        let read = decode::scan_read(scan);
        let scanner = served.region.scan(&read, decode::scan_range(scan)).await?;
        let filter = scan.filter.as_ref().map(filter::decode).transpose()?;
        let whole_rows = filter.is_some();
        self.scanners.open(OpenScanner {
            served,
            scanner,
            filter,
            batch: scan.batch_size.filter(|size| *size > 0).map(|size| size as usize),
            rows_left: Some(u64::from(request.limit_of_rows())).filter(|limit| *limit > 0),
            result_bytes_max: scan
                .max_result_size
                .unwrap_or(REPLY_BYTES_MAX)
                .clamp(1, REPLY_BYTES_MAX),
            next_call: 0,
            inside_row: false,
            partials: request.client_handles_partials() && !whole_rows,
        })
    }

    async fn next(
        &self,
        call: &Call,
        request: &pb::ScanRequest,
        id: u64,
        scanner: &mut OpenScanner,
    ) -> Result<Reply> {
        scanner.check_call(request)?;
        self.check_served(scanner)?;
        let limits = Limits {
            rows: request.number_of_rows.map_or(u64::MAX, u64::from),
            bytes: scanner.result_bytes_max,
            until: request.client_handles_heartbeats().then(|| Instant::now() + time_of(call)),
        };
        let mut gathered = Gathered::default();
        let end = if limits.rows == 0 && request.scanner_id.is_none() {
            End::Call
        } else {
            scanner.gather(&limits, &mut gathered).await?
        };
        // Rows are answered only while the server may act as the owner.
        let region = &scanner.served.region;
        region.check_lease().await?;
        self.check_served(scanner)?;
        let mut response = response(id, scanner);
        if request.scanner_id.is_none() {
            response.mvcc_read_point = Some(scanner.scanner.read_point().0);
        }
        response.more_results = Some(end != End::Scan);
        response.more_results_in_region = Some(!matches!(end, End::Region | End::Scan));
        response.heartbeat_message = Some(end == End::Time);
        let mut results = Results::of(call);
        for (cells, partial) in gathered.results {
            if results.inside() {
                let mut result = results.add(cells);
                result.partial = Some(partial);
                response.results.push(result);
            } else {
                response.cells_per_result.push(u32::try_from(cells.len()).unwrap_or(u32::MAX));
                response.partial_flag_per_result.push(partial);
                results.add_beside(cells);
            }
        }
        if request.close_scanner() || matches!(end, End::Region | End::Scan) {
            self.scanners.close(id);
        }
        Ok(Reply::with_cells(&response, results.into_cells()))
    }

    /// A region that was closed, or opened anew, since the scanner was made: the client finds it again.
    fn check_served(&self, scanner: &OpenScanner) -> Result<()> {
        let name = scanner.served.region.encoded_name;
        match self.server.region(name) {
            Some(served) if Arc::ptr_eq(&served, &scanner.served) => Ok(()),
            _ => Err(self.not_here(name)),
        }
    }
}

fn response(id: u64, _scanner: &OpenScanner) -> pb::ScanResponse {
    pb::ScanResponse {
        scanner_id: Some(id),
        more_results: Some(true),
        more_results_in_region: Some(true),
        ttl: u32::try_from(LEASE.as_millis()).ok(),
        ..pb::ScanResponse::default()
    }
}

/// Half of what the client waits, so that the answer is there in time.
fn time_of(call: &Call) -> Duration {
    let left = call.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()) / 2);
    left.map_or(TIME_MAX, |left| left.min(TIME_MAX)).max(Duration::from_millis(1))
}

// === impl OpenScanner ===

impl OpenScanner {
    fn check_call(&mut self, request: &pb::ScanRequest) -> Result<()> {
        let Some(given) = request.next_call_seq else { return Ok(()) };
        if request.scanner_id.is_some() && given != self.next_call {
            let message = format!("expected call {} of the scanner, got {given}", self.next_call);
            return Err(Exception::new(ExceptionKind::OutOfOrderScannerNext, message));
        }
        self.next_call += u64::from(request.scanner_id.is_some());
        Ok(())
    }

    /// Gathers results until a limit is reached.
    async fn gather(&mut self, limits: &Limits, gathered: &mut Gathered) -> Result<End> {
        loop {
            if gathered.rows >= limits.rows || gathered.bytes >= limits.bytes {
                return Ok(End::Call);
            }
            if limits.until.is_some_and(|until| Instant::now() >= until) {
                return Ok(End::Time);
            }
            if self.rows_left == Some(0)
                || self.filter.as_ref().is_some_and(|filter| filter.is_done())
            {
                return Ok(End::Scan);
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
                    let cells = collect_row(&mut self.scanner).await?;
                    if let Some(cells) = filter.filter_row(&row, cells) {
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

    /// Gathers the rest of the present row. Returns whether it was cut by the limit of bytes.
    async fn gather_row(&mut self, limits: &Limits, gathered: &mut Gathered) -> Result<bool> {
        let mut cells = Vec::new();
        let mut any = false;
        // One cell is read ahead, so that a result that ends the row is not marked as a part of it.
        let mut next = self.scanner.next_cell().await?;
        while let Some(cell) = next {
            gathered.bytes += cell.bytes().len() as u64;
            cells.push(cell);
            any = true;
            next = self.scanner.next_cell().await?;
            let batch_full = self.batch.is_some_and(|batch| cells.len() >= batch);
            if batch_full && next.is_some() {
                gathered.results.push((std::mem::take(&mut cells), true));
            }
            if self.partials && gathered.bytes >= limits.bytes && next.is_some() {
                if !cells.is_empty() {
                    gathered.results.push((cells, true));
                }
                self.scanner.push_back(next);
                return Ok(true);
            }
        }
        if any {
            if !cells.is_empty() {
                gathered.results.push((cells, false));
            }
            self.count_row(gathered);
        }
        Ok(false)
    }

    fn add_row(&mut self, cells: Vec<Cell>, gathered: &mut Gathered) {
        if cells.is_empty() {
            return;
        }
        gathered.bytes += cells.iter().map(|cell| cell.bytes().len() as u64).sum::<u64>();
        let size = self.batch.unwrap_or(cells.len());
        let parts = cells.chunks(size.max(1)).collect::<Vec<_>>();
        let last = parts.len() - 1;
        for (index, part) in parts.into_iter().enumerate() {
            gathered.results.push((part.to_vec(), index < last));
        }
        self.count_row(gathered);
    }

    fn count_row(&mut self, gathered: &mut Gathered) {
        gathered.rows += 1;
        self.rows_left = self.rows_left.map(|left| left.saturating_sub(1));
    }
}

async fn collect_row(scanner: &mut RegionScanner) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    while let Some(cell) = scanner.next_cell().await? {
        cells.push(cell);
    }
    Ok(cells)
}

// === impl Scanners ===

impl Scanners {
    fn open(&self, scanner: OpenScanner) -> Result<(u64, Arc<tokio::sync::Mutex<OpenScanner>>)> {
        let mut table = self.open.lock();
        let now = Instant::now();
        // A scanner that was left behind keeps memstores and files alive.
        table.scanners.retain(|_, (_, ends_at)| *ends_at > now);
        if table.scanners.len() >= SCANNERS_MAX {
            let message = format!("{SCANNERS_MAX} scanners are open on this server");
            return Err(Exception::new(ExceptionKind::CallQueueTooBig, message));
        }
        table.last_id += 1;
        let id = table.last_id;
        let scanner = Arc::new(tokio::sync::Mutex::new(scanner));
        table.scanners.insert(id, (Arc::clone(&scanner), now + LEASE));
        Ok((id, scanner))
    }

    /// The scanner of this id; its lease begins anew.
    fn get(&self, id: u64) -> Result<Arc<tokio::sync::Mutex<OpenScanner>>> {
        let mut table = self.open.lock();
        let now = Instant::now();
        match table.scanners.get_mut(&id) {
            Some((scanner, ends_at)) if *ends_at > now => {
                *ends_at = now + LEASE;
                Ok(Arc::clone(scanner))
            }
            _ => {
                table.scanners.remove(&id);
                let message = format!("scanner {id} is not open here: its lease may be over");
                Err(Exception::new(ExceptionKind::UnknownScanner, message))
            }
        }
    }

    fn close(&self, id: u64) {
        self.open.lock().scanners.remove(&id);
    }
}
