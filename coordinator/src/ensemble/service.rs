//! Answers the greetings of other members.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::greeting;
use crate::member::Member;
use crate::raft::incoming::PeerInfo;
use crate::wire::v1;
use crate::wire::v1::ensemble_server::Ensemble;

/// Answers the greetings of other members.
pub(crate) struct EnsembleService {
    member: Arc<Member>,
}

// === impl EnsembleService ===

impl EnsembleService {
    /// The service of `member`.
    pub(crate) fn new(member: Arc<Member>) -> Self {
        Self { member }
    }
}

#[tonic::async_trait]
impl Ensemble for EnsembleService {
    async fn greet(
        &self,
        request: Request<v1::Greeting>,
    ) -> Result<Response<v1::GreetingAnswer>, Status> {
        let info = request.extensions().get::<PeerInfo>().cloned();
        let greeting = request.into_inner();
        let facts = greeting::from_wire(&greeting)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let member = &self.member;
        let is_other = greeting.member != member.id();
        if !is_other || !member.config.members.contains_key(&greeting.member) {
            return Err(Status::invalid_argument("the greeting does not come from another member"));
        }
        // A stranger may report anything. Only what an empty member needs to decide is kept, and
        // the answer reveals nothing.
        let own = member.ensemble.id();
        let is_peer = match (own, facts.ensemble) {
            (Some(own), Some(said)) => own.is(said.as_bytes()),
            _ => false,
        };
        if is_peer {
            if let Some(info) = info {
                info.make_known();
            }
            if let Some(checkpoint) = greeting.checkpoint {
                member.checkpoints.lock().insert(greeting.member, checkpoint);
            }
            let mut short_of_room = member.short_of_room.lock();
            match greeting.short_of_room {
                true => short_of_room.insert(greeting.member),
                false => short_of_room.remove(&greeting.member),
            };
        }
        let judgement = member.standing.heard(member, greeting.member, facts);
        if is_peer && member.standing.must_record_first(greeting.member) {
            return Err(Status::resource_exhausted("the disk of this member is full"));
        }
        Ok(Response::new(match is_peer {
            true => v1::GreetingAnswer {
                outdated: judgement.is_outdated,
                incarnation: judgement.incarnation,
            },
            false => v1::GreetingAnswer::default(),
        }))
    }
}
