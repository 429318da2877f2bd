//! Tests which members make up an ensemble after folders were lost, copied or came from an earlier
//! release, and what strangers can do to it.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::path::Path;
use std::time::Duration;

use basalt_runtime::{Clock, ClockSource, Seams};
use basalt_zk::proto::CreateMode;
use bytes::Bytes;
use prost::Message;
use support::{Cluster, PATIENCE, four_letter_word};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

/// How long nothing may happen.
const QUIET: Duration = Duration::from_secs(3);

async fn write(cluster: &Cluster, at: u64, names: std::ops::Range<u32>) {
    let client = cluster.connect_to(at).await;
    for number in names {
        let path = format!("/n{number}");
        client.create(&path, Bytes::new(), CreateMode::Persistent).await.unwrap();
    }
}

/// How many nodes a member shows below the root, besides `/zookeeper`.
async fn nodes(cluster: &Cluster, at: u64) -> usize {
    let client = cluster.connect_to(at).await;
    client.sync("/").await.unwrap();
    client.get_children("/").await.unwrap().0.len() - 1
}

async fn serves(cluster: &Cluster, id: u64) -> bool {
    four_letter_word(&cluster.server(id), "isro").await == "rw"
}

/// Checks for a while that none of `ids` serves.
async fn nobody_serves(cluster: &Cluster, ids: &[u64]) {
    let until = tokio::time::Instant::now() + QUIET;
    while tokio::time::Instant::now() < until {
        for id in ids {
            assert!(!serves(cluster, *id).await, "member {id} serves");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => {
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }
}

fn replace(old: &Path, with: &Path) {
    std::fs::remove_dir_all(old).unwrap();
    copy(with, old);
}

fn others(member: u64) -> [u64; 2] {
    [member % 3 + 1, (member + 1) % 3 + 1]
}

#[tokio::test]
async fn a_majority_of_lost_folders_never_makes_a_second_tree() {
    let mut cluster = Cluster::start(3);
    let survivor = cluster.leader().await;
    write(&cluster, survivor, 0..20).await;
    let kept = tempfile::tempdir().unwrap();
    for id in 1..=3 {
        cluster.kill(id);
    }
    for id in others(survivor) {
        copy(&cluster.folder(id), &kept.path().join(id.to_string()));
        std::fs::remove_dir_all(cluster.folder(id)).unwrap();
    }
    for id in 1..=3 {
        cluster.start_member(id);
    }
    nobody_serves(&cluster, &[1, 2, 3]).await;
    // One of the lost folders is found again. A majority then has data, and fills the third member.
    let [found, lost] = others(survivor);
    cluster.kill(found);
    replace(&cluster.folder(found), &kept.path().join(found.to_string()));
    cluster.start_member(found);
    cluster.leader().await;
    for id in [survivor, found, lost] {
        assert_eq!(nodes(&cluster, id).await, 20, "member {id}");
    }
}

#[tokio::test]
async fn an_operator_makes_the_data_of_one_member_the_only_ones() {
    let mut cluster = Cluster::start(3);
    let survivor = cluster.leader().await;
    write(&cluster, survivor, 0..20).await;
    for id in 1..=3 {
        cluster.kill(id);
    }
    for id in others(survivor) {
        std::fs::remove_dir_all(cluster.folder(id)).unwrap();
    }
    std::fs::write(cluster.folder(survivor).join("data/accept-loss"), b"").unwrap();
    for id in 1..=3 {
        cluster.start_member(id);
    }
    cluster.leader().await;
    for id in 1..=3 {
        assert_eq!(nodes(&cluster, id).await, 20, "member {id}");
    }
    assert!(!cluster.folder(survivor).join("data/accept-loss").exists());
    write(&cluster, survivor, 20..21).await;
}

#[tokio::test]
async fn an_older_copy_of_a_folder_does_not_vote_before_it_has_caught_up() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let [copied, away] = others(leader);
    write(&cluster, leader, 0..5).await;
    cluster.kill(copied);
    let kept = tempfile::tempdir().unwrap();
    copy(&cluster.folder(copied), kept.path());
    cluster.start_member(copied);
    cluster.leader().await;
    // Wait until all members have seen the member's new start.
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.kill(away);
    write(&cluster, copied, 5..40).await;
    cluster.kill(leader);
    cluster.kill(copied);
    replace(&cluster.folder(copied), kept.path());
    // Two of three members run, but neither has what was acknowledged.
    cluster.start_member(away);
    cluster.start_member(copied);
    nobody_serves(&cluster, &[away, copied]).await;
    cluster.start_member(leader);
    cluster.leader().await;
    for id in 1..=3 {
        assert_eq!(nodes(&cluster, id).await, 40, "member {id}");
    }
    // The member counts again.
    cluster.kill(away);
    cluster.leader().await;
    write(&cluster, copied, 40..41).await;
}

/// A clock whose wall clock is far behind.
struct Behind(Clock);

impl ClockSource for Behind {
    fn boot_time(&self) -> Duration {
        self.0.boot_time()
    }

    fn wall_ms(&self) -> u64 {
        self.0.wall_ms() - 1_000_000_000
    }
}

#[tokio::test]
async fn a_member_that_lost_its_disk_and_its_clock_still_writes() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let [emptied, _] = others(leader);
    write(&cluster, emptied, 0..5).await;
    cluster.kill(emptied);
    std::fs::remove_dir_all(cluster.folder(emptied)).unwrap();
    let seams = Seams::system();
    let clock = Clock::new(Behind(seams.clock.clone()));
    cluster.start_member_on(emptied, Seams { clock, ..seams });
    cluster.leader().await;
    write(&cluster, emptied, 5..10).await;
    assert_eq!(nodes(&cluster, emptied).await, 10);
}

