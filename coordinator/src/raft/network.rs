//! Requests from a member to the others.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use basalt_runtime::{Network, grpc};
use bytes::Bytes;
use openraft::error::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, EmptyNode, OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use tonic::metadata::{AsciiMetadataValue, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::ensemble::Ensemble;
use crate::raft::terms::Terms;
use crate::raft::types::{LogId, StoredSnapshot, TypeConfig, Vote};
use crate::wire::v1::ensemble_client::EnsembleClient;
use crate::wire::v1::peer_client::PeerClient;
use crate::wire::{
    entry_to_wire, log_id_from_wire, log_id_to_wire, stored_membership_to_wire, v1, vote_from_wire,
    vote_of, vote_to_wire,
};

/// Lazily connected channels to the other members.
#[derive(Clone)]
pub(crate) struct Peers {
    clients: BTreeMap<u64, Client>,
    greeters: BTreeMap<u64, Greeter>,
    /// How long a request to a member may take.
    pub(crate) request_timeout: Duration,
}

type Client = PeerClient<InterceptedService<Channel, Address>>;
type Greeter = EnsembleClient<InterceptedService<Channel, Address>>;

/// Adds to each request which member it is for and which ensemble it comes from. A member of
/// another cluster, or another member that has taken over an address, rejects it.
#[derive(Clone)]
pub(crate) struct Address {
    cluster: AsciiMetadataValue,
    member: AsciiMetadataValue,
    ensemble: Ensemble,
}

/// Creates openraft's connections.
pub(crate) struct RaftNetwork {
    peers: Peers,
    member: u64,
    terms: Terms,
}

/// openraft's connection to one member.
pub(crate) struct PeerConnection {
    client: Option<Client>,
    from: u64,
    to: u64,
    request_timeout: Duration,
    terms: Terms,
}

/// The metadata that names the cluster.
pub(crate) const CLUSTER_KEY: &str = "basalt-cluster";
/// The metadata that names the member that a request is for.
pub(crate) const MEMBER_KEY: &str = "basalt-member";
/// The metadata that names the ensemble that a request comes from.
pub(crate) const ENSEMBLE_KEY: &str = "basalt-ensemble-bin";

/// How much of a snapshot is in one message.
const CHUNK_BYTES: usize = 1 << 20;
/// How long a snapshot may take to be sent and installed.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

// === impl Peers ===

impl Peers {
    /// Channels to `addresses`, the peer addresses by member.
    ///
    /// # Errors
    /// An address or the cluster's name is invalid.
    pub(crate) fn new(
        network: &Network,
        cluster: &str,
        addresses: &BTreeMap<u64, String>,
        request_timeout: Duration,
        ensemble: &Ensemble,
    ) -> Result<Self, String> {
        let cluster = AsciiMetadataValue::try_from(cluster)
            .map_err(|_| format!("the cluster name {cluster:?} is not plain ASCII"))?;
        let (mut clients, mut greeters) = (BTreeMap::new(), BTreeMap::new());
        for (member, address) in addresses {
            let channel = grpc::channel(network, address, request_timeout)
                .map_err(|error| format!("the peer address {address:?} is invalid: {error}"))?;
            let to = Address {
                cluster: cluster.clone(),
                member: MetadataValue::from(*member),
                ensemble: ensemble.clone(),
            };
            let greeter = EnsembleClient::with_interceptor(channel.clone(), to.clone());
            greeters.insert(*member, greeter);
            let client = PeerClient::with_interceptor(channel, to)
                .max_decoding_message_size(grpc::MESSAGE_BYTES_MAX)
                .max_encoding_message_size(grpc::MESSAGE_BYTES_MAX);
            clients.insert(*member, client);
        }
        Ok(Self { clients, greeters, request_timeout })
    }

    /// Sends commands to the leader, in order.
    pub(crate) async fn propose(
        &self,
        leader: u64,
        commands: Vec<v1::Command>,
    ) -> Result<(), Status> {
        let mut client = self.client(leader)?;
        let request = Request::new(v1::ProposeRequest { commands });
        self.within_timeout(client.propose(request)).await.map(|_| ())
    }

    /// The index that a read has to wait for to be linearizable.
    pub(crate) async fn read_index(&self, leader: u64) -> Result<u64, Status> {
        let mut client = self.client(leader)?;
        let request = Request::new(v1::ReadIndexRequest {});
        let response = self.within_timeout(client.read_index(request)).await?;
        Ok(response.into_inner().index)
    }

    /// Reports to the leader which sessions have shown signs of life.
    pub(crate) async fn touch(&self, leader: u64, sessions: Vec<i64>) -> Result<(), Status> {
        let mut client = self.client(leader)?;
        let request = Request::new(v1::TouchRequest { sessions });
        self.within_timeout(client.touch(request)).await.map(|_| ())
    }

    /// Sends a greeting to a member.
    pub(crate) async fn greet(
        &self,
        member: u64,
        greeting: v1::Greeting,
    ) -> Result<v1::GreetingAnswer, Status> {
        let greeter = self.greeters.get(&member).cloned();
        let mut greeter =
            greeter.ok_or_else(|| Status::not_found(format!("no member {member}")))?;
        let answer = self.within_timeout(greeter.greet(Request::new(greeting))).await?;
        Ok(answer.into_inner())
    }

    fn client(&self, member: u64) -> Result<Client, Status> {
        self.clients
            .get(&member)
            .cloned()
            .ok_or_else(|| Status::not_found(format!("no member {member}")))
    }

    async fn within_timeout<T>(
        &self,
        request: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        within(self.request_timeout, request).await
    }
}

async fn within<T>(
    timeout: Duration,
    request: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(timeout, request).await {
        Ok(response) => response,
        Err(_) => Err(Status::deadline_exceeded("no answer")),
    }
}

// === impl Address ===

impl Interceptor for Address {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER_KEY, self.cluster.clone());
        metadata.insert(MEMBER_KEY, self.member.clone());
        if let Some(ensemble) = self.ensemble.id() {
            metadata.insert_bin(ENSEMBLE_KEY, MetadataValue::from_bytes(ensemble.as_bytes()));
        }
        Ok(request)
    }
}

