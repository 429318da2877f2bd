//! Basalt's processes, as the operator queries them: coordinator members answer `mntr`, masters
//! answer the gRPC service for peers. A process answers while its pod is ready. In each role the
//! first ready one leads.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use basalt_cluster::pb;
use basalt_cluster::pb::master_peer_server::{MasterPeer, MasterPeerServer};
use basalt_runtime::{Connection, Listener, Network, NetworkSource, grpc};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tonic::{Request, Response, Status};

use super::api_server::ApiServer;
use super::controllers;

/// How many regions each region server holds until it is drained.
pub(super) const REGIONS: u32 = 4;

/// The processes of all pods of a server.
#[derive(Clone)]
pub(crate) struct Processes {
    server: ApiServer,
    /// Pods whose processes do not answer, whether or not the pods are ready.
    pub(crate) silent: Arc<Mutex<Vec<String>>>,
}

/// A server's only connection.
struct Once(Option<DuplexStream>);

#[derive(Clone)]
struct Master {
    processes: Processes,
    is_active: bool,
}

// === impl Processes ===

impl Processes {
    pub(super) fn new(server: ApiServer) -> Self {
        Self { server, silent: Arc::default() }
    }

    pub(super) fn network(&self) -> Network {
        Network::new(self.clone())
    }

    /// The pods of `role` whose processes answer, in order.
    fn of_role(&self, role: &str) -> Vec<String> {
        let pods = self.server.list("pods");
        let serving = pods.iter().filter(|pod| {
            pod["metadata"]["labels"]["app.kubernetes.io/component"] == role
                && controllers::is_ready(pod)
        });
        let names = serving.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned());
        let silent = self.silent.lock();
        names.filter(|name| !silent.contains(name)).collect()
    }
}

#[async_trait]
impl NetworkSource for Processes {
    async fn connect(&self, address: &str) -> io::Result<Connection> {
        let (ip, port) = address.rsplit_once(':').unwrap();
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let role = if port == "2181" { "coordinator" } else { "master" };
        let pods = self.of_role(role);
        let pod = pods.iter().position(|pod| controllers::address(pod) == ip);
        let index = pod.ok_or_else(refused)?;
        let (near, mut far) = tokio::io::duplex(64 << 10);
        if role == "coordinator" {
            let state = if index == 0 { "leader" } else { "follower" };
            tokio::spawn(async move {
                let mut word = [0; 4];
                let _asked = far.read_exact(&mut word).await;
                let answer = format!("zk_version\t3.9\nzk_server_state\t{state}\n");
                let _answered = far.write_all(answer.as_bytes()).await;
            });
        } else {
            let master = Master { processes: self.clone(), is_active: index == 0 };
            let connections = grpc::incoming(Box::new(Once(Some(far))));
            let server = tonic::transport::Server::builder();
            let service = MasterPeerServer::new(master);
            tokio::spawn({ server }.add_service(service).serve_with_incoming(connections));
        }
        Ok(Box::new(near))
    }

    async fn listen(&self, _: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

// === impl Once ===

#[async_trait]
impl Listener for Once {
    async fn accept(&mut self) -> io::Result<(Connection, SocketAddr)> {
        match self.0.take() {
            Some(connection) => Ok((Box::new(connection), SocketAddr::from(([10, 0, 0, 1], 1)))),
            None => std::future::pending().await,
        }
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([10, 0, 0, 2], 2)))
    }
}

// === impl Master ===

impl Master {
    fn check(&self) -> Result<(), Status> {
        self.is_active.then_some(()).ok_or_else(|| Status::failed_precondition("a standby"))
    }
}

#[async_trait]
impl MasterPeer for Master {
    type LiveStream = tokio_stream::Pending<Result<pb::Alive, Status>>;

    async fn live(
        &self,
        _: Request<pb::LiveRequest>,
    ) -> Result<Response<Self::LiveStream>, Status> {
        Err(Status::unimplemented("not asked by the operator"))
    }

    async fn catch_up(
        &self,
        _: Request<pb::CatchUpRequest>,
    ) -> Result<Response<pb::CatchUpReply>, Status> {
        Err(Status::unimplemented("not asked by the operator"))
    }

    async fn accept_loss(
        &self,
        _: Request<pb::AcceptLossRequest>,
    ) -> Result<Response<pb::AcceptLossReply>, Status> {
        Err(Status::unimplemented("not asked by the operator"))
    }

    async fn process_ended(
        &self,
        _: Request<pb::ProcessEndedRequest>,
    ) -> Result<Response<pb::ProcessEndedReply>, Status> {
        self.check()?;
        Ok(Response::new(pb::ProcessEndedReply {}))
    }

    async fn drain(
        &self,
        _: Request<pb::DrainRequest>,
    ) -> Result<Response<pb::DrainReply>, Status> {
        Err(Status::unimplemented("not asked by the operator"))
    }

    async fn pods(
        &self,
        request: Request<pb::PodsRequest>,
    ) -> Result<Response<pb::PodsReply>, Status> {
        self.check()?;
        let serving = self.processes.of_role("regionserver").len();
        let pods = request.into_inner().pods.into_iter();
        // A draining server has no regions at once, if another server can take them.
        let left = |draining: bool| if draining && serving > 1 { 0 } else { REGIONS };
        let regions = pods.map(|pod| (pod.uid, left(pod.draining))).collect();
        Ok(Response::new(pb::PodsReply { regions }))
    }

    async fn recoveries(
        &self,
        _: Request<pb::RecoveriesRequest>,
    ) -> Result<Response<pb::RecoveriesReply>, Status> {
        self.check()?;
        Ok(Response::new(pb::RecoveriesReply::default()))
    }
}
