//! Three members over loopback: the guarantees to clients, across kills and restarts.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use basalt_coordinator::Limits;
use basalt_zk::proto::{
    Acl, AddWatchMode, ConnectRequest, CreateMode, CreateRequest, Decode, ErrorCode, EventType,
    GetDataRequest, OpCode, SetDataRequest, WatcherEvent, Xid, Zxid,
};
use basalt_zk::{Error, Op, WatchedEvent};
use bytes::Bytes;
use support::{Cluster, PATIENCE, RawClient, four_letter_word, new_session};

fn data(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn code(error: &Error) -> Option<ErrorCode> {
    match error {
        Error::Server { code, .. } | Error::Multi { code, .. } => Some(*code),
        _ => None,
    }
}

/// The index up to which a member's log has been purged.
async fn log_purged(server: &str) -> u64 {
    let figures = four_letter_word(server, "mntr").await;
    let purged = figures.lines().find_map(|line| line.strip_prefix("basalt_raft_log_purged\t"));
    purged.map_or(0, |index| index.parse().unwrap())
}

fn create(path: &str) -> CreateRequest {
    CreateRequest {
        path: path.to_owned(),
        data: Some(Bytes::new()),
        acl: Acl::open(),
        flags: CreateMode::Persistent.flags(),
    }
}

#[tokio::test]
async fn a_write_at_one_member_is_read_at_another_after_a_sync() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let follower = leader % 3 + 1;
    let (writer, reader) =
        (cluster.connect_to(follower).await, cluster.connect_to(leader % 3 + 1).await);
    let (path, stat) = writer.create("/a", data("1"), CreateMode::Persistent).await.unwrap();
    assert_eq!((path.as_str(), stat.version, stat.num_children), ("/a", 0, 0));
    // The writer sees its own writes at once.
    assert_eq!(writer.get_data("/a").await.unwrap().0, data("1"));
    reader.sync("/").await.unwrap();
    assert_eq!(reader.get_data("/a").await.unwrap().0, data("1"));

    let changed = reader.set_data("/a", data("22"), Some(0)).await.unwrap();
    assert_eq!((changed.version, changed.data_length), (1, 2));
    let error = reader.set_data("/a", data("3"), Some(0)).await.unwrap_err();
    assert_eq!(code(&error), Some(ErrorCode::BadVersion));
    writer.sync("/").await.unwrap();
    writer.delete("/a", Some(1)).await.unwrap();
    assert_eq!(writer.exists("/a").await.unwrap(), None);
}

#[tokio::test]
async fn a_multi_is_all_or_nothing_and_sequences_count() {
    let cluster = Cluster::start(1);
    let client = cluster.connect().await;
    client.create("/q", Bytes::new(), CreateMode::Persistent).await.unwrap();
    for number in 0..3 {
        let (path, _) =
            client.create("/q/n-", Bytes::new(), CreateMode::PersistentSequential).await.unwrap();
        assert_eq!(path, format!("/q/n-{number:010}"));
    }
    let set =
        |version| Op::SetData { path: "/q".to_owned(), data: data("x"), version: Some(version) };
    let remove = Op::Delete { path: "/q/n-0000000001".to_owned(), version: None };
    let error = client.multi(vec![remove.clone(), set(7)]).await.unwrap_err();
    assert!(matches!(error, Error::Multi { index: 1, code: ErrorCode::BadVersion, .. }), "{error}");
    client.multi(vec![remove, set(0)]).await.unwrap();
    let (children, stat) = client.get_children("/q").await.unwrap();
    let children: BTreeSet<String> = children.into_iter().collect();
    let expected = ["n-0000000000", "n-0000000002"].map(str::to_owned);
    assert_eq!(children, expected.into());
    assert_eq!((stat.cversion, stat.num_children, stat.version), (4, 2, 1));
}

