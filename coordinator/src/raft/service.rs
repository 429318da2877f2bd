//! Answers the requests of the other members.

use std::sync::Arc;
use std::time::Duration;

use basalt_planted::{Rule, is_off};
use bytes::BytesMut;
use openraft::ReadPolicy;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::service::Interceptor;
use tonic::{Request, Response, Status, Streaming};

use crate::member::Member;
use crate::raft::incoming::PeerInfo;
use crate::raft::network::{CLUSTER_KEY, ENSEMBLE_KEY, MEMBER_KEY};
use crate::raft::types::{Raft, SnapshotMeta, StoredSnapshot, TypeConfig, Vote, term as term_of};
use crate::tree::Command;
use crate::wire::v1::peer_server::Peer;
use crate::wire::{
    entry_from_wire, log_id_from_wire, log_id_to_wire, stored_membership_from_wire, v1, vote_of,
    vote_to_wire,
};

/// Answers the requests of the other members.
pub(crate) struct PeerService {
    member: Arc<Member>,
    /// One snapshot at a time: it is in memory until it is installed.
    installing: Semaphore,
}

/// Checks each request before its message is read. Strangers are rejected, and the answer reveals
/// nothing to them.
#[derive(Clone)]
pub(crate) struct Gate {
    member: Arc<Member>,
    /// Whether a request must also carry the ensemble's id.
    for_peers: bool,
    refused: Arc<Mutex<Option<Instant>>>,
}

/// A rejected request is logged at most this often.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(10);
/// How long a snapshot may take to arrive.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest snapshot that is accepted.
const SNAPSHOT_BYTES_MAX: u64 = 4 << 30;

// === impl PeerService ===

impl PeerService {
    /// The service of `member`.
    pub(crate) fn new(member: Arc<Member>) -> Self {
        Self { member, installing: Semaphore::new(1) }
    }

    fn raft(&self) -> &Raft {
        &self.member.raft
    }

    /// The vote in a request. Fails if its term is not plausible.
    fn vote_of(&self, ballot: Option<v1::Ballot>) -> Result<Vote, Status> {
        let vote = vote_of(ballot).map_err(invalid)?;
        if !is_off(Rule::BelievableTerm) {
            self.member.terms.check(&vote)?;
        }
        Ok(vote)
    }

    /// The request of a candidate for a vote, if this member may vote for it.
    fn ballot(&self, request: v1::VoteRequest) -> Result<VoteRequest<TypeConfig>, Status> {
        let vote = self.vote_of(request.vote)?;
        let member = &self.member;
        member.check_room()?;
        let is_cleared = member.standing.is_cleared(member.config.members.len());
        let candidate = vote.leader_id.voted_for;
        if !member.rejoin.may_vote(candidate) || (!is_cleared && member.rejoin.is_caught_up()) {
            return Err(Status::failed_precondition(
                "this member does not vote until the others have seen that it has all the data \
                 that it had",
            ));
        }
        let mut rpc = VoteRequest::new(vote, request.last.map(log_id_from_wire));
        rpc.leadership_transfer = request.leadership_transfer;
        Ok(rpc)
    }

    /// Rejects a leader that this member must not follow.
    fn check_may_follow(&self, leader: &Vote) -> Result<(), Status> {
        match self.member.rejoin.may_follow(leader.leader_id.term) {
            true => Ok(()),
            false => Err(Status::failed_precondition(
                "this member accepts nothing until a majority with data has admitted it",
            )),
        }
    }

    async fn receive_snapshot(
        &self,
        mut chunks: Streaming<v1::SnapshotChunk>,
    ) -> Result<(Vote, StoredSnapshot), Status> {
        let first = chunks.message().await?;
        let first = first.ok_or_else(|| Status::invalid_argument("a snapshot without a chunk"))?;
        if first.length > SNAPSHOT_BYTES_MAX {
            return Err(Status::invalid_argument("the snapshot is too long"));
        }
        let vote = self.vote_of(first.vote)?;
        self.check_may_follow(&vote)?;
        let meta = SnapshotMeta {
            last_log_id: first.last.map(log_id_from_wire),
            last_membership: stored_membership_from_wire(first.membership).map_err(invalid)?,
        };
        let mut state = BytesMut::from(first.data);
        while let Some(chunk) = chunks.message().await? {
            state.extend_from_slice(&chunk.data);
            if state.len() as u64 > first.length {
                break;
            }
        }
        if state.len() as u64 != first.length {
            return Err(Status::invalid_argument(format!(
                "a snapshot of {} bytes was announced, but {} bytes arrived",
                first.length,
                state.len()
            )));
        }
        Ok((vote, StoredSnapshot { meta, snapshot: state.freeze() }))
    }