/// The messages of a stranger that knows the protocol.
#[derive(Clone, PartialEq, Message)]
struct Ballot {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    voted_for: u64,
    #[prost(bool, tag = "3")]
    committed: bool,
}

#[derive(Clone, PartialEq, Message)]
struct LogId {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
}

/// A vote request, or an append request without entries: their first fields are the same.
#[derive(Clone, PartialEq, Message)]
struct Forged {
    #[prost(message, optional, tag = "1")]
    vote: Option<Ballot>,
    #[prost(message, optional, tag = "2")]
    last: Option<LogId>,
}

#[derive(Clone, PartialEq, Message)]
struct Anything {}

async fn forge(peer: &str, cluster: &str, member: u64, method: &str, term: u64) -> Status {
    let channel = Endpoint::from_shared(format!("http://{peer}")).unwrap();
    let mut client = tonic::client::Grpc::new(channel.connect().await.unwrap());
    let ballot = Ballot { term, voted_for: member % 3 + 1, committed: method == "Append" };
    let last = LogId { term, index: 1 << 40 };
    let mut request = Request::new(Forged { vote: Some(ballot), last: Some(last) });
    request.metadata_mut().insert("basalt-cluster", cluster.parse().unwrap());
    request.metadata_mut().insert("basalt-member", member.to_string().parse().unwrap());
    client.ready().await.unwrap();
    let path = format!("/basalt.coordinator.v1.Peer/{method}");
    let codec = tonic_prost::ProstCodec::<Forged, Anything>::default();
    let answer = client.unary(request, PathAndQuery::try_from(path).unwrap(), codec).await;
    answer.err().unwrap_or_else(|| Status::new(Code::Ok, "it was taken"))
}

#[tokio::test]
async fn a_stranger_with_a_huge_term_stops_nobody_and_learns_nothing() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    write(&cluster, leader, 0..5).await;
    // Without a leader, votes are considered.
    cluster.kill(leader);
    for id in others(leader) {
        let peer = cluster.config(id).peer_listen.to_string();
        for term in [u64::MAX, u64::MAX - 1, 1 << 63] {
            for method in ["Vote", "PreVote", "Append", "TransferLeader"] {
                let status = forge(&peer, "test", id, method, term).await;
                assert_ne!(status.code(), Code::Ok, "{method} of term {term}");
            }
        }
        let status = forge(&peer, "guessed", id, "Vote", 1).await;
        assert!(!format!("{status:?}").contains("test"), "{status:?}");
        assert!(!format!("{status:?}").contains(&format!("member {id}")), "{status:?}");
    }
    cluster.leader().await;
    write(&cluster, others(leader)[0], 5..10).await;
    for id in others(leader) {
        cluster.kill(id);
    }
    for id in 1..=3 {
        cluster.start_member(id);
    }
    cluster.leader().await;
    let term = four_letter_word(&cluster.server(leader), "mntr").await;
    let term = term.lines().find_map(|line| line.strip_prefix("basalt_raft_term\t")).unwrap();
    assert!(term.parse::<u64>().unwrap() < 1_000, "term {term}");
    assert_eq!(nodes(&cluster, leader).await, 10);
}