#[tokio::test]
async fn watches_fire_at_other_members() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let watcher = cluster.connect_to(leader % 3 + 1).await;
    let writer = cluster.connect_to(leader).await;
    let (_, created) = watcher.exists_watch("/w").await.unwrap();
    let mut all = watcher.add_watch("/w", AddWatchMode::PersistentRecursive).await.unwrap();
    writer.create("/w", data("1"), CreateMode::Persistent).await.unwrap();
    writer.create("/w/below", data("1"), CreateMode::Persistent).await.unwrap();
    writer.delete("/w/below", None).await.unwrap();
    let node = |kind, path: &str| WatchedEvent::Node { kind, path: path.to_owned() };
    let created = tokio::time::timeout(PATIENCE, created).await.unwrap().unwrap();
    assert_eq!(created, node(EventType::NodeCreated, "/w"));
    for expected in [
        node(EventType::NodeCreated, "/w"),
        node(EventType::NodeCreated, "/w/below"),
        node(EventType::NodeDeleted, "/w/below"),
    ] {
        let event = tokio::time::timeout(PATIENCE, all.recv()).await.unwrap();
        assert_eq!(event, Some(expected));
    }
}

#[tokio::test]
async fn an_event_comes_before_the_reply_that_shows_the_change() {
    let cluster = Cluster::start(1);
    cluster.leader().await;
    let mut client = RawClient::open(&cluster.server(1)).await;
    client.send(1, OpCode::Create.code(), &create("/e")).await;
    let watch = GetDataRequest { path: "/e".to_owned(), watch: true };
    client.send(2, OpCode::GetData.code(), &watch).await;
    let change = SetDataRequest { path: "/e".to_owned(), data: None, version: -1 };
    client.send(3, OpCode::SetData.code(), &change).await;
    client.send(4, OpCode::GetData.code(), &GetDataRequest { watch: false, ..watch }).await;
    let mut xids = Vec::new();
    for _ in 0..5 {
        let (header, mut body) = client.receive().await.unwrap();
        assert_eq!(header.error, None);
        if header.xid == Xid::EVENT {
            let event = WatcherEvent::decode(&mut body).unwrap();
            assert_eq!(event, WatcherEvent::of(EventType::NodeDataChanged, "/e"));
        }
        xids.push(header.xid.0);
    }
    assert_eq!(xids, [1, 2, -1, 3, 4]);
}

#[tokio::test]
async fn what_is_not_known_is_answered_and_the_connection_stays() {
    let cluster = Cluster::start(1);
    cluster.leader().await;
    let mut client = RawClient::open(&cluster.server(1)).await;
    const UNKNOWN_OP: i32 = 4711;
    client.send(1, UNKNOWN_OP, &()).await;
    client.send(2, OpCode::CreateContainer.code(), &create("/c")).await;
    client.send(3, OpCode::Create.code(), &()).await;
    client.send(4, OpCode::Create.code(), &create("/c")).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(client.receive().await.unwrap().0.error);
    }
    let unimplemented = Some(ErrorCode::Unimplemented);
    assert_eq!(answers, [unimplemented, unimplemented, Some(ErrorCode::MarshallingError), None]);
}

#[tokio::test]
async fn a_silent_session_expires_everywhere_and_takes_its_nodes_along() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let observer = cluster.connect_to(leader).await;
    let mut silent = RawClient::open(&cluster.server(leader % 3 + 1)).await;
    assert_eq!(silent.timeout_ms, 500);
    let ephemeral = CreateRequest { flags: CreateMode::Ephemeral.flags(), ..create("/mine") };
    silent.send(1, OpCode::Create.code(), &ephemeral).await;
    assert_eq!(silent.receive().await.unwrap().0.error, None);
    observer.sync("/").await.unwrap();
    let (stat, gone) = observer.exists_watch("/mine").await.unwrap();
    assert_eq!(stat.unwrap().ephemeral_owner, silent.session.0);
    let event = tokio::time::timeout(PATIENCE, gone).await.unwrap().unwrap();
    assert!(matches!(event, WatchedEvent::Node { kind: EventType::NodeDeleted, .. }));
    assert!(silent.receive().await.is_none(), "the connection is closed");
    // The session cannot be resumed.
    let again = ConnectRequest {
        session_id: silent.session,
        password: silent.password.clone(),
        ..new_session()
    };
    let refused = RawClient::connect(&cluster.server(leader), again).await.unwrap();
    assert_eq!((refused.session.0, refused.timeout_ms), (0, 0));
}