// === impl RaftNetwork ===

impl RaftNetwork {
    /// The network of `member`.
    pub(crate) fn new(peers: Peers, member: u64, terms: Terms) -> Self {
        Self { peers, member, terms }
    }
}

impl RaftNetworkFactory<TypeConfig> for RaftNetwork {
    type Network = PeerConnection;

    async fn new_client(&mut self, to: u64, _: &EmptyNode) -> PeerConnection {
        PeerConnection {
            client: self.peers.client(to).ok(),
            from: self.member,
            to,
            request_timeout: self.peers.request_timeout,
            terms: self.terms.clone(),
        }
    }
}

// === impl PeerConnection ===

impl PeerConnection {
    fn client(&self) -> Result<Client, RPCError<TypeConfig>> {
        self.client.clone().ok_or_else(|| {
            let missing = AnyError::error(format!("no member {} in the configuration", self.to));
            RPCError::Unreachable(Unreachable::new(&missing))
        })
    }

    fn vote_request(&self, rpc: VoteRequest<TypeConfig>) -> v1::VoteRequest {
        v1::VoteRequest {
            vote: Some(vote_to_wire(rpc.vote)),
            last: rpc.last_log_id.map(log_id_to_wire),
            leadership_transfer: rpc.leadership_transfer,
            is_new: false,
        }
    }

