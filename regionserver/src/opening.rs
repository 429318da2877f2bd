//! Opens regions on a master's orders.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use basalt_cluster::{RegionRecord, pb, records};
use basalt_failpoint::{Point, passes, reached};
use basalt_model::{EncodedRegionName, RegionState, ServerName, TableName};
use basalt_planted::{Rule, is_off};
use basalt_runtime::WITNESS;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tracing::{info, trace, warn};

use crate::closing;
use crate::on_record::{self, OnRecord, OrderedTable};
use crate::ownership::Ownership;
use crate::recovery::replay::SealedLogs;
use crate::region::{self, OpenRegion};
use crate::server::{Served, Server};
use crate::transitions::Purpose;

/// How many regions are opened at a time. They mostly wait for syncs, which the disk can batch.
const OPENINGS_AT_ONCE: usize = 64;
/// The sealed lengths of at most this many dead servers are read together with the records, so that
/// the answer fits into a frame. A region rarely needs the logs of more than one.
const SERVERS_AHEAD_MAX: usize = 8;
/// The records of at most this many tables are read together with them.
const TABLES_AHEAD_MAX: usize = 64;

/// One region of an order, as received from the master.
struct Order {
    record: RegionRecord,
    table: OrderedTable,
    version: i32,
}

/// An order that the coordinator's record confirms.
struct Confirmed {
    on_record: OnRecord,
    table: OrderedTable,
}

/// What the coordinator's records say about the regions of one order.
struct Shown {
    /// The records that match the order in the watched copy, and those that one request found for
    /// the other regions.
    regions: BTreeMap<EncodedRegionName, OnRecord>,
    /// The tables of all regions, read after the records in `regions`.
    tables: BTreeMap<TableName, OrderedTable>,
    /// The sealed logs of dead servers. It is safe to read them before the region record that needs
    /// them: they are committed once, before a region record names the dead server to the next
    /// owner. After that, they change only if an operator accepts that a log is lost or has lost
    /// its end. An opener that has read them before such a change either finds all edits, or finds
    /// that a log is missing or too short, and then opens nothing.
    sealed: Mutex<BTreeMap<ServerName, SealedLogs>>,
    /// Set once the member that answers us has everything that was committed when the order
    /// arrived.
    caught_up: OnceCell<()>,
}

/// Carries out a master's order to open regions.
pub(crate) async fn open_regions(
    server: Arc<Server>,
    orders: Vec<pb::OpenRegion>,
) -> Vec<pb::RegionOutcome> {
    let orders: Vec<(String, Result<Order, String>)> = orders
        .into_iter()
        .map(|order| (order.encoded_name.clone(), Order::try_from(order)))
        .collect();
    let valid = orders.iter().filter_map(|(_, order)| order.as_ref().ok());
    let shown = Arc::new(Shown::read(&server, valid.collect()).await);
    let opens = orders.into_iter().map(|(name, order)| {
        let (server, shown) = (Arc::clone(&server), Arc::clone(&shown));
        // One task for each region, so that replays use all cores.
        let opening = name.clone();
        let opened = tokio::spawn(async move {
            let opened = match order {
                Ok(order) => open_ordered(&server, order, &shown).await,
                Err(error) => Err(error),
            };
            if !server.is_opening() {
                // Replayed edits may be flushed now.
                server.work.notify_one();
            }
            opened.unwrap_or_else(|error| {
                warn!(region = opening, error, "not opened");
                pb::RegionOutcome { encoded_name: opening, failure: error, ..Default::default() }
            })
        });
        async move {
            opened.await.unwrap_or_else(|error| pb::RegionOutcome {
                encoded_name: name,
                failure: format!("the opening task ended: {error}"),
                ..Default::default()
            })
        }
    });
    futures::stream::iter(opens).buffer_unordered(OPENINGS_AT_ONCE).collect().await
}

async fn open_ordered(
    server: &Arc<Server>,
    order: Order,
    shown: &Shown,
) -> Result<pb::RegionOutcome, String> {
    let confirmed = shown.confirm(server, order).await?;
    let sealed = shown.sealed_logs(server, &confirmed.on_record.record.unflushed).await?;
    open_region(server, confirmed, sealed).await
}

// === impl Order ===

impl TryFrom<pb::OpenRegion> for Order {
    type Error = String;

    fn try_from(order: pb::OpenRegion) -> Result<Self, String> {
        let record = order.record.ok_or("the order has no record")?;
        let record = RegionRecord::try_from(record).map_err(|error| error.to_string())?;
        let table = order.table.ok_or("the order has no table")?;
        let descriptor = records::read_descriptor(table).map_err(|error| error.to_string())?;
        let incarnations = order.family_incarnations.into_iter().collect();
        let table = OrderedTable { descriptor, incarnations };
        Ok(Self { record, table, version: order.record_version })
    }
}

impl Order {
    /// Whether `record` names this server as the owner that the order names.
    fn is_borne_out(&self, server: &Server, record: &RegionRecord) -> bool {
        record.epoch == self.record.epoch
            && record.server.as_ref() == Some(&server.name)
            && matches!(record.state, RegionState::Opening | RegionState::Open)
    }
}

// === impl Shown ===

