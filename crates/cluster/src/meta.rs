//! The catalog as clients see it: a read-only `hbase:meta`, and the location of the cluster.
//!
//! Every master and region server answers these reads from its own copy of the catalog. Clients
//! therefore find regions even while no master lives, and no region has to be recovered before
//! clients can find others.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use basalt_hbase_rpc::meta::{self, RegionRow, ReplicaRow};
use basalt_hbase_rpc::{Call, Exception, ExceptionKind, Reply, message_cells, pb, schema, znode};
use basalt_model::{Cell, RegionInfo, RegionState, ReplicaId, ServerName, TableState};
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::Catalog;
use crate::catalog::{MetaRow, MetaSubject};

/// Ids of scanners of the meta table begin here. Other scanners have lower ids.
const SCANNER_IDS_FROM: u64 = 1 << 62;
/// How many scanners of the meta table are kept. Beyond that the oldest is dropped.
const SCANNERS_MAX: usize = 1000;
/// The maximum number of rows in a reply.
const ROWS_MAX: u32 = 2000;
/// How long an answer waits for a new owner if the region's server is dead.
const HEIR_PATIENCE: Duration = Duration::from_millis(500);
/// How many answers may wait for that at once. Others are sent without waiting.
const WAITING_MAX: usize = 512;

/// Answers reads of `hbase:meta` and the calls of `ClientMetaService`.
pub struct MetaReader {
    catalog: Catalog,
    scanners: Mutex<Scanners>,
    waiting: Semaphore,
}

#[derive(Default)]
struct Scanners {
    last_id: u64,
    open: BTreeMap<u64, MetaScan>,
}

/// A scan of the meta table, with the rows that are left.
#[derive(Clone)]
struct MetaScan {
    scan: pb::Scan,
    rows_left: Option<u64>,
    from: Bound<MetaRow>,
    to: Bound<MetaRow>,
}

/// The fields of a get or a scan that identify its target.
#[derive(Clone, PartialEq, Message)]
struct Target {
    #[prost(message, optional, tag = "1")]
    region: Option<pb::RegionSpecifier>,
    #[prost(uint64, optional, tag = "3")]
    scanner_id: Option<u64>,
}

/// Whether a call of `ClientService` reads `hbase:meta`.
pub fn is_for_meta(call: &Call) -> bool {
    if !matches!(call.method.as_str(), "Get" | "Scan") {
        return false;
    }
    let Ok(target) = Target::decode(call.message.clone()) else { return false };
    match target.region {
        Some(region) => {
            region.value.starts_with(meta::REGION_NAME)
                || region.value == meta::ENCODED_REGION_NAME.as_bytes()
        }
        None => target.scanner_id.is_some_and(|id| id >= SCANNER_IDS_FROM),
    }
}

// === impl MetaReader ===

impl MetaReader {
    /// A reader of `catalog`.
    pub fn new(catalog: Catalog) -> Self {
        Self { catalog, scanners: Mutex::default(), waiting: Semaphore::new(WAITING_MAX) }
    }

    /// Answers a get or a scan of the meta table. If the server of the requested region has just
    /// died, the answer waits a moment until the next one is named, because a client that is sent
    /// to a dead server backs off longer with each retry.
    ///
    /// # Errors
    /// The request cannot be decoded, or is not a read.
    pub async fn client_service(&self, call: &Call) -> Result<Reply, Exception> {
        match call.method.as_str() {
            "Get" => self.get(call).await,
            "Scan" => self.scan(call).await,
            method => Err(Exception::unknown_method(method)),
        }
    }

    /// Answers a call of `ClientMetaService`.
    ///
    /// # Errors
    /// There is no such method.
    pub fn client_meta_service(&self, call: &Call) -> Result<Reply, Exception> {
        let master = self.catalog.master().and_then(|record| parse(&record.server_name));
        let servers = self.catalog.servers().into_keys();
        Ok(match call.method.as_str() {
            "GetClusterId" => {
                let cluster_id = Some(self.catalog.cluster_id());
                Reply::new(&pb::GetClusterIdResponse { cluster_id })
            }
            "GetActiveMaster" => {
                let server_name = master.as_ref().map(znode::server_to_message);
                Reply::new(&pb::GetActiveMasterResponse { server_name })
            }
            "GetMasters" => {
                let entry = |server| pb::GetMastersResponseEntry {
                    server_name: znode::server_to_message(server),
                    is_active: true,
                };
                let master_servers = master.iter().map(entry).collect();
                Reply::new(&pb::GetMastersResponse { master_servers })
            }
            "GetMetaRegionLocations" => {
                // Every server serves the meta table. The one that was asked would do, but its name
                // is not known here. The first region server is as good.
                let holder = servers.into_iter().next().or(master);
                let locations = holder.as_ref().map(meta_location);
                let meta_locations = locations.into_iter().collect();
                Reply::new(&pb::GetMetaRegionLocationsResponse { meta_locations })
            }
            "GetBootstrapNodes" => {
                let server_name = servers.map(|server| znode::server_to_message(&server)).collect();
                Reply::new(&pb::GetBootstrapNodesResponse { server_name })
            }
            method => return Err(Exception::unknown_method(method)),
        })
    }

