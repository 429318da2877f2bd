//! `Scan`: open, next, renew and close.
//!
//! Between calls, an open scanner is kept under an id, with a lease. Each call returns what fits
//! its limits: rows, bytes and time. For clients that can assemble rows from parts, a row that does
//! not fit is cut and marked partial. If time runs out first, the reply is a heartbeat and the
//! client calls again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use basalt_hbase_rpc::{Call, Exception, ExceptionKind, Reply, message_cells, pb};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::paging::{End, Gathered, Limits, Paging};
use super::{Purpose, Result, Rpc, decode, request};
use crate::filter::RowFilter;
use crate::server::Served;

/// How long a scanner is kept without a call. This is HBase's default.
const LEASE: Duration = Duration::from_secs(60);
/// How many scanners are open at once.
const SCANNERS_MAX: usize = 10_000;
/// A reply has at most about this many bytes of cells, even if the client allows more.
const REPLY_BYTES_MAX: u64 = 64 << 20;
/// A call is answered within this time, with or without rows, if its client accepts heartbeats.
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

/// An open scanner.
struct OpenScanner {
    served: Arc<Served>,
    rows: Paging,
    result_bytes_max: u64,
    next_call: u64,
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
        let served = self.region(region, Purpose::Read).await?;
        let read = decode::scan_read(scan);
        let (read, filter) = RowFilter::of(scan.filter.as_ref(), read, scan.reversed())?;
        let scanner = served.region.scan(&read, decode::scan_range(scan)).await?;
        let whole_rows = filter.is_some();
        let rows = Paging {
            scanner,
            filter,
            batch: scan.batch_size.filter(|size| *size > 0).map(|size| size as usize),
            rows_left: Some(u64::from(request.limit_of_rows())).filter(|limit| *limit > 0),
            inside_row: false,
            partials: request.client_handles_partials() && !whole_rows,
        };
        self.scanners.open(OpenScanner {
            served,
            rows,
            result_bytes_max: scan
                .max_result_size
                .unwrap_or(REPLY_BYTES_MAX)
                .clamp(1, REPLY_BYTES_MAX),
            next_call: 0,
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
            scanner.rows.gather(&limits, &mut gathered).await?
        };
        // Rows are returned only while the server may act as the owner.
        let region = &scanner.served.region;
        region.check_lease().await?;
        self.check_served(scanner)?;
        let mut response = response(id, scanner);
        if request.scanner_id.is_none() {
            response.mvcc_read_point = Some(scanner.rows.scanner.read_point().0);
        }
        response.more_results = Some(end != End::Scan);
        response.more_results_in_region = Some(!matches!(end, End::Region | End::Scan));
        response.heartbeat_message = Some(end == End::Time);
        let beside = call.caller.codec.is_some();
        let mut cells = gathered.cells;
        if beside {
            for result in gathered.results {
                response.cells_per_result.push(u32::try_from(result.cells).unwrap_or(u32::MAX));
                response.partial_flag_per_result.push(result.partial);
            }
        } else {
            let mut inside = std::mem::take(&mut cells).into_iter();
            for gathered in gathered.results {
                let cells = inside.by_ref().take(gathered.cells).collect();
                let mut result = message_cells::result_of(cells, None);
                result.partial = Some(gathered.partial);
                response.results.push(result);
            }
        }
        if request.close_scanner() || matches!(end, End::Region | End::Scan) {
            self.scanners.close(id);
        }
        Ok(Reply::with_cells(&response, cells))
    }

    /// Rejects the call if the region was closed or reopened since the scanner was opened. The
    /// client then locates the region again.
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

/// Half of the client's timeout, so that the answer arrives in time.
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
}

// === impl Scanners ===

impl Scanners {
    fn open(&self, scanner: OpenScanner) -> Result<(u64, Arc<tokio::sync::Mutex<OpenScanner>>)> {
        let mut table = self.open.lock();
        let now = Instant::now();
        // An abandoned scanner keeps memstores and files alive.
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

    /// The scanner with this id. Restarts its lease.
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