    fn failed(&self, action: RPCTypes, status: Status) -> RPCError<TypeConfig> {
        match status.code() {
            Code::DeadlineExceeded => RPCError::Timeout(Timeout {
                action,
                id: self.from,
                target: self.to,
                timeout: self.request_timeout,
            }),
            // The member is unavailable: openraft waits a little before it tries again.
            Code::Unavailable => RPCError::Unreachable(Unreachable::new(&status)),
            _ => RPCError::Network(NetworkError::new(&status)),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for PeerConnection {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = v1::AppendRequest {
            vote: Some(vote_to_wire(rpc.vote)),
            previous: rpc.prev_log_id.map(log_id_to_wire),
            entries: rpc.entries.into_iter().map(entry_to_wire).collect(),
            leader_commit: rpc.leader_commit.map(log_id_to_wire),
        };
        let mut client = self.client()?;
        let response = within(self.request_timeout, client.append(request))
            .await
            .map_err(|status| self.failed(RPCTypes::AppendEntries, status))?;
        use v1::append_response::Outcome;
        match response.into_inner().outcome {
            Some(Outcome::Success(_)) => Ok(AppendEntriesResponse::Success),
            Some(Outcome::Partial(partial)) => {
                Ok(AppendEntriesResponse::PartialSuccess(partial.upto.map(log_id_from_wire)))
            }
            Some(Outcome::Conflict(_)) => Ok(AppendEntriesResponse::Conflict),
            Some(Outcome::HigherVote(vote)) => {
                let vote = vote_from_wire(vote);
                let checked = self.terms.check(&vote);
                checked.map_err(|status| self.failed(RPCTypes::AppendEntries, status))?;
                Ok(AppendEntriesResponse::HigherVote(vote))
            }
            None => {
                let status = Status::internal("the answer to an append is empty");
                Err(self.failed(RPCTypes::AppendEntries, status))
            }
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client()?;
        let response = within(self.request_timeout, client.vote(self.vote_request(rpc))).await;
        let response = response.and_then(vote_response);
        let response = response.and_then(|voted| self.terms.check(&voted.vote).map(|()| voted));
        response.map_err(|status| self.failed(RPCTypes::Vote, status))
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client()?;
        let response = within(self.request_timeout, client.pre_vote(self.vote_request(rpc))).await;
        let response = response.and_then(vote_response);
        let response = response.and_then(|voted| self.terms.check(&voted.vote).map(|()| voted));
        response.map_err(|status| self.failed(RPCTypes::Vote, status))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: StoredSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut client = self.client()?;
        let sent = client.install_snapshot(futures::stream::iter(chunks(vote, snapshot)));
        let response = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            response = within(SNAPSHOT_TIMEOUT, sent) => response,
        };
        let vote = response
            .and_then(|response| vote_of(response.into_inner().vote).map_err(internal))
            .and_then(|vote| self.terms.check(&vote).map(|()| vote))
            .map_err(|status| self.failed(RPCTypes::InstallSnapshot, status))?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let expected_log = request.last_log_id().copied();
        let expected_vote = *request.from_leader();
        let request = v1::TransferLeaderRequest {
            from: Some(vote_to_wire(expected_vote)),
            to: *request.to_node_id(),
            last: expected_log.map(log_id_to_wire),
        };
        let mut client = self.client()?;
        let response = within(self.request_timeout, client.transfer_leader(request))
            .await
            .map_err(|status| self.failed(RPCTypes::TransferLeader, status))?;
        use v1::transfer_leader_response::Refusal;
        let not_flushed = |actual: Option<LogId>| TransferLeaderError::LogNotFlushed {
            expected: expected_log,
            actual,
        };
        Ok(match response.into_inner().refusal {
            None => Ok(()),
            Some(Refusal::VoteChanged(actual)) => Err(TransferLeaderError::VoteChanged {
                expected: expected_vote,
                actual: vote_from_wire(actual),
            }),
            Some(Refusal::NotFlushed(actual)) => Err(not_flushed(Some(log_id_from_wire(actual)))),
            Some(Refusal::NothingFlushed(_)) => Err(not_flushed(None)),
        })
    }
}

fn vote_response(
    response: tonic::Response<v1::VoteResponse>,
) -> Result<VoteResponse<TypeConfig>, Status> {
    let response = response.into_inner();
    let vote = vote_of(response.vote).map_err(internal)?;
    let last = response.last.map(log_id_from_wire);
    Ok(VoteResponse::new(vote, last, response.granted))
}

fn chunks(vote: Vote, snapshot: StoredSnapshot) -> impl Iterator<Item = v1::SnapshotChunk> {
    let state = snapshot.snapshot;
    let first = v1::SnapshotChunk {
        vote: Some(vote_to_wire(vote)),
        last: snapshot.meta.last_log_id.map(log_id_to_wire),
        membership: Some(stored_membership_to_wire(&snapshot.meta.last_membership)),
        length: state.len() as u64,
        data: Bytes::new(),
    };
    let rest = (0..state.len().div_ceil(CHUNK_BYTES)).map(move |number| {
        let start = number * CHUNK_BYTES;
        let end = (start + CHUNK_BYTES).min(state.len());
        v1::SnapshotChunk { data: state.slice(start..end), ..v1::SnapshotChunk::default() }
    });
    std::iter::once(first).chain(rest)
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}