    /// Waits while the server of the first row's region is dead. Clients look that row up first.
    async fn wait_for_heir(&self, first: Option<&(MetaRow, MetaSubject)>) {
        let (Some((_, MetaSubject::Region(region))), Ok(_waiting)) =
            (first, self.waiting.try_acquire())
        else {
            return;
        };
        let mut changes = self.catalog.changes();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                let known = self.catalog.region(*region);
                let record = known.as_ref().map(|region| &region.record);
                let record = record.filter(|record| record.state != RegionState::Closed);
                let owner = record.and_then(|record| record.server.as_ref());
                if owner.is_none_or(|owner| self.catalog.lives(owner))
                    || changes.changed().await.is_err()
                {
                    return;
                }
            }
        };
        // After a timeout, the answer is what is known then.
        let _ = timeout(HEIR_PATIENCE, waiting).await;
    }

    async fn get(&self, call: &Call) -> Result<Reply, Exception> {
        let request: pb::GetRequest = decode(call)?;
        let get = request.get;
        refuse_filter(get.filter.as_ref())?;
        let row = || Bound::Included(MetaRow(get.row.clone()));
        // Older clients look up the region of a row as the last row of the meta table at or before
        // it. HBase 2 rejects such a get, and those clients then report that the table does not
        // exist.
        let closest = get.closest_row_before();
        let from = if closest { Bound::Unbounded } else { row() };
        let found = self.catalog.meta_rows(from, row(), closest, 1);
        self.wait_for_heir(found.first()).await;
        let cells = match found.first() {
            Some((_, subject)) => select(self.cells(subject)?, &get.column),
            None => Vec::new(),
        };
        let exists = get.existence_only().then_some(!cells.is_empty());
        let mut beside = Vec::new();
        let inside = call.caller.codec.is_none();
        let result = match exists {
            Some(_) => pb::Result { exists, ..pb::Result::default() },
            None => message_cells::result_of(cells, (!inside).then_some(&mut beside)),
        };
        Ok(Reply::with_cells(&pb::GetResponse { result: Some(result) }, beside))
    }

    async fn scan(&self, call: &Call) -> Result<Reply, Exception> {
        let request: pb::ScanRequest = decode(call)?;
        let (id, mut scan) = self.open_or_known(&request)?;
        // Clients find the region of a row by a reversed scan from that row.
        if request.scanner_id.is_none() && scan.scan.reversed() {
            let found = self.catalog.meta_rows(scan.from.clone(), scan.to.clone(), true, 1);
            self.wait_for_heir(found.first()).await;
        }
        let count = u64::from(request.number_of_rows.unwrap_or(ROWS_MAX).min(ROWS_MAX));
        let count = scan.rows_left.map_or(count, |left| left.min(count));
        let mut response = pb::ScanResponse { scanner_id: Some(id), ..Default::default() };
        let mut beside = Vec::new();
        let mut returned = 0;
        let mut at_end = false;
        while returned < count && !at_end {
            let wanted = usize::try_from(count - returned).unwrap_or(usize::MAX);
            let reversed = scan.scan.reversed();
            let rows = self.catalog.meta_rows(scan.from.clone(), scan.to.clone(), reversed, wanted);
            at_end = rows.len() < wanted;
            for (row, subject) in rows {
                scan.go_on_after(row);
                let cells = select(self.cells(&subject)?, &scan.scan.column);
                if cells.is_empty() {
                    continue;
                }
                returned += 1;
                if call.caller.codec.is_some() {
                    response.cells_per_result.push(cells.len() as u32);
                    response.partial_flag_per_result.push(false);
                    beside.extend(cells);
                } else {
                    response.results.push(message_cells::result_of(cells, None));
                }
            }
        }
        scan.rows_left = scan.rows_left.map(|left| left - returned);
        let is_done = scan.rows_left == Some(0);
        response.more_results = Some(!is_done);
        response.more_results_in_region = Some(!at_end && !is_done);
        if at_end || is_done || request.close_scanner() {
            self.scanners.lock().open.remove(&id);
        } else {
            self.scanners.lock().open.insert(id, scan);
        }
        Ok(Reply::with_cells(&response, beside))
    }

    fn open_or_known(&self, request: &pb::ScanRequest) -> Result<(u64, MetaScan), Exception> {
        let mut scanners = self.scanners.lock();
        if let Some(id) = request.scanner_id {
            return match scanners.open.get(&id) {
                Some(scan) => Ok((id, scan.clone())),
                None => Err(Exception::new(
                    ExceptionKind::UnknownScanner,
                    format!("scanner {id} of hbase:meta is not open here"),
                )),
            };
        }
        let scan = request.scan.clone().unwrap_or_default();
        refuse_filter(scan.filter.as_ref())?;
        while scanners.open.len() >= SCANNERS_MAX {
            scanners.open.pop_first();
        }
        scanners.last_id += 1;
        let rows_left = Some(u64::from(request.limit_of_rows())).filter(|limit| *limit > 0);
        Ok((SCANNER_IDS_FROM + scanners.last_id, MetaScan::new(scan, rows_left)))
    }

    /// The cells of a row. Empty if the region or the table has just been deleted.
    fn cells(&self, subject: &MetaSubject) -> Result<Vec<Cell>, Exception> {
        let cells = match subject {
            MetaSubject::Region(name) => match self.catalog.region(*name) {
                Some(region) => {
                    let table = self.catalog.table(&region.record.info.table);
                    let state = table.map(|table| table.record.state);
                    let row = region_row(&region.record, state);
                    meta::region_cells(&row, milliseconds(region.record.info.region_id))
                }
                None => Ok(Vec::new()),
            },
            MetaSubject::Table(name) => match self.catalog.table(name) {
                Some(table) => {
                    meta::table_state_cell(name, table.record.state, 1).map(|cell| vec![cell])
                }
                None => Ok(Vec::new()),
            },
        };
        cells.map_err(Exception::bad_request)
    }
}

