//! A master's orders: open, close, flush and split, over gRPC.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use basalt_cluster::pb::region_server_orders_server::{
    RegionServerOrders, RegionServerOrdersServer,
};
use basalt_cluster::{RegionRecord, pb, records};
use basalt_failpoint::{Point, reached};
use basalt_model::{EncodedRegionName, MasterEpoch, RegionEpoch, RegionState, ServerName};
use basalt_runtime::WITNESS;
use basalt_runtime::grpc::MESSAGE_BYTES_MAX;
use futures::{Stream, StreamExt};
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tracing::{info, trace, warn};

use crate::block_places;
use crate::ownership::Ownership;
use crate::recovery::replay::SealedLogs;
use crate::recovery::split;
use crate::region::{self, OpenRegion};
use crate::schedulers;
use crate::server::{Served, Server};

/// How many regions are closed or flushed at a time.
const REGIONS_AT_ONCE: usize = 16;
/// How many regions are opened at a time: most of it is waiting for syncs, which the disk does
/// together.
const OPENINGS_AT_ONCE: usize = 64;

/// The service.
pub(crate) struct Orders(Arc<Server>);

type Reply<T> = Result<Response<T>, Status>;

// === impl Orders ===

impl Orders {
    /// The service of `server`, as tonic takes it.
    pub(crate) fn service(server: Arc<Server>) -> RegionServerOrdersServer<Self> {
        RegionServerOrdersServer::new(Self(server))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn check_master(&self, epoch: u64) -> Result<(), Status> {
        let checked = self.0.check_master(MasterEpoch(epoch));
        checked.map_err(|error| Status::failed_precondition(error.to_string()))
    }
}

#[tonic::async_trait]
impl RegionServerOrders for Orders {
    type LiveStream = Pin<Box<dyn Stream<Item = Result<pb::Alive, Status>> + Send>>;

    async fn live(&self, request: Request<pb::LiveRequest>) -> Reply<Self::LiveStream> {
        self.check_master(request.get_ref().master_epoch)?;
        // No beats: the stream's end says more than they would.
        let words = block_places::words(Arc::clone(&self.0)).map(Ok);
        let ended = self.0.abort.clone();
        Ok(Response::new(Box::pin(words.take_until(ended.cancelled_owned()))))
    }

    async fn open_regions(
        &self,
        request: Request<pb::OpenRegionsRequest>,
    ) -> Reply<pb::RegionsReply> {
        let request = request.into_inner();
        self.check_master(request.master_epoch)?;
        let server = Arc::clone(&self.0);
        server.avoid_nodes(&request.avoided_nodes);
        // An order goes on when the master that gave it goes away.
        let opened = tokio::spawn(async move { open_regions(server, request.regions).await });
        let outcomes = opened.await.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(pb::RegionsReply { outcomes }))
    }

    async fn close_regions(
        &self,
        request: Request<pb::CloseRegionsRequest>,
    ) -> Reply<pb::RegionsReply> {
        let request = request.into_inner();
        self.check_master(request.master_epoch)?;
        if request.server_name != self.0.name.to_string() {
            let message = format!("for {}, but this is {}", request.server_name, self.0.name);
            return Err(Status::not_found(message));
        }
        let server = Arc::clone(&self.0);
        let closed = tokio::spawn(async move {
            let closes = request.regions.into_iter().map(|order| close_region(&server, order));
            futures::stream::iter(closes).buffer_unordered(REGIONS_AT_ONCE).collect().await
        });
        let outcomes = closed.await.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(pb::RegionsReply { outcomes }))
    }

    async fn flush_regions(
        &self,
        request: Request<pb::FlushRegionsRequest>,
    ) -> Reply<pb::RegionsReply> {
        let request = request.into_inner();
        self.check_master(request.master_epoch)?;
        let server = Arc::clone(&self.0);
        let flushed = tokio::spawn(async move {
            let flushes = request.encoded_names.into_iter().map(|name| flush_region(&server, name));
            futures::stream::iter(flushes).buffer_unordered(REGIONS_AT_ONCE).collect().await
        });
        let outcomes = flushed.await.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(pb::RegionsReply { outcomes }))
    }

    async fn catch_up(&self, request: Request<pb::CatchUpRequest>) -> Reply<pb::CatchUpReply> {
        self.check_master(request.get_ref().master_epoch)?;
        let caught_up = self.0.catalog.catch_up().await;
        caught_up.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(pb::CatchUpReply {}))
    }

    async fn split_logs(
        &self,
        request: Request<pb::SplitLogsRequest>,
    ) -> Reply<pb::SplitLogsReply> {
        let request = request.into_inner();
        self.check_master(request.master_epoch)?;
        let server: ServerName = request
            .server_name
            .parse()
            .map_err(|error: basalt_model::Error| Status::invalid_argument(error.to_string()))?;
        self.0.avoid_nodes(&request.avoided_nodes);
        let files = Arc::clone(&self.0.shared.files);
        let logs = split::split(files, &server, request.logs).await;
        Ok(Response::new(pb::SplitLogsReply { logs }))
    }
}

