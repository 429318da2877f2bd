//! The gRPC services of a master, for standby masters, region servers and whatever starts
//! processes.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::pb::master_peer_server::MasterPeer;
use basalt_cluster::{Catalog, pb};
use basalt_model::ServerName;
use futures::Stream;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::balancer::Loads;
use crate::procedure::Work;
use crate::procedure::lost_logs::{self, AcceptError, Acceptance};
use crate::term::Term;
use crate::views::pod_uid;

/// The state behind the services: this process, and its term while it is active.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) server: ServerName,
    pub(crate) catalog: Catalog,
    pub(crate) term: watch::Receiver<Option<Arc<Term>>>,
    /// See [`crate::Config::storage_deviations`].
    pub(crate) storage_deviations: Option<watch::Receiver<Option<Vec<String>>>>,
}

type AliveStream = Pin<Box<dyn Stream<Item = Result<pb::Alive, Status>> + Send>>;

/// How long one `Drain` call waits. The caller repeats it while regions are left.
const DRAIN_WAIT: Duration = Duration::from_secs(5);
/// How often a drain checks that there is still a server that can take the regions.
const DRAIN_LOOK: Duration = Duration::from_millis(200);
/// How many pods one call of `Pods` may name.
const PODS_MAX: usize = 10_000;

// === impl Peer ===

impl Peer {
    fn term(&self) -> Result<Arc<Term>, Status> {
        let term = self.term.borrow().clone();
        term.filter(|term| !term.store.term().is_cancelled())
            .ok_or_else(|| Status::unavailable(format!("{} is not the active master", self.server)))
    }
}

#[tonic::async_trait]
impl MasterPeer for Peer {
    type LiveStream = AliveStream;

    async fn live(&self, _: Request<pb::LiveRequest>) -> Result<Response<AliveStream>, Status> {
        let alive = pb::Alive { server_name: self.server.to_string(), ..Default::default() };
        // Stays open for the life of the process: an open stream is the sign of life.
        let stream = futures::StreamExt::chain(
            futures::stream::iter([Ok(alive)]),
            futures::stream::pending(),
        );
        Ok(Response::new(Box::pin(stream)))
    }

    async fn catch_up(
        &self,
        _: Request<pb::CatchUpRequest>,
    ) -> Result<Response<pb::CatchUpReply>, Status> {
        let caught_up = self.catalog.catch_up().await;
        caught_up.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(pb::CatchUpReply {}))
    }

    async fn process_ended(
        &self,
        request: Request<pb::ProcessEndedRequest>,
    ) -> Result<Response<pb::ProcessEndedReply>, Status> {
        self.term()?.process_ended(&request.into_inner().instance).await;
        Ok(Response::new(pb::ProcessEndedReply {}))
    }

    async fn drain(
        &self,
        request: Request<pb::DrainRequest>,
    ) -> Result<Response<pb::DrainReply>, Status> {
        let term = self.term()?;
        let server: ServerName =
            request.into_inner().server_name.parse().map_err(|error: basalt_model::Error| {
                Status::invalid_argument(error.to_string())
            })?;
        Ok(Response::new(pb::DrainReply { regions_left: term.drain(&server).await }))
    }

    async fn pods(
        &self,
        request: Request<pb::PodsRequest>,
    ) -> Result<Response<pb::PodsReply>, Status> {
        let pods = request.into_inner().pods;
        if pods.len() > PODS_MAX {
            let reason = format!("{} pods; at most {PODS_MAX} can be reported", pods.len());
            return Err(Status::invalid_argument(reason));
        }
        Ok(Response::new(self.term()?.learn_pods(pods)))
    }

    async fn recoveries(
        &self,
        _: Request<pb::RecoveriesRequest>,
    ) -> Result<Response<pb::RecoveriesReply>, Status> {
        let term = self.term()?;
        let mut recoveries: Vec<_> = term.facts.lock().recoveries.values().cloned().collect();
        for (_, procedure) in term.procedure_store.unfinished() {
            if let Work::RecoverServer(recovery) = procedure.work {
                recoveries.push(recovery.report(None));
            }
        }
        let deviations = self.storage_deviations.as_ref().and_then(|known| known.borrow().clone());
        Ok(Response::new(pb::RecoveriesReply {
            recoveries,
            storage_is_known: deviations.is_some(),
            storage_deviations: deviations.unwrap_or_default(),
            lost_logs: term.facts.lock().lost_logs.values().map(|(_, why)| why.clone()).collect(),
        }))
    }

    async fn accept_loss(
        &self,
        request: Request<pb::AcceptLossRequest>,
    ) -> Result<Response<pb::AcceptLossReply>, Status> {
        let term = self.term()?;
        let pb::AcceptLossRequest { server_name, logs, by } = request.into_inner();
        let server: ServerName = server_name
            .parse()
            .map_err(|error: basalt_model::Error| Status::invalid_argument(error.to_string()))?;
        let acceptance = Acceptance { logs: logs.into_iter().collect(), by };
        match lost_logs::accept(&term, &server, &acceptance).await {
            Ok(lost) => {
                let lost = lost.iter().map(ToString::to_string).collect();
                Ok(Response::new(pb::AcceptLossReply { lost }))
            }
            Err(AcceptError::Request(reason)) => Err(Status::failed_precondition(reason)),
            Err(AcceptError::Step(error)) => Err(Status::unavailable(error.to_string())),
        }
    }
}

// === impl Term ===

impl Term {
    /// Records what Kubernetes knows about the pods of region servers. Returns how many regions
    /// each owns.
    fn learn_pods(&self, pods: Vec<pb::Pod>) -> pb::PodsReply {
        let pods: BTreeMap<String, pb::Pod> =
            pods.into_iter().map(|pod| (pod.uid.clone(), pod)).collect();
        let reported: BTreeSet<String> = pods.keys().cloned().collect();
        self.views.learn_pods(pods);
        self.wake.notify_one();
        let view = self.views.now();
        let owned = Loads::of(&view, &BTreeSet::new()).regions();
        let regions = owned.into_iter().filter_map(|(server, count)| {
            let uid = pod_uid(&view.servers.get(&server)?.instance);
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            reported.contains(uid).then(|| (uid.to_owned(), count))
        });
        pb::PodsReply { regions: regions.collect() }
    }

    /// Moves regions away from a server that wants to stop, while another server can take them.
    /// Returns how many are left.
    async fn drain(&self, server: &ServerName) -> u32 {
        if !self.views.servers().contains_key(server) {
            return 0;
        }
        tracing::info!(%server, "draining a region server");
        self.facts.lock().draining.insert(server.clone());
        self.wake.notify_one();
        let left = || self.views.now().owned_by(server).count();
        let has_taker = || !Loads::of(&self.views.now(), &self.draining()).is_empty();
        let deadline = Instant::now() + DRAIN_WAIT;
        while has_taker() && Instant::now() < deadline {
            if self.views.until(DRAIN_LOOK, |_| left() == 0).await {
                break;
            }
        }
        u32::try_from(left()).unwrap_or(u32::MAX)
    }
}