/// Makes a folder look like one of an earlier release: nothing in it names an ensemble.
fn age(folder: &Path) {
    const HEAD_BYTES: usize = 16;
    // The field for the ensemble's id, and a field that no release knows, with a length of 16
    // bytes.
    const ENSEMBLE_FIELD: [u8; 2] = [0x32, 16];
    const UNKNOWN_FIELD: [u8; 2] = [0x7a, 16];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("ensemble-") {
            std::fs::remove_file(&path).unwrap();
        }
        if name.starts_with("log-") {
            let mut bytes = std::fs::read(&path).unwrap();
            let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
            let header = HEAD_BYTES..HEAD_BYTES + length;
            let place = bytes[header.clone()].windows(2).position(|two| two == ENSEMBLE_FIELD);
            if let Some(place) = place {
                let at = header.start + place;
                bytes[at..at + 2].copy_from_slice(&UNKNOWN_FIELD);
                let checksum = crc32c::crc32c(&bytes[8..header.end]);
                bytes[4..8].copy_from_slice(&checksum.to_be_bytes());
                std::fs::write(&path, bytes).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn folders_of_an_earlier_release_start_and_their_ensemble_gets_an_id() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    write(&cluster, leader, 0..5).await;
    for id in 1..=3 {
        cluster.stop(id).await;
        age(&cluster.folder(id).join("data"));
    }
    for id in 1..=3 {
        cluster.start_member(id);
    }
    let leader = cluster.leader().await;
    assert_eq!(nodes(&cluster, leader).await, 5);
    // A member whose folder is lost is filled by the others.
    let [lost, _] = others(leader);
    cluster.kill(lost);
    std::fs::remove_dir_all(cluster.folder(lost)).unwrap();
    cluster.start_member(lost);
    let served = tokio::time::timeout(PATIENCE, async {
        while !serves(&cluster, lost).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    served.await.unwrap();
    assert_eq!(nodes(&cluster, lost).await, 5);
}

/// Replaces `from` with `to` in a log, and keeps the checksum right, as no broken disk would.
fn falsify(folder: &Path, from: &[u8], to: &[u8]) {
    const HEAD_BYTES: usize = 16;
    let mut falsified = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_str().unwrap().starts_with("log-") {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let mut frame = 0;
        while frame + HEAD_BYTES < bytes.len() {
            let length = u32::from_be_bytes(bytes[frame..frame + 4].try_into().unwrap());
            let end = frame + HEAD_BYTES + length as usize;
            if let Some(place) = bytes[frame..end].windows(from.len()).position(|w| w == from) {
                bytes[frame + place..frame + place + to.len()].copy_from_slice(to);
                let checksum = crc32c::crc32c(&bytes[frame + 8..end]);
                bytes[frame + 4..frame + 8].copy_from_slice(&checksum.to_be_bytes());
                falsified += 1;
            }
            frame = end;
        }
        std::fs::write(&path, bytes).unwrap();
    }
    assert!(falsified > 0);
}

#[tokio::test]
async fn a_member_whose_state_differs_from_its_majority_stops_serving() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let [wrong, right] = others(leader);
    let client = cluster.connect_to(leader).await;
    let data = Bytes::from_static(b"what was written");
    client.create("/a", data.clone(), CreateMode::Persistent).await.unwrap();
    cluster.connect_to(wrong).await.sync("/").await.unwrap();
    cluster.stop(wrong).await;
    falsify(&cluster.folder(wrong).join("data"), &data, b"what was WRITTEN");
    cluster.start_member(wrong);
    tokio::time::sleep(QUIET).await;
    assert!(!serves(&cluster, wrong).await, "it shows what nobody wrote");
    assert!(serves(&cluster, leader).await && serves(&cluster, right).await);
    assert_eq!(client.get_data("/a").await.unwrap().0, data);
    // The member is sound after it was filled again.
    cluster.kill(wrong);
    std::fs::remove_dir_all(cluster.folder(wrong)).unwrap();
    cluster.start_member(wrong);
    cluster.leader().await;
    let filled = cluster.connect_to(wrong).await;
    assert_eq!(filled.get_data("/a").await.unwrap().0, data);
}

#[tokio::test]
#[ignore = "a measurement, not a test: how long a new ensemble takes until it serves"]
async fn time_until_a_new_ensemble_serves() {
    const ROUNDS: u32 = 10;
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let began = tokio::time::Instant::now();
        let cluster = Cluster::start(3);
        cluster.leader().await;
        took.push(began.elapsed().as_millis());
    }
    took.sort_unstable();
    println!("until a new ensemble serves, in ms: {took:?}");
}
