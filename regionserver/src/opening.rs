//! Opening regions, as a master orders.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_cluster::{RegionRecord, pb, records};
use basalt_failpoint::{Point, passes, reached};
use basalt_model::{EncodedRegionName, RegionState, ServerName, TableDescriptor};
use basalt_planted::{Rule, is_off};
use basalt_runtime::WITNESS;
use futures::StreamExt;
use tokio::time::Instant;
use tracing::{info, trace, warn};

use crate::closing;
use crate::on_record::{self, OnRecord};
use crate::ownership::Ownership;
use crate::recovery::replay::SealedLogs;
use crate::region::{self, OpenRegion};
use crate::server::{Served, Server};
use crate::transitions::Purpose;

/// How many regions are opened at a time: most of it is waiting for syncs, which the disk does
/// together.
const OPENINGS_AT_ONCE: usize = 64;

/// An order that the coordinator's record bears out.
struct Confirmed {
    on_record: OnRecord,
    table: TableDescriptor,
}

/// Carries out a master's order to open regions.
pub(crate) async fn open_regions(
    server: Arc<Server>,
    orders: Vec<pb::OpenRegion>,
) -> Vec<pb::RegionOutcome> {
    let read = read_ahead(&server, &orders).await;
    let confirming = orders.into_iter().map(|order| {
        let (server, read) = (&server, &read);
        async move {
            let name = order.encoded_name.clone();
            (name, confirm(server, order, read).await)
        }
    });
    let confirming: Vec<_> = confirming.collect();
    let confirmed: Vec<_> =
        futures::stream::iter(confirming).buffered(OPENINGS_AT_ONCE).collect().await;
    let records = confirmed.iter().filter_map(|(_, confirmed)| confirmed.as_ref().ok());
    let records = records.map(|confirmed| &confirmed.on_record.record);
    let sealed = Arc::new(read_sealed_logs(&server, records).await);
    let opens = confirmed.into_iter().map(|(name, confirmed)| {
        let (server, sealed) = (Arc::clone(&server), Arc::clone(&sealed));
        // Each in a task of its own, so that replays run on all cores.
        let opening = name.clone();
        let opened = tokio::spawn(async move {
            let opened = match confirmed {
                Ok(confirmed) => open_region(&server, confirmed, &sealed).await,
                Err(error) => Err(error),
            };
            if !server.is_opening() {
                // What was replayed may be flushed now.
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

/// The records of those regions that the watched copy does not show as ordered, in one request: a
/// server that takes over hundreds of regions has not heard of most of them when it is ordered to.
async fn read_ahead(
    server: &Server,
    orders: &[pb::OpenRegion],
) -> BTreeMap<EncodedRegionName, OnRecord> {
    let is_known = |order: &pb::OpenRegion, name: &EncodedRegionName| {
        let epoch = order.record.as_ref().map(|record| record.epoch);
        server.copy_of_region(*name).is_some_and(|copy| Some(copy.record.epoch.0) == epoch)
    };
    let unknown = orders.iter().filter_map(|order| {
        let name: EncodedRegionName = order.encoded_name.parse().ok()?;
        (!is_known(order, &name)).then_some(name)
    });
    let unknown: Vec<_> = unknown.collect();
    // Where that fails, each is looked up by itself, and says why it cannot be.
    server.read_regions(&unknown).await.unwrap_or_default()
}

/// Looks whether the coordinator's records say what the order says, and takes theirs. Until then
/// nothing is done: opening renames the region's manifest, and that cannot be taken back.
async fn confirm(
    server: &Server,
    order: pb::OpenRegion,
    read: &BTreeMap<EncodedRegionName, OnRecord>,
) -> Result<Confirmed, String> {
    let record = order.record.ok_or("the order has no record")?;
    let given = RegionRecord::try_from(record).map_err(|error| error.to_string())?;
    let table = order.table.ok_or("the order has no table")?;
    let table = records::read_descriptor(table).map_err(|error| error.to_string())?;
    if is_off(Rule::OpenOnRecord) {
        let on_record = OnRecord { record: given, version: order.record_version };
        return Ok(Confirmed { on_record, table });
    }
    let is_ours = |record: &RegionRecord| {
        record.epoch == given.epoch
            && record.server.as_ref() == Some(&server.name)
            && matches!(record.state, RegionState::Opening | RegionState::Open)
    };
    let told = |error: on_record::Error| error.to_string();
    let name = given.encoded_name();
    let on_record = match read.get(&name).filter(|read| is_ours(&read.record)) {
        Some(read) => read.clone(),
        None => server.region_on_record(name, is_ours).await.map_err(told)?,
    };
    let table_name = &on_record.record.info.table;
    let table = server.table_on_record(table_name, &table).await.map_err(told)?;
    Ok(Confirmed { on_record, table })
}

/// The sealed logs that any of the regions needs. One that cannot be read is missing, and the regions
/// that need it fail.
async fn read_sealed_logs(
    server: &Server,
    records: impl Iterator<Item = &RegionRecord>,
) -> BTreeMap<ServerName, SealedLogs> {
    let mut sealed = BTreeMap::new();
    for name in records.flat_map(|record| &record.unflushed) {
        if sealed.contains_key(name) {
            continue;
        }
        match SealedLogs::read(&server.client, &server.nodes, name).await {
            Ok(logs) => {
                sealed.insert(name.clone(), logs);
            }
            Err(error) => warn!(%error, "the cuts of a dead server cannot be read"),
        }
    }
    sealed
}

async fn open_region(
    server: &Arc<Server>,
    confirmed: Confirmed,
    known: &BTreeMap<ServerName, SealedLogs>,
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
        return Err(
            "this ownership was given up: it is to be opened under a higher epoch".to_owned()
        );
    }
    if record.state != RegionState::Opening {
        return Err("its record says that it has been opened already".to_owned());
    }
    let sealed = region::sealed_logs_of(&record, known);
    if sealed.len() != record.unflushed.len() {
        return Err(format!("the cuts of {:?} are not all known", record.unflushed));
    }
    let unflushed = !record.unflushed.is_empty();
    let ownership = Ownership::new(server, record.clone(), version);
    let request = OpenRegion { record, table: Arc::new(table), sealed };
    let opened = region::open(server.shared.clone(), request).await;
    let opened = opened.map_err(|error| error.to_string())?;
    reached(Point::OpenReplayed).await;
    // Whatever becomes of the write, until the region is in service our log holds no edit of it.
    transition.holds_no_edits(epoch);
    ownership.opened(opened.open_sequence_id).await.map_err(|error| error.to_string())?;
    if !passes(Point::OpenRecorded).await {
        return Err("it is not known whether its record says that it is open".to_owned());
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
