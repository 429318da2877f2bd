//! A master's orders: open, close, flush, split and check, over gRPC.

use std::pin::Pin;
use std::sync::Arc;

use basalt_cluster::pb;
use basalt_cluster::pb::region_server_orders_server::{
    RegionServerOrders, RegionServerOrdersServer,
};
use basalt_model::{EncodedRegionName, MasterEpoch, ServerName};
use basalt_runtime::WITNESS;
use basalt_runtime::grpc::MESSAGE_BYTES_MAX;
use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use tracing::{trace, warn};

use crate::master_epoch::Refused;
use crate::recovery::split;
use crate::server::Server;
use crate::{block_locality, check, closing, opening, schedulers, served_report};

/// How many regions are closed, flushed or checked at a time.
const REGIONS_AT_ONCE: usize = 16;

/// How many regions one order to check may name. A master names up to 256.
const CHECKS_MAX: usize = 1_024;

/// The gRPC service for orders.
pub(crate) struct Orders(Arc<Server>);

type Reply<T> = Result<Response<T>, Status>;

// === impl Orders ===

impl Orders {
    /// The service of `server`, as tonic expects it.
    pub(crate) fn service(server: Arc<Server>) -> RegionServerOrdersServer<Self> {
        RegionServerOrdersServer::new(Self(server))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Rejects orders of masters that are not active. The sender may be anybody, so the answer
    /// reveals nothing more.
    async fn check_master(&self, epoch: u64) -> Result<(), Status> {
        let server = &self.0;
        match server.master.check(MasterEpoch(epoch)).await {
            Ok(()) => {
                trace!(target: WITNESS, server = %server.name, epoch, "ordered");
                Ok(())
            }
            Err(refused) => {
                warn!(%refused, "rejected an order");
                Err(match refused {
                    Refused::Outdated { .. } | Refused::Unrecorded { .. } => {
                        Status::failed_precondition("this master is not active")
                    }
                    Refused::Unknown(_) => Status::unavailable("the epoch cannot be checked now"),
                })
            }
        }
    }

    /// Rejects orders that are meant for another process. A process that was started again at the
    /// same address must not confirm the close of a region that it never held.
    fn check_addressee(&self, server_name: &str) -> Result<(), Status> {
        if server_name == self.0.name.to_string() {
            return Ok(());
        }
        warn!(addressee = server_name, "received an order for another process");
        Err(Status::not_found("this order is for another process"))
    }
}

#[tonic::async_trait]
impl RegionServerOrders for Orders {
    type LiveStream = Pin<Box<dyn Stream<Item = Result<pb::Alive, Status>> + Send>>;

    async fn live(&self, request: Request<pb::LiveRequest>) -> Reply<Self::LiveStream> {
        self.check_master(request.get_ref().master_epoch).await?;
        let places = Box::pin(block_locality::words(Arc::clone(&self.0)));
        let reports = Box::pin(served_report::reports(Arc::clone(&self.0)));
        let words = futures::stream::select(places, reports).map(Ok);
        let ended = self.0.abort.clone();
        Ok(Response::new(Box::pin(words.take_until(ended.cancelled_owned()))))
    }

    async fn open_regions(
        &self,
        request: Request<pb::OpenRegionsRequest>,
    ) -> Reply<pb::RegionsReply> {
        let request = request.into_inner();
        self.check_master(request.master_epoch).await?;
        let server = Arc::clone(&self.0);
        server.exclude_nodes(&request.excluded_nodes);
        // An order is completed even if the master that gave it goes away.
        let opened = tokio::spawn(opening::open_regions(server, request.regions));
        let outcomes = opened.await.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(pb::RegionsReply { outcomes }))
    }

    async fn close_regions(
        &self,
        request: Request<pb::CloseRegionsRequest>,
    ) -> Reply<pb::RegionsReply> {
        let request = request.into_inner();
        self.check_master(request.master_epoch).await?;
        self.check_addressee(&request.server_name)?;
        let server = Arc::clone(&self.0);
        let closed = tokio::spawn(async move {
            let closes = request.regions.into_iter();
            let closes = closes.map(|order| closing::close_region(&server, order));
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
        self.check_master(request.master_epoch).await?;
        let server = Arc::clone(&self.0);
        let flushed = tokio::spawn(async move {
            let flushes = request.encoded_names.into_iter().map(|name| flush_region(&server, name));
            futures::stream::iter(flushes).buffer_unordered(REGIONS_AT_ONCE).collect().await
        });
        let outcomes = flushed.await.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(pb::RegionsReply { outcomes }))
    }

    async fn catch_up(&self, request: Request<pb::CatchUpRequest>) -> Reply<pb::CatchUpReply> {
        self.check_master(request.get_ref().master_epoch).await?;
        let caught_up = self.0.catalog.catch_up().await;
        caught_up.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(pb::CatchUpReply {}))
    }

    async fn report_regions(
        &self,
        request: Request<pb::ReportRegionsRequest>,
    ) -> Reply<pb::ReportRegionsReply> {
        let request = request.into_inner();
        self.check_master(request.master_epoch).await?;
        self.check_addressee(&request.server_name)?;
        Ok(Response::new(pb::ReportRegionsReply { served: self.0.served().to_messages() }))
    }

    async fn check_regions(
        &self,
        request: Request<pb::CheckRegionsRequest>,
    ) -> Reply<pb::CheckRegionsReply> {
        let request = request.into_inner();
        self.check_master(request.master_epoch).await?;
        self.check_addressee(&request.server_name)?;
        let count = request.encoded_names.len();
        if count > CHECKS_MAX {
            let message = format!("{count} regions; at most {CHECKS_MAX} are checked at a time");
            return Err(Status::invalid_argument(message));
        }
        let server = Arc::clone(&self.0);
        let checked = tokio::spawn(async move {
            let checks = request.encoded_names.into_iter();
            let checks = checks.map(|name| check::check_region(&server, name));
            futures::stream::iter(checks).buffer_unordered(REGIONS_AT_ONCE).collect().await
        });
        let checks = checked.await.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(pb::CheckRegionsReply { checks }))
    }

    async fn compare_clock(
        &self,
        request: Request<pb::CompareClockRequest>,
    ) -> Reply<pb::CompareClockReply> {
        let request = request.into_inner();
        self.check_master(request.master_epoch).await?;
        let ahead_ms = request.is_off.then_some(request.ahead_ms);
        let wall_ms = self.0.shared.timestamps.compare(request.compared_wall_ms, ahead_ms);
        Ok(Response::new(pb::CompareClockReply { wall_ms }))
    }

    async fn split_logs(
        &self,
        request: Request<pb::SplitLogsRequest>,
    ) -> Reply<pb::SplitLogsReply> {
        let request = request.into_inner();
        self.check_master(request.master_epoch).await?;
        let server: ServerName = request
            .server_name
            .parse()
            .map_err(|error: basalt_model::Error| Status::invalid_argument(error.to_string()))?;
        self.0.exclude_nodes(&request.excluded_nodes);
        let files = Arc::clone(&self.0.shared.files);
        let logs = split::split(files, &server, request.logs).await;
        Ok(Response::new(pb::SplitLogsReply { logs }))
    }
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
