//! `Scan`: open, next, renew and close.
//!
//! Between calls, an open scanner is kept under an id, with a lease. Each call returns what fits
//! its limits: rows, bytes and time. For clients that can assemble rows from parts, a row that does
//! not fit is cut and marked partial. If time runs out first, the reply is a heartbeat and the
//! client calls again.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
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
/// The interval at which expired scanners are closed.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(10);
/// A reply has at most about this many bytes of cells, even if the client allows more.
const REPLY_BYTES_MAX: u64 = 64 << 20;
/// A call is answered within this time, with or without rows, if its client accepts heartbeats.
const TIME_MAX: Duration = Duration::from_secs(10);

/// The open scanners of a server, by id, each with the end of its lease.
pub(super) struct Scanners<S = OpenScanner> {
    open: Mutex<Table<S>>,
}

struct Table<S> {
    last_id: u64,
    scanners: BTreeMap<u64, (Arc<S>, Instant)>,
}

/// An open scanner.
pub(super) struct OpenScanner {
    served: Arc<Served>,
    state: tokio::sync::Mutex<ScanState>,
}

/// The progress of a scan.
struct ScanState {
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
        let mut state = scanner.state.lock().await;
        if request.renew() {
            return Ok(Reply::new(&response(id)));
        }
        match self.next(&call, &request, id, &scanner.served, &mut state).await {
            Ok(reply) => {
                self.scanners.renew(id);
                Ok(reply)
            }
            Err(exception) => {
                self.scanners.close(id);
                Err(exception)
            }
        }
    }

    async fn open_scanner(&self, request: &pb::ScanRequest) -> Result<(u64, Arc<OpenScanner>)> {
        let (Some(region), Some(scan)) = (&request.region, &request.scan) else {
            let message = "a scan needs a scanner id, or a region and a Scan";
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
        let result_bytes_max = scan.max_result_size.unwrap_or(REPLY_BYTES_MAX);
        let result_bytes_max = result_bytes_max.clamp(1, REPLY_BYTES_MAX);
        let state = ScanState { rows, result_bytes_max, next_call: 0 };
        self.scanners.open(OpenScanner { served, state: tokio::sync::Mutex::new(state) })
    }

    /// Closes scanners that no client will use again, until the server has ended. They keep
    /// memstores and store files open.
    pub(crate) async fn expire_scanners(rpc: Weak<Self>) {
        loop {
            tokio::time::sleep(EXPIRE_INTERVAL).await;
            let Some(rpc) = rpc.upgrade() else { return };
            rpc.scanners.expire(|scanner| rpc.is_served(&scanner.served));
        }
    }

    async fn next(
        &self,
        call: &Call,
        request: &pb::ScanRequest,
        id: u64,
        served: &Arc<Served>,
        state: &mut ScanState,
    ) -> Result<Reply> {
        state.check_call(request)?;
        self.check_served(served)?;
        let limits = Limits {
            rows: request.number_of_rows.map_or(u64::MAX, u64::from),
            bytes: state.result_bytes_max,
            until: request.client_handles_heartbeats().then(|| Instant::now() + time_of(call)),
        };
        let mut gathered = Gathered::default();
        let end = if limits.rows == 0 && request.scanner_id.is_none() {
            End::Call
        } else {
            state.rows.gather(&limits, &mut gathered).await?
        };
        // Rows are returned only while the server may act as the owner.
        served.region.check_lease().await?;
        self.check_served(served)?;
        let mut response = response(id);
        if request.scanner_id.is_none() {
            response.mvcc_read_point = Some(state.rows.scanner.read_point().0);
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
    fn check_served(&self, served: &Arc<Served>) -> Result<()> {
        match self.is_served(served) {
            true => Ok(()),
            false => Err(self.not_here(served.region.encoded_name)),
        }
    }

    fn is_served(&self, served: &Arc<Served>) -> bool {
        let now = self.server.region(served.region.encoded_name);
        now.is_some_and(|now| Arc::ptr_eq(&now, served))
    }
}

fn response(id: u64) -> pb::ScanResponse {
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

// === impl ScanState ===

impl ScanState {
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

impl<S> Default for Scanners<S> {
    fn default() -> Self {
        Self { open: Mutex::new(Table { last_id: 0, scanners: BTreeMap::new() }) }
    }
}

impl<S> Scanners<S> {
    fn open(&self, scanner: S) -> Result<(u64, Arc<S>)> {
        let mut table = self.open.lock();
        let now = Instant::now();
        if table.scanners.len() >= SCANNERS_MAX {
            table.scanners.retain(|_, (_, ends_at)| *ends_at > now);
        }
        if table.scanners.len() >= SCANNERS_MAX {
            let message = format!("{SCANNERS_MAX} scanners are already open on this server");
            return Err(Exception::new(ExceptionKind::CallQueueTooBig, message));
        }
        table.last_id += 1;
        let id = table.last_id;
        let scanner = Arc::new(scanner);
        table.scanners.insert(id, (Arc::clone(&scanner), now + LEASE));
        Ok((id, scanner))
    }

    /// The scanner with this id. Restarts its lease.
    fn get(&self, id: u64) -> Result<Arc<S>> {
        let mut table = self.open.lock();
        let now = Instant::now();
        match table.scanners.get_mut(&id) {
            Some((scanner, ends_at)) if *ends_at > now => {
                *ends_at = now + LEASE;
                Ok(Arc::clone(scanner))
            }
            _ => {
                table.scanners.remove(&id);
                let message = format!("scanner {id} is not open here: its lease may have expired");
                Err(Exception::new(ExceptionKind::UnknownScanner, message))
            }
        }
    }

    fn close(&self, id: u64) {
        self.open.lock().scanners.remove(&id);
    }

    /// The lease begins again at the end of a call, however long that took.
    fn renew(&self, id: u64) {
        if let Some((_, ends_at)) = self.open.lock().scanners.get_mut(&id) {
            *ends_at = Instant::now() + LEASE;
        }
    }

    /// Closes the scanners whose lease has ended, and those that `is_usable` rejects. A scanner
    /// that a call uses stays.
    fn expire(&self, is_usable: impl Fn(&S) -> bool) {
        let now = Instant::now();
        let mut expired = Vec::new();
        self.open.lock().scanners.retain(|_, (scanner, ends_at)| {
            let is_in_use = Arc::strong_count(scanner) > 1;
            let stays = is_in_use || (*ends_at > now && is_usable(scanner));
            if !stays {
                expired.push(Arc::clone(scanner));
            }
            stays
        });
        // Files and memstores are freed here, without the lock.
        drop(expired);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn scanners_without_a_client_or_a_region_are_closed() {
        let scanners = Scanners::default();
        let (abandoned, _) = scanners.open("abandoned").unwrap();
        let (closed, _) = scanners.open("its region was closed").unwrap();
        tokio::time::advance(LEASE / 2).await;
        let (used, _) = scanners.open("used").unwrap();
        scanners.expire(|scanner| *scanner != "its region was closed");
        assert!(scanners.get(closed).is_err());
        tokio::time::advance(LEASE / 2).await;
        assert!(scanners.get(used).is_ok());
        let weak = Arc::downgrade(&scanners.open.lock().scanners[&abandoned].0);
        scanners.expire(|_| true);
        assert!(weak.upgrade().is_none(), "nothing keeps it open");
        tokio::time::advance(LEASE - Duration::from_millis(1)).await;
        scanners.expire(|_| true);
        let call = scanners.get(used).expect("each call renews its lease");
        tokio::time::advance(LEASE).await;
        scanners.expire(|_| false);
        scanners.renew(used);
        drop(call);
        assert!(scanners.get(used).is_ok(), "a long call keeps it open");
    }
}