#[tokio::test]
async fn a_session_moves_to_its_newest_connection() {
    let cluster = Cluster::start(3);
    cluster.leader().await;
    let mut old = RawClient::open(&cluster.server(1)).await;
    let again =
        ConnectRequest { session_id: old.session, password: old.password.clone(), ..new_session() };
    let new = RawClient::connect(&cluster.server(2), again.clone()).await.unwrap();
    assert_eq!(new.session, old.session);
    assert!(old.receive().await.is_none(), "the old connection is closed");
    let forged = ConnectRequest { password: Bytes::from_static(&[1; 16]), ..again.clone() };
    let refused = RawClient::connect(&cluster.server(2), forged).await.unwrap();
    assert_eq!(refused.session.0, 0);
    let from_the_future = ConnectRequest { last_zxid_seen: Zxid(1 << 40), ..again };
    assert!(RawClient::connect(&cluster.server(2), from_the_future).await.is_none());
}

#[tokio::test]
async fn writes_and_sessions_outlive_leaders() {
    let mut cluster = Cluster::start(3);
    cluster.leader().await;
    let client = cluster.connect().await;
    let session = client.session_id();
    client.create("/alive", Bytes::new(), CreateMode::Ephemeral).await.unwrap();
    client.create("/log", Bytes::new(), CreateMode::Persistent).await.unwrap();
    let mut acknowledged = 0;
    for _ in 0..2 {
        let leader = cluster.leader().await;
        cluster.kill(leader);
        for _ in 0..20 {
            let path = format!("/log/{acknowledged}");
            loop {
                let created = client.create(&path, Bytes::new(), CreateMode::Persistent).await;
                match created {
                    Ok(_) => break,
                    Err(error) if code(&error) == Some(ErrorCode::NodeExists) => break,
                    // The client was connected to the leader that was killed.
                    Err(Error::ConnectionLoss { .. } | Error::Timeout { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            acknowledged += 1;
        }
        cluster.start_member(leader);
    }
    cluster.leader().await;
    let reader = cluster.connect().await;
    reader.sync("/").await.unwrap();
    let (children, _) = reader.get_children("/log").await.unwrap();
    assert_eq!(children.len(), acknowledged);
    let alive = reader.exists("/alive").await.unwrap().expect("the session lives");
    assert_eq!(alive.ephemeral_owner, session.0);
}

#[tokio::test]
async fn a_follower_s_clients_do_not_notice_that_the_leader_is_killed() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let client = cluster.connect_to(leader % 3 + 1).await;
    client.create("/n", Bytes::new(), CreateMode::Persistent).await.unwrap();
    cluster.kill(leader);
    for version in 0..10 {
        client.set_data("/n", Bytes::new(), Some(version)).await.unwrap();
    }
}

#[tokio::test]
async fn a_clean_stop_hands_leadership_over() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let client = cluster.connect_to(leader % 3 + 1).await;
    cluster.stop(leader).await;
    client.create("/n", Bytes::new(), CreateMode::Persistent).await.unwrap();
    assert_ne!(cluster.leader().await, leader);
}

#[tokio::test]
async fn everything_is_there_after_all_were_killed_at_once() {
    let mut cluster = Cluster::start(3);
    cluster.leader().await;
    let client = cluster.connect().await;
    for number in 0..50 {
        let path = format!("/n{number}");
        client.create(&path, data("kept"), CreateMode::Persistent).await.unwrap();
    }
    client.create("/alive", Bytes::new(), CreateMode::Ephemeral).await.unwrap();
    for id in 1..=3 {
        cluster.kill(id);
    }
    for id in 1..=3 {
        cluster.start_member(id);
    }
    cluster.leader().await;
    let reader = cluster.connect().await;
    reader.sync("/").await.unwrap();
    for number in 0..50 {
        let (found, _) = reader.get_data(&format!("/n{number}")).await.unwrap();
        assert_eq!(found, data("kept"));
    }
    // Sessions are kept too, and the client resumes its own.
    let alive = reader.exists("/alive").await.unwrap().expect("the session lives");
    assert_eq!(alive.ephemeral_owner, client.session_id().0);
    client.set_data("/n0", data("new"), None).await.unwrap();
}

#[tokio::test]
async fn a_member_that_is_far_behind_gets_a_snapshot() {
    let limits = Limits { snapshot_entries: 40, snapshot_entries_kept: 5, ..Limits::default() };
    let mut cluster = Cluster::start_with(3, limits);
    let leader = cluster.leader().await;
    let behind = leader % 3 + 1;
    cluster.kill(behind);
    let client = cluster.connect_to(leader).await;
    for number in 0..300 {
        let path = format!("/n{number}");
        client.create(&path, Bytes::new(), CreateMode::Persistent).await.unwrap();
    }
    // The entries that the member lacks are no longer in the leader's log: only a snapshot can
    // bring them.
    let purged = tokio::time::timeout(PATIENCE, async {
        while log_purged(&cluster.server(leader)).await < 100 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    purged.await.unwrap();
    cluster.start_member(behind);
    cluster.leader().await;
    let reader = cluster.connect_to(behind).await;
    reader.sync("/").await.unwrap();
    let (children, _) = reader.get_children("/").await.unwrap();
    assert_eq!(children.len(), 301);
    // A member that was restored from a snapshot can start again.
    cluster.kill(behind);
    cluster.start_member(behind);
    cluster.leader().await;
    let reader = cluster.connect_to(behind).await;
    reader.sync("/").await.unwrap();
    assert_eq!(reader.get_children("/").await.unwrap().0.len(), 301);
}

#[tokio::test]
async fn a_member_that_has_lost_its_disk_is_filled_again() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let emptied = leader % 3 + 1;
    let client = cluster.connect_to(leader).await;
    for number in 0..20 {
        let path = format!("/n{number}");
        client.create(&path, Bytes::new(), CreateMode::Persistent).await.unwrap();
    }
    cluster.kill(emptied);
    std::fs::remove_dir_all(cluster.folder(emptied)).unwrap();
    cluster.start_member(emptied);
    let leader = cluster.leader().await;
    let reader = cluster.connect_to(emptied).await;
    reader.sync("/").await.unwrap();
    assert_eq!(reader.get_children("/").await.unwrap().0.len(), 21);
    let marker = cluster.folder(emptied).join("data/rejoining");
    let caught_up = tokio::time::timeout(PATIENCE, async {
        while marker.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    caught_up.await.unwrap();
    // The member counts again: with another member gone, there is a quorum.
    if leader != emptied {
        cluster.kill(leader);
    }
    reader.create("/more", Bytes::new(), CreateMode::Persistent).await.unwrap();
}

#[tokio::test]
async fn a_member_without_a_quorum_drops_its_clients() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader().await;
    let mut client = RawClient::open(&cluster.server(leader)).await;
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.kill(id);
    }
    client.send(1, OpCode::Create.code(), &create("/never")).await;
    assert!(client.receive().await.is_none(), "no answer, but the end");
    let asked = tokio::time::timeout(PATIENCE, async {
        while four_letter_word(&cluster.server(leader), "isro").await != "null" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    asked.await.unwrap();
    assert_eq!(four_letter_word(&cluster.server(leader), "ruok").await, "imok");
}

#[tokio::test]
async fn four_letter_words_are_answered() {
    let cluster = Cluster::start(1);
    cluster.leader().await;
    let server = cluster.server(1);
    let client = cluster.connect().await;
    client.create("/a", Bytes::new(), CreateMode::Ephemeral).await.unwrap();
    let (_, _event) = client.exists_watch("/b").await.unwrap();
    for (word, expected) in [
        ("ruok", "imok"),
        ("isro", "rw"),
        ("srvr", "Mode: standalone"),
        ("stat", "Node count: 5"),
        ("mntr", "zk_ephemerals_count\t1"),
        ("conf", "serverId=1"),
        ("cons", "sid=0x1"),
        ("wchs", "Total watches:1"),
        ("dump", "\t/a"),
    ] {
        let answer = four_letter_word(&server, word).await;
        assert!(answer.contains(expected), "{word}: {answer}");
    }
}
