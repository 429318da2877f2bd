//! Strangers at every port: connections that send nothing, half a request, other bytes or a forged
//! ballot, and stay open for a while.

use std::sync::Arc;
use std::time::Duration;

use basalt_measure::stranger::{self, Approach, Opening};
use basalt_runtime::{Random, Seams, grpc};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};

use crate::workload::Workload;

/// The number of strangers, and the pause of each between two connections.
const STRANGERS: u64 = 4;
const PAUSE_MS: std::ops::Range<u64> = 5..50;
/// How long a connection stays open.
const STAY_MS: std::ops::Range<u64> = 1..2_000;
/// How long to wait for a connection or an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// The calls between coordinator members that a stranger may try.
const BALLOT_CALLS: [&str; 4] = ["Vote", "PreVote", "Append", "TransferLeader"];

/// A vote request, or an append request without entries: their first fields are the same.
#[derive(Clone, PartialEq, prost::Message)]
struct Forged {
    #[prost(message, optional, tag = "1")]
    vote: Option<Ballot>,
    #[prost(message, optional, tag = "2")]
    last: Option<LogId>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Ballot {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    voted_for: u64,
    #[prost(bool, tag = "3")]
    committed: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LogId {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Anything {}

/// Connects to `ports`, and sends ballots to `peers`, the coordinator's members, until the load is
/// over.
pub(super) async fn run(
    seams: Seams,
    ports: Vec<String>,
    peers: Vec<String>,
    workload: Arc<Workload>,
) -> anyhow::Result<()> {
    workload.until_loading().await;
    let strangers = (0..STRANGERS).map(|_| {
        let random = Random::from_seed(seams.random.next_u64());
        let (seams, ports, peers, workload) = (&seams, &ports, &peers, &workload);
        async move {
            while !workload.is_over() {
                tokio::time::sleep(Duration::from_millis(random.in_range(PAUSE_MS))).await;
                if random.in_range(0..2) == 0 {
                    forge(seams, &random, peers).await;
                } else {
                    bother(seams, &random, ports).await;
                }
            }
        }
    });
    futures::future::join_all(strangers).await;
    Ok(())
}

/// Sends a ballot of an impossible term to one of `peers`; the first of them is member 1.
async fn forge(seams: &Seams, random: &Random, peers: &[String]) {
    let member = 1 + random.in_range(0..peers.len() as u64);
    let Some(address) = peers.get(member as usize - 1) else { return };
    let Some(call) = random.pick(&BALLOT_CALLS).copied() else { return };
    let term = u64::MAX - random.in_range(0..3);
    let Ok(channel) = grpc::channel(&seams.network, address, ANSWER_TIMEOUT) else { return };
    let ballot = Ballot { term, voted_for: 1 + member % 3, committed: call == "Append" };
    let last = LogId { term, index: 1 << 40 };
    let mut request = Request::new(Forged { vote: Some(ballot), last: Some(last) });
    for (name, value) in [("basalt-cluster", "simulated"), ("basalt-member", &member.to_string())] {
        if let Ok(value) = value.parse() {
            request.metadata_mut().insert(name, value);
        }
    }
    let asked = async {
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|_| Status::unavailable("not ready"))?;
        let path = PathAndQuery::try_from(format!("/basalt.coordinator.v1.Peer/{call}"))
            .map_err(|error| Status::internal(error.to_string()))?;
        let codec = tonic_prost::ProstCodec::<Forged, Anything>::default();
        client.unary(request, path, codec).await
    };
    let _ = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
}

/// Opens a connection, sends something that is not a request, and stays connected.
async fn bother(seams: &Seams, random: &Random, ports: &[String]) {
    let Some(address) = random.pick(ports) else { return };
    let connecting = seams.network.connect(address);
    let Ok(Ok(connection)) = tokio::time::timeout(ANSWER_TIMEOUT, connecting).await else {
        return;
    };
    let mut noise = [0; 200];
    random.fill(&mut noise);
    let opening = random.pick(&Opening::ALL).map_or(&b""[..], |opening| opening.bytes());
    let rest = random.pick(&Approach::ALL).map(|approach| approach.bytes(&noise));
    let stay = Duration::from_millis(random.in_range(STAY_MS));
    stranger::visit(connection, &[opening, &rest.unwrap_or_default()].concat(), stay).await;
}