async fn open_regions(server: Arc<Server>, orders: Vec<pb::OpenRegion>) -> Vec<pb::RegionOutcome> {
    let sealed = Arc::new(read_sealed_logs(&server, &orders).await);
    let opens = orders.into_iter().map(|order| {
        let (server, sealed) = (Arc::clone(&server), Arc::clone(&sealed));
        // Each in a task of its own, so that replays run on all cores.
        let opened = tokio::spawn(async move {
            let name = order.encoded_name.clone();
            match open_region(&server, order, &sealed).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    warn!(region = name, error, "not opened");
                    pb::RegionOutcome { encoded_name: name, failure: error, ..Default::default() }
                }
            }
        });
        async move {
            opened.await.unwrap_or_else(|error| pb::RegionOutcome {
                failure: format!("the opening task ended: {error}"),
                ..Default::default()
            })
        }
    });
    futures::stream::iter(opens).buffer_unordered(OPENINGS_AT_ONCE).collect().await
}

/// The sealed logs that any of the regions needs. One that cannot be read is missing, and the regions
/// that need it fail.
async fn read_sealed_logs(
    server: &Server,
    orders: &[pb::OpenRegion],
) -> BTreeMap<ServerName, SealedLogs> {
    let names = orders.iter().filter_map(|order| order.record.as_ref());
    let mut sealed = BTreeMap::new();
    for name in names.flat_map(|record| &record.unflushed_servers) {
        let Ok(name) = name.parse::<ServerName>() else { continue };
        if sealed.contains_key(&name) {
            continue;
        }
        match SealedLogs::read(&server.client, &server.nodes, &name).await {
            Ok(logs) => {
                sealed.insert(name, logs);
            }
            Err(error) => warn!(%error, "the cuts of a dead server cannot be read"),
        }
    }
    sealed
}

async fn open_region(
    server: &Arc<Server>,
    order: pb::OpenRegion,
    known: &BTreeMap<ServerName, SealedLogs>,
) -> Result<pb::RegionOutcome, String> {
    let record = order.record.ok_or("the order has no record")?;
    let record = RegionRecord::try_from(record).map_err(|error| error.to_string())?;
    let name = record.encoded_name();
    if record.state != RegionState::Opening || record.server.as_ref() != Some(&server.name) {
        return Err(format!("the record does not say that {} is to open it", server.name));
    }
    let done = pb::RegionOutcome { encoded_name: name.to_string(), ..Default::default() };
    let Some(_turn) = server.begin_opening(name).await else {
        return Err("it is still being opened by an earlier order".to_owned());
    };
    if server.region(name).is_some_and(|served| served.region.epoch == record.epoch) {
        return Ok(done);
    }
    let sealed = region::sealed_logs_of(&record, known);
    if sealed.len() != record.unflushed.len() {
        return Err(format!("the cuts of {:?} are not all known", record.unflushed));
    }
    let table = order.table.ok_or("the order has no table")?;
    let table = Arc::new(records::read_descriptor(table).map_err(|error| error.to_string())?);
    let unflushed = !record.unflushed.is_empty();
    let version = order.record_version;
    let ownership = Ownership::new(server, record.clone(), version);
    let opened = region::open(server.shared.clone(), OpenRegion { record, table, sealed })
        .await
        .map_err(|error| error.to_string())?;
    reached(Point::OpenReplayed).await;
    ownership.opened(opened.open_sequence_id).await.map_err(|error| error.to_string())?;
    reached(Point::OpenRecorded).await;
    let replay_ms = u64::try_from(opened.replay_time.as_millis()).unwrap_or(u64::MAX);
    trace!(target: WITNESS, region = %name, epoch = opened.region.epoch.0, "opened");
    info!(region = %opened.region.info, replay_ms, bytes = opened.replayed_bytes, "open");
    server.begin_serving(Served {
        region: opened.region,
        ownership,
        flush_due: unflushed.into(),
        since: Instant::now(),
    });
    Ok(pb::RegionOutcome { replay_ms, replayed_bytes: opened.replayed_bytes, ..done })
}

async fn close_region(server: &Arc<Server>, order: pb::CloseRegion) -> pb::RegionOutcome {
    let encoded_name = order.encoded_name.clone();
    let failure = match order.encoded_name.parse::<EncodedRegionName>() {
        Ok(name) => match server.region(name) {
            // Not here, or not that ownership: there is nothing to close.
            None => String::new(),
            Some(served) if served.region.epoch != RegionEpoch(order.epoch) => String::new(),
            Some(served) => match close(server, &served).await {
                Ok(()) => String::new(),
                Err(error) => error,
            },
        },
        Err(error) => error.to_string(),
    };
    pb::RegionOutcome { encoded_name, failure, ..Default::default() }
}

async fn flush_region(server: &Arc<Server>, encoded_name: String) -> pb::RegionOutcome {
    let failure = match encoded_name.parse::<EncodedRegionName>() {
        Ok(name) => match server.region(name) {
            None => "it is not served here".to_owned(),
            Some(served) => {
                let flushed = schedulers::flush(server, &served).await;
                flushed.err().map(|error| error.to_string()).unwrap_or_default()
            }
        },
        Err(error) => error.to_string(),
    };
    pb::RegionOutcome { encoded_name, failure, ..Default::default() }
}

/// Flushes and closes a region and puts that on record. If it cannot be flushed it stays in service.
pub(crate) async fn close(server: &Server, served: &Arc<Served>) -> Result<(), String> {
    // The bulk of it is flushed while edits are still taken.
    served.region.flush().await.map_err(|error| error.to_string())?;
    served.region.begin_close();
    if let Err(error) = served.region.finish_close().await {
        served.region.give_up_close();
        return Err(error.to_string());
    }
    server.end_serving(served);
    info!(region = %served.region.info, "closed");
    served.ownership.closed().await.map_err(|error| error.to_string())
}
