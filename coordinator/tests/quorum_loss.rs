//! A majority is down for longer than a session may be silent. That time does not count against any
//! session.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::time::Duration;

use basalt_zk::proto::{Acl, ConnectRequest, CreateMode, CreateRequest, OpCode};
use support::{Cluster, PATIENCE, RawClient, four_letter_word, new_session};

/// How long the session may be silent.
const SESSION_TIMEOUT_MS: i32 = 2_000;
/// Longer than the session timeout.
const OUTAGE: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_session_outlives_a_quorum_outage_that_is_longer_than_its_timeout() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let follower = leader % 3 + 1;
    let wished = ConnectRequest { timeout_ms: SESSION_TIMEOUT_MS, ..new_session() };
    let mut client = RawClient::connect(&cluster.server(follower), wished).await.unwrap();
    assert_eq!(client.timeout_ms, SESSION_TIMEOUT_MS);
    let ephemeral = CreateRequest {
        path: "/alive".to_owned(),
        acl: Acl::open(),
        flags: CreateMode::Ephemeral.flags(),
        ..CreateRequest::default()
    };
    client.send(1, OpCode::Create.code(), &ephemeral).await;
    assert_eq!(client.receive().await.unwrap().0.error, None);
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.kill(id);
    }
    tokio::time::sleep(OUTAGE).await;
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.start_member(id);
    }
    cluster.leader().await;
    // The client comes back well within the timeout.
    let again = ConnectRequest {
        timeout_ms: SESSION_TIMEOUT_MS,
        session_id: client.session,
        password: client.password.clone(),
        ..new_session()
    };
    let resumed = tokio::time::timeout(PATIENCE, async {
        loop {
            for id in 1..=3 {
                let server = cluster.server(id);
                if four_letter_word(&server, "isro").await == "rw"
                    && let Some(resumed) = RawClient::connect(&server, again.clone()).await
                {
                    return resumed;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert_eq!(resumed.await.unwrap().session, client.session, "the session has expired");
}

#[tokio::test]
async fn a_leader_without_a_quorum_steps_down() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.kill(id);
    }
    let stepped_down = tokio::time::timeout(Duration::from_secs(3), async {
        while four_letter_word(&cluster.server(leader), "srvr").await.contains("Mode: leader") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    stepped_down.await.expect("it says that it leads although nobody follows");
}