// === impl MetaScan ===

impl MetaScan {
    fn new(scan: pb::Scan, rows_left: Option<u64>) -> Self {
        let bound = |row: Option<&Bytes>, included| match row {
            Some(row) if !row.is_empty() && included => Bound::Included(MetaRow(row.clone())),
            Some(row) if !row.is_empty() => Bound::Excluded(MetaRow(row.clone())),
            _ => Bound::Unbounded,
        };
        let start = bound(scan.start_row.as_ref(), scan.include_start_row());
        // From a row to itself: one row, for clients that do not know `include_stop_row`.
        let one_row = scan.start_row == scan.stop_row;
        let include_stop = scan.include_stop_row.unwrap_or(one_row);
        let stop = bound(scan.stop_row.as_ref(), include_stop);
        let (from, to) = if scan.reversed() { (stop, start) } else { (start, stop) };
        Self { scan, rows_left, from, to }
    }

    fn go_on_after(&mut self, row: MetaRow) {
        if self.scan.reversed() {
            self.to = Bound::Excluded(row);
        } else {
            self.from = Bound::Excluded(row);
        }
    }
}

fn region_row(record: &crate::RegionRecord, table: Option<TableState>) -> RegionRow {
    let replica = ReplicaRow {
        server: record.server.clone(),
        open_sequence_id: i64::try_from(record.open_sequence_id.0).ok(),
        state: Some(state_name(record.state).to_owned()),
    };
    RegionRow {
        region: record.info.clone(),
        split: false,
        offline: table == Some(TableState::Disabled),
        replicas: [(ReplicaId(0), replica)].into(),
    }
}

fn state_name(state: RegionState) -> &'static str {
    match state {
        RegionState::Closed => "CLOSED",
        RegionState::Opening => "OPENING",
        RegionState::Open => "OPEN",
        RegionState::Closing => "CLOSING",
    }
}

/// The cells of the requested families and columns. All cells if none are requested.
fn select(cells: Vec<Cell>, columns: &[pb::Column]) -> Vec<Cell> {
    if columns.is_empty() {
        return cells;
    }
    let wanted: BTreeMap<&[u8], BTreeSet<&[u8]>> = columns
        .iter()
        .map(|column| (&column.family[..], column.qualifier.iter().map(|q| &q[..]).collect()))
        .collect();
    let is_wanted = |cell: &Cell| {
        wanted
            .get(cell.family())
            .is_some_and(|names| names.is_empty() || names.contains(cell.qualifier()))
    };
    cells.into_iter().filter(is_wanted).collect()
}

fn meta_location(server: &ServerName) -> pb::RegionLocation {
    let region =
        RegionInfo::primary(basalt_model::TableName::meta(), Bytes::new(), Bytes::new(), 1);
    pb::RegionLocation {
        region_info: schema::region_to_message(&region),
        server_name: Some(znode::server_to_message(server)),
        seq_num: 0,
    }
}

fn refuse_filter(filter: Option<&pb::Filter>) -> Result<(), Exception> {
    match filter {
        None => Ok(()),
        Some(filter) => {
            let message =
                format!("hbase:meta supports no filters, but this read has {}", filter.name);
            Err(Exception::bad_request(message))
        }
    }
}

fn decode<T: Message + Default>(call: &Call) -> Result<T, Exception> {
    T::decode(call.message.clone()).map_err(|error| {
        Exception::bad_request(format!("the request of {} cannot be decoded: {error}", call.method))
    })
}

fn parse(name: &str) -> Option<ServerName> {
    name.parse().ok()
}

fn milliseconds(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}