    async fn check_leads(&self) -> Result<(), Status> {
        match self.raft().get_read_linearizer(ReadPolicy::LeaseRead).await {
            Ok(_) => Ok(()),
            Err(error) => Err(unavailable(error)),
        }
    }
}

// === impl Gate ===

impl Gate {
    /// For requests that only peers make.
    pub(crate) fn for_peers(member: Arc<Member>) -> Self {
        Self { member, for_peers: true, refused: Arc::default() }
    }

    /// For greetings, which also come from members that do not know the ensemble yet.
    pub(crate) fn for_greetings(member: Arc<Member>) -> Self {
        Self { member, for_peers: false, refused: Arc::default() }
    }

    /// The problem with the destination or the sender of a request, if there is one.
    fn problem(&self, request: &Request<()>) -> Option<&'static str> {
        let said = |key| {
            let value = request.metadata().get(key);
            value.and_then(|value| value.to_str().ok()).unwrap_or("")
        };
        let config = &self.member.config;
        if said(CLUSTER_KEY) != config.cluster {
            return Some("it is for another cluster: check the peer addresses");
        }
        if said(MEMBER_KEY) != config.member_id.to_string() {
            return Some("it is for another member: check the peer addresses");
        }
        if !self.for_peers || is_off(Rule::BelievableTerm) {
            return None;
        }
        let ensemble = request.metadata().get_bin(ENSEMBLE_KEY).and_then(|id| id.to_bytes().ok());
        match self.member.ensemble.is_peer(ensemble.as_deref()) {
            true => None,
            false => Some(
                "it comes from another ensemble, or this member does not participate yet: a member \
                 whose folder belongs to another ensemble must start with an empty one",
            ),
        }
    }

    /// Logs a rejection, at most once per `REFUSAL_LOG_INTERVAL`.
    fn log(&self, request: &Request<()>, problem: &str) {
        let mut refused = self.refused.lock();
        if refused.is_none_or(|last| last.elapsed() >= REFUSAL_LOG_INTERVAL) {
            *refused = Some(Instant::now());
            let from = request.extensions().get::<PeerInfo>().map(|info| info.address);
            tracing::warn!(?from, "rejected a request to the peer port: {problem}");
        }
    }
}