impl Shown {
    /// Takes the records from the watched copy. The copy of a server that is ordered to open
    /// hundreds of regions does not contain most of them yet. So one request reads the records that
    /// do not match the order in the copy, together with the sealed lengths of the logs that the
    /// orders name.
    async fn read(server: &Server, orders: Vec<&Order>) -> Self {
        let mut regions = BTreeMap::new();
        let (mut unknown, mut tables, mut dead) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for order in &orders {
            let name = order.record.encoded_name();
            match server.copy_of_region(name) {
                Some(copy) if order.is_borne_out(server, &copy.record) => {
                    regions.insert(name, copy);
                }
                _ => unknown.push(name),
            }
            tables.insert(&order.record.info.table);
            dead.extend(&order.record.unflushed);
        }
        let tables: Vec<_> = tables.into_iter().take(TABLES_AHEAD_MAX).cloned().collect();
        let dead: Vec<_> = dead.into_iter().take(SERVERS_AHEAD_MAX).cloned().collect();
        // If this fails, each record is read separately and has its own error.
        let read = server.read_for_opening(&unknown, &tables, &dead).await.unwrap_or_default();
        regions.extend(read.regions);
        let (tables, sealed) = (read.tables, Mutex::new(read.sealed));
        Self { regions, tables, sealed, caught_up: OnceCell::new() }
    }

    /// Checks that the coordinator's records match the order, and returns them. Nothing is done
    /// before that: opening renames the region's manifest, which cannot be undone.
    async fn confirm(&self, server: &Server, order: Order) -> Result<Confirmed, String> {
        if is_off(Rule::OpenOnRecord) {
            let on_record = OnRecord { record: order.record, version: order.version };
            return Ok(Confirmed { on_record, table: order.table });
        }
        let message = |error: on_record::Error| error.to_string();
        let name = order.record.encoded_name();
        let known = self.regions.get(&name);
        let (on_record, is_newer) =
            match known.filter(|known| order.is_borne_out(server, &known.record)) {
                Some(known) => (known.clone(), false),
                None => (self.newest(server, &order).await.map_err(message)?, true),
            };
        let table = &on_record.record.info.table;
        let read = self.tables.get(table).filter(|_| !is_newer);
        let table = server.table_on_record(table, &order.table, read).await.map_err(message)?;
        Ok(Confirmed { on_record, table })
    }

    /// The record that confirms the order, as of when the order arrived or later: the member that
    /// answers us may lag behind the one that the master has written to.
    async fn newest(&self, server: &Server, order: &Order) -> Result<OnRecord, on_record::Error> {
        self.caught_up.get_or_try_init(|| server.catch_up()).await?;
        let name = order.record.encoded_name();
        match server.read_region(name).await? {
            Some(read) if order.is_borne_out(server, &read.record) => Ok(read),
            Some(read) => Err(on_record::Error::Otherwise(Box::new(read.record))),
            None => Err(on_record::Error::Missing),
        }
    }

    /// The sealed logs of all servers in `dead`.
    async fn sealed_logs(
        &self,
        server: &Server,
        dead: &[ServerName],
    ) -> Result<Vec<SealedLogs>, String> {
        let mut all = Vec::with_capacity(dead.len());
        for name in dead {
            let known = self.sealed.lock().get(name).cloned();
            all.push(match known {
                Some(known) => known,
                None => {
                    let read = SealedLogs::read(&server.client, &server.nodes, name).await;
                    let read = read.map_err(|error| error.to_string())?;
                    // Shared with the other regions that need them, so that they are indexed once.
                    self.sealed.lock().entry(name.clone()).or_insert(read).clone()
                }
            });
        }
        Ok(all)
    }
}

async fn open_region(
    server: &Arc<Server>,
    confirmed: Confirmed,
    sealed: Vec<SealedLogs>,
) -> Result<pb::RegionOutcome, String> {
    let Confirmed { on_record: OnRecord { record, version }, table } = confirmed;
    let (name, epoch) = (record.encoded_name(), record.epoch);
    let done = pb::RegionOutcome { encoded_name: name.to_string(), ..Default::default() };
    let Some(transition) = server.begin(name, Purpose::Open).await else {
        return Err("it is still being opened or closed by an earlier order".to_owned());
    };
    match server.region(name) {
        Some(served) if served.region.epoch == epoch => return Ok(done),
        Some(served) if served.region.epoch > epoch => {
            return Err(format!("it is served under the later epoch {}", served.region.epoch));
        }
        Some(outdated) => closing::let_go(server, &outdated, Some(&record))?,
        None => {}
    }
    if server.transitions.is_given_up(name, epoch) {
        return Err("this ownership was given up: open the region under a higher epoch".to_owned());
    }
    if record.state != RegionState::Opening {
        return Err("its record says that it has already been opened".to_owned());
    }
    let unflushed = !record.unflushed.is_empty();
    let ownership = Ownership::new(server, record.clone(), version);
    let OrderedTable { descriptor, incarnations } = table;
    let request = OpenRegion { record, table: Arc::new(descriptor), incarnations, sealed };
    let opened = region::open(server.shared.clone(), request).await;
    let opened = opened.map_err(|error| error.to_string())?;
    reached(Point::OpenReplayed).await;
    // Whatever the outcome of the write: until the region is served, our log holds no edit of it.
    transition.holds_no_edits(epoch);
    ownership.opened(opened.open_sequence_id).await.map_err(|error| error.to_string())?;
    if !passes(Point::OpenRecorded).await {
        return Err("whether its record says that it is open is unknown".to_owned());
    }
    let replay_ms = u64::try_from(opened.replay_time.as_millis()).unwrap_or(u64::MAX);
    trace!(target: WITNESS, region = %name, epoch = epoch.0, "opened");
    info!(region = %opened.region.info, replay_ms, bytes = opened.replayed_bytes, "open");
    transition.takes_edits();
    server.begin_serving(Served {
        region: opened.region,
        ownership,
        flush_due: unflushed.into(),
        since: Instant::now(),
    })?;
    Ok(pb::RegionOutcome { replay_ms, replayed_bytes: opened.replayed_bytes, ..done })
}
