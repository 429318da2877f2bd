//! What a member answers to the others.

use std::sync::Arc;

use bytes::BytesMut;
use openraft::ReadPolicy;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use tonic::{Request, Response, Status, Streaming};

use crate::member::Member;
use crate::raft::network::{CLUSTER_KEY, MEMBER_KEY};
use crate::raft::types::{Raft, SnapshotMeta, StoredSnapshot, TypeConfig};
use crate::tree::Command;
use crate::wire::v1::peer_server::Peer;
use crate::wire::{
    entry_from_wire, log_id_from_wire, log_id_to_wire, stored_membership_from_wire, v1, vote_of,
    vote_to_wire,
};

/// Answers the other members.
pub(crate) struct PeerService {
    member: Arc<Member>,
}

/// The longest snapshot that is taken.
const SNAPSHOT_BYTES_MAX: u64 = 4 << 30;

// === impl PeerService ===

impl PeerService {
    /// The service of `member`.
    pub(crate) fn new(member: Arc<Member>) -> Self {
        Self { member }
    }

    fn raft(&self) -> &Raft {
        &self.member.raft
    }

    /// Refuses what is meant for another cluster or another member.
    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let said = |key| {
            let value = request.metadata().get(key);
            value.and_then(|value| value.to_str().ok()).unwrap_or("")
        };
        let (cluster, member) = (said(CLUSTER_KEY), said(MEMBER_KEY));
        let config = &self.member.config;
        if cluster != config.cluster || member != config.member_id.to_string() {
            return Err(Status::permission_denied(format!(
                "this is member {} of cluster {:?}, the request is for member {member} of \
                 cluster {cluster:?}: check the peer addresses",
                config.member_id, config.cluster
            )));
        }
        Ok(())
    }

    fn check_may_vote(&self, candidate_is_new: bool) -> Result<(), Status> {
        match self.member.rejoin.may_vote(candidate_is_new) {
            true => Ok(()),
            false => Err(Status::failed_precondition(
                "this member began with an empty folder and does not vote before it has caught up",
            )),
        }
    }

    async fn check_leads(&self) -> Result<(), Status> {
        match self.raft().get_read_linearizer(ReadPolicy::LeaseRead).await {
            Ok(_) => Ok(()),
            Err(error) => Err(unavailable(error)),
        }
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        self.check(&request)?;
        let request = request.into_inner();
        let entries = request.entries.into_iter().map(entry_from_wire);
        let rpc = AppendEntriesRequest {
            vote: vote_of(request.vote).map_err(invalid)?,
            prev_log_id: request.previous.map(log_id_from_wire),
            entries: entries.collect::<Result<_, _>>().map_err(invalid)?,
            leader_commit: request.leader_commit.map(log_id_from_wire),
        };
        let committed = rpc.leader_commit;
        let response = self.raft().append_entries(rpc).await.map_err(unavailable)?;
        // Only now is it known that the sender leads.
        if let (Some(committed), false) = (committed, is_higher_vote(&response)) {
            self.member.rejoin.heard_committed(committed.index);
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
        self.check(&request)?;
        let request = request.into_inner();
        self.check_may_vote(request.is_new)?;
        let rpc = vote_request(request)?;
        let response = self.raft().vote(rpc).await.map_err(unavailable)?;
        Ok(vote_response(response))
    }

    async fn pre_vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteResponse>, Status> {
        self.check(&request)?;
        let request = request.into_inner();
        self.check_may_vote(request.is_new)?;
        let rpc = vote_request(request)?;
        let response = self.raft().pre_vote(rpc).await.map_err(unavailable)?;
        Ok(vote_response(response))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotChunk>>,
    ) -> Result<Response<v1::SnapshotResponse>, Status> {
        self.check(&request)?;
        let mut chunks = request.into_inner();
        let first = chunks.message().await?;
        let first = first.ok_or_else(|| Status::invalid_argument("a snapshot without a chunk"))?;
        if first.length > SNAPSHOT_BYTES_MAX {
            return Err(Status::invalid_argument("the snapshot is too long"));
        }
        let vote = vote_of(first.vote).map_err(invalid)?;
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
                "a snapshot of {} bytes was announced and {} came",
                first.length,
                state.len()
            )));
        }
        let snapshot = StoredSnapshot { meta, snapshot: state.freeze() };
        let installed = self.raft().install_full_snapshot(vote, snapshot).await;
        let response = installed.map_err(unavailable)?;
        Ok(Response::new(v1::SnapshotResponse { vote: Some(vote_to_wire(response.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        self.check(&request)?;
        let request = request.into_inner();
        let rpc = TransferLeaderRequest::new(
            vote_of(request.from).map_err(invalid)?,
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
        self.check(&request)?;
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
        request: Request<v1::ReadIndexRequest>,
    ) -> Result<Response<v1::ReadIndexResponse>, Status> {
        self.check(&request)?;
        let index = self.member.read_index_as_leader().await;
        Ok(Response::new(v1::ReadIndexResponse { index: index.map_err(unavailable)? }))
    }

    async fn touch(
        &self,
        request: Request<v1::TouchRequest>,
    ) -> Result<Response<v1::TouchResponse>, Status> {
        self.check(&request)?;
        self.check_leads().await?;
        self.member.expiry.heard_of(request.into_inner().sessions);
        Ok(Response::new(v1::TouchResponse {}))
    }
}

fn is_higher_vote(response: &AppendEntriesResponse<TypeConfig>) -> bool {
    matches!(response, AppendEntriesResponse::HigherVote(_))
}

fn vote_request(request: v1::VoteRequest) -> Result<VoteRequest<TypeConfig>, Status> {
    let vote = vote_of(request.vote).map_err(invalid)?;
    let mut rpc = VoteRequest::new(vote, request.last.map(log_id_from_wire));
    rpc.leadership_transfer = request.leadership_transfer;
    Ok(rpc)
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

/// This member cannot do it now; another one may.
fn unavailable(error: impl std::fmt::Display) -> Status {
    Status::failed_precondition(error.to_string())
}