impl Interceptor for Gate {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(problem) = self.problem(&request) {
            self.log(&request, problem);
            return Err(Status::permission_denied("refused"));
        }
        if self.for_peers
            && let Some(info) = request.extensions().get::<PeerInfo>()
        {
            info.make_known();
        }
        Ok(request)
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let request = request.into_inner();
        let vote = self.vote_of(request.vote)?;
        self.check_may_follow(&vote)?;
        if !request.entries.is_empty() {
            self.member.check_room()?;
        }
        let entries = request.entries.into_iter().map(entry_from_wire);
        let rpc = AppendEntriesRequest {
            vote,
            prev_log_id: request.previous.map(log_id_from_wire),
            entries: entries.collect::<Result<_, _>>().map_err(invalid)?,
            leader_commit: request.leader_commit.map(log_id_from_wire),
        };
        check_consecutive(&rpc)?;
        let (committed, term) = (rpc.leader_commit, rpc.vote.leader_id.term);
        let response = self.raft().append_entries(rpc).await.map_err(unavailable)?;
        // Only now is it known that the sender leads. And only an entry that it has committed in
        // its own term shows that it knows everything that was committed before.
        if let (Some(committed), false) = (committed, is_higher_vote(&response))
            && term_of(&committed) == term
        {
            self.member.rejoin.heard_committed(term, committed.index);
        }
        use v1::append_response::Outcome;
        let outcome = match response {
            AppendEntriesResponse::Success => Outcome::Success(true),
            AppendEntriesResponse::PartialSuccess(upto) => {
                Outcome::Partial(v1::PartialSuccess { upto: upto.map(log_id_to_wire) })
            }
            AppendEntriesResponse::Conflict => Outcome::Conflict(true),
            AppendEntriesResponse::HigherVote(vote) => Outcome::HigherVote(vote_to_wire(vote)),
        };
        Ok(Response::new(v1::AppendResponse { outcome: Some(outcome) }))
    }

    async fn vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteResponse>, Status> {
        let rpc = self.ballot(request.into_inner())?;
        let response = self.raft().vote(rpc).await.map_err(unavailable)?;
        Ok(vote_response(response))
    }

    async fn pre_vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteResponse>, Status> {
        let rpc = self.ballot(request.into_inner())?;
        let response = self.raft().pre_vote(rpc).await.map_err(unavailable)?;
        Ok(vote_response(response))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotChunk>>,
    ) -> Result<Response<v1::SnapshotResponse>, Status> {
        self.member.check_room()?;
        let Ok(_place) = self.installing.try_acquire() else {
            return Err(Status::resource_exhausted("another snapshot is being installed"));
        };
        let received = self.receive_snapshot(request.into_inner());
        let received = tokio::time::timeout(SNAPSHOT_TIMEOUT, received).await;
        let (vote, snapshot) =
            received.map_err(|_| Status::deadline_exceeded("the snapshot took too long"))??;
        let installed = self.raft().install_full_snapshot(vote, snapshot).await;
        let response = installed.map_err(unavailable)?;
        Ok(Response::new(v1::SnapshotResponse { vote: Some(vote_to_wire(response.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        self.member.check_room()?;
        let request = request.into_inner();
        let rpc = TransferLeaderRequest::new(
            self.vote_of(request.from)?,
            request.to,
            request.last.map(log_id_from_wire),
        );
        let outcome = self.raft().handle_transfer_leader(rpc).await;
        use v1::transfer_leader_response::Refusal;
        let refusal = match outcome.map_err(unavailable)? {
            Ok(()) => None,
            Err(TransferLeaderError::VoteChanged { actual, .. }) => {
                Some(Refusal::VoteChanged(vote_to_wire(actual)))
            }
            Err(TransferLeaderError::LogNotFlushed { actual, .. }) => Some(match actual {
                Some(actual) => Refusal::NotFlushed(log_id_to_wire(actual)),
                None => Refusal::NothingFlushed(true),
            }),
        };
        Ok(Response::new(v1::TransferLeaderResponse { refusal }))
    }

    async fn propose(
        &self,
        request: Request<v1::ProposeRequest>,
    ) -> Result<Response<v1::ProposeResponse>, Status> {
        let commands = request
            .into_inner()
            .commands
            .into_iter()
            .map(Command::try_from)
            .collect::<Result<Vec<_>, _>>()
            .map_err(invalid)?;
        self.member.propose_as_leader(commands).await.map_err(unavailable)?;
        Ok(Response::new(v1::ProposeResponse {}))
    }

    async fn read_index(
        &self,
        _: Request<v1::ReadIndexRequest>,
    ) -> Result<Response<v1::ReadIndexResponse>, Status> {
        let index = self.member.read_index_as_leader().await;
        Ok(Response::new(v1::ReadIndexResponse { index: index.map_err(unavailable)? }))
    }

    async fn touch(
        &self,
        request: Request<v1::TouchRequest>,
    ) -> Result<Response<v1::TouchResponse>, Status> {
        self.check_leads().await?;
        self.member.expiry.heard_of(request.into_inner().sessions);
        Ok(Response::new(v1::TouchResponse {}))
    }
}

fn is_higher_vote(response: &AppendEntriesResponse<TypeConfig>) -> bool {
    matches!(response, AppendEntriesResponse::HigherVote(_))
}

/// Rejects entries that are not consecutive, because they would break the log.
fn check_consecutive(rpc: &AppendEntriesRequest<TypeConfig>) -> Result<(), Status> {
    let first = rpc.prev_log_id.map_or(0, |previous| previous.index.saturating_add(1));
    let mut expected = (first..).zip(&rpc.entries);
    match expected.all(|(index, entry)| entry.log_id.index == index) {
        true => Ok(()),
        false => Err(Status::invalid_argument("the entries are not consecutive")),
    }
}

fn vote_response(response: VoteResponse<TypeConfig>) -> Response<v1::VoteResponse> {
    Response::new(v1::VoteResponse {
        vote: Some(vote_to_wire(response.vote)),
        last: response.last_log_id.map(log_id_to_wire),
        granted: response.vote_granted,
    })
}

fn invalid(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

/// The error for a request that this member cannot handle now, although another member may.
fn unavailable(error: impl std::fmt::Display) -> Status {
    Status::failed_precondition(error.to_string())
}
