//! Tests the client and the records against a real Apache ZooKeeper 3.8 or later.
//!
//! `BASALT_ZOOKEEPER=127.0.0.1:2181 cargo test -p basalt-zk --test real_zookeeper -- --ignored`,
//! with a server that has a `tickTime` of at most 500 and `extendedTypesEnabled=true`.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests may")]

use std::time::Duration;

use basalt_runtime::{Connection, Seams, Shutdown};
use basalt_zk::proto::frame::{self, FRAME_BYTES_MAX, FrameReader};
use basalt_zk::proto::*;
use basalt_zk::{Client, Error, Op, OpResult, Options, State, WatchedEvent};
use bytes::Bytes;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;

const SESSION_TIMEOUT: Duration = Duration::from_secs(2);

const PATIENCE: Duration = Duration::from_secs(15);

fn server() -> String {
    std::env::var("BASALT_ZOOKEEPER").expect("BASALT_ZOOKEEPER names the server as host:port")
}

async fn client_at(address: &str) -> Client {
    let servers = [address.to_owned()];
    Client::connect(&Seams::system(), &servers, SESSION_TIMEOUT, Options::default()).await.unwrap()
}

/// The test's own node, without anything from earlier runs.
async fn root(client: &Client, name: &str) -> String {
    let path = format!("/basalt-{name}");
    delete_all(client, &path).await;
    client.create(&path, Bytes::new(), CreateMode::Persistent).await.unwrap();
    path
}

async fn delete_all(client: &Client, path: &str) {
    let Ok((children, _)) = client.get_children(path).await else {
        return;
    };
    for child in children {
        Box::pin(delete_all(client, &format!("{path}/{child}"))).await;
    }
    client.delete(path, None).await.unwrap();
}

/// A path to the server that the test can cut: while `open` is false, there are no connections.
struct Way {
    address: String,
    open: watch::Sender<bool>,
    _stop: tokio_util::sync::DropGuard,
}

async fn way() -> Way {
    let seams = Seams::system();
    let any = "127.0.0.1:0".parse().unwrap();
    let mut listener = seams.network.listen(any).await.unwrap();
    let address = listener.local_address().unwrap().to_string();
    let (open, is_open) = watch::channel(true);
    let stop = Shutdown::new();
    let guard = stop.clone().drop_guard();
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut is_open = is_open.clone();
            if !*is_open.borrow() {
                continue;
            }
            let mut far = seams.network.connect(&server()).await.unwrap();
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    _ = is_open.wait_for(|open| !open) => {}
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                }
            });
        }
    }));
    Way { address, open, _stop: guard }
}

async fn next(events: &mut tokio::sync::mpsc::Receiver<WatchedEvent>) -> WatchedEvent {
    timeout(PATIENCE, events.recv()).await.unwrap().unwrap()
}

fn node(kind: EventType, path: &str) -> WatchedEvent {
    WatchedEvent::Node { kind, path: path.to_owned() }
}

#[tokio::test]
#[ignore = "needs a real ZooKeeper: set BASALT_ZOOKEEPER to its host:port"]
async fn nodes_are_created_read_written_and_deleted() {
    let client = client_at(&server()).await;
    let root = root(&client, "nodes").await;
    let a = format!("{root}/a");
    let data = Bytes::from_static(b"one");
    let (path, stat) = client.create(&a, data.clone(), CreateMode::Persistent).await.unwrap();
    assert_eq!((path.as_str(), stat.data_length), (a.as_str(), 3));
    let again = client.create(&a, data.clone(), CreateMode::Persistent).await;
    assert_eq!(again.unwrap_err().code(), Some(ErrorCode::NodeExists));
    assert_eq!(client.get_data(&a).await.unwrap(), (data, stat));
    assert_eq!(client.exists(&a).await.unwrap(), Some(stat));

    let two = Bytes::from_static(b"two");
    let before = Seams::system().clock.boot_time();
    let written = client.set_data_timed(&a, two, Some(0)).await.unwrap();
    assert_eq!(written.value.version, 1);
    assert!(written.sent_at >= before && written.sent_at <= Seams::system().clock.boot_time());
    let stale = client.set_data(&a, Bytes::new(), Some(0)).await;
    assert_eq!(stale.unwrap_err().code(), Some(ErrorCode::BadVersion));

    for number in 0..2 {
        let (path, _) = client
            .create(&format!("{root}/s-"), Bytes::new(), CreateMode::PersistentSequential)
            .await
            .unwrap();
        // The parent already had one child.
        assert_eq!(path, format!("{root}/s-{:010}", number + 1));
    }
    client.create(&format!("{root}/c"), Bytes::new(), CreateMode::Container).await.unwrap();
    client.sync(&root).await.unwrap();
    let (children, stat) = client.get_children(&root).await.unwrap();
    assert_eq!(children, ["a", "c", "s-0000000001", "s-0000000002"]);
    assert_eq!(stat.num_children, 4);

    let full = client.delete(&root, None).await;
    assert_eq!(full.unwrap_err().code(), Some(ErrorCode::NotEmpty));
    client.delete(&a, Some(1)).await.unwrap();
    assert_eq!(client.exists(&a).await.unwrap(), None);
    let gone = client.get_data(&a).await;
    assert_eq!(gone.unwrap_err().code(), Some(ErrorCode::NoNode));
    delete_all(&client, &root).await;
    client.close().await;
}

#[tokio::test]
#[ignore = "needs a real ZooKeeper: set BASALT_ZOOKEEPER to its host:port"]
async fn a_multi_does_all_or_nothing() {
    let client = client_at(&server()).await;
    let root = root(&client, "multi").await;
    let a = format!("{root}/a");
    let create = |path: &str| Op::Create {
        path: path.to_owned(),
        data: Bytes::from_static(b"x"),
        mode: CreateMode::Persistent,
    };
    let results = client
        .multi(vec![
            Op::Check { path: root.clone(), version: Some(0) },
            create(&a),
            Op::SetData { path: a.clone(), data: Bytes::from_static(b"y"), version: Some(0) },
            create(&format!("{root}/b")),
            Op::Delete { path: format!("{root}/b"), version: None },
        ])
        .await
        .unwrap();
    assert_eq!(results[0], OpResult::Check);
    assert!(matches!(&results[1], OpResult::Create { path, .. } if *path == a));
    assert!(matches!(&results[2], OpResult::SetData(stat) if stat.version == 1));
    assert_eq!(results[4], OpResult::Delete);

    let refused = client.multi(vec![create(&format!("{root}/c")), create(&a)]).await.unwrap_err();
    let expected = Error::Multi { index: 1, path: a, code: ErrorCode::NodeExists };
    assert_eq!(refused, expected);
    assert_eq!(client.exists(&format!("{root}/c")).await.unwrap(), None);
    assert_eq!(client.multi(Vec::new()).await.unwrap(), []);
    delete_all(&client, &root).await;
    client.close().await;
}

#[tokio::test]
#[ignore = "needs a real ZooKeeper: set BASALT_ZOOKEEPER to its host:port"]
async fn many_nodes_are_read_at_once() {
    let client = client_at(&server()).await;
    let root = root(&client, "many").await;
    let paths: Vec<String> = (0..300).map(|number| format!("{root}/{number}")).collect();
    for (number, path) in paths.iter().enumerate().filter(|(number, _)| number % 3 != 0) {
        let data = Bytes::from(number.to_string());
        client.create(path, data, CreateMode::Persistent).await.unwrap();
    }
    let found = client.get_data_of_all(&paths).await.unwrap();
    assert_eq!(found.len(), paths.len());
    for (number, found) in found.into_iter().enumerate() {
        let expected = (number % 3 != 0).then(|| Bytes::from(number.to_string()));
        assert_eq!(found.map(|(data, _)| data), expected, "node {number}");
    }
    delete_all(&client, &root).await;
}

#[tokio::test]
#[ignore = "needs a real ZooKeeper: set BASALT_ZOOKEEPER to its host:port"]
async fn watches_report_changes_in_order() {
    // Servers before 3.9 keep one kind of watch per node and session: three kinds need three
    // sessions.
    let (client, other) = (client_at(&server()).await, client_at(&server()).await);
    let (second, third) = (client_at(&server()).await, client_at(&server()).await);
    let root = root(&client, "watches").await;
    let a = format!("{root}/a");
    let mode = AddWatchMode::PersistentRecursive;
    let mut below = client.add_watch(&root, mode).await.unwrap();
    let mode = AddWatchMode::Persistent;
    let mut at = second.add_watch(&root, mode).await.unwrap();
    let (absent, created) = third.exists_watch(&a).await.unwrap();
    assert_eq!(absent, None);
    let (_, _, grown) = third.get_children_watch(&root).await.unwrap();
    let mode = CreateMode::Persistent;
    other.create(&a, Bytes::new(), mode).await.unwrap();
    assert_eq!(
        timeout(PATIENCE, created).await.unwrap().unwrap(),
        node(EventType::NodeCreated, &a)
    );
    let children_changed = node(EventType::NodeChildrenChanged, &root);
    assert_eq!(timeout(PATIENCE, grown).await.unwrap().unwrap(), children_changed);
    let (_, _, changed) = third.get_data_watch(&a).await.unwrap();
    for _ in 0..3 {
        other.set_data(&a, Bytes::new(), None).await.unwrap();
    }
    assert_eq!(
        timeout(PATIENCE, changed).await.unwrap().unwrap(),
        node(EventType::NodeDataChanged, &a)
    );
    other.delete(&a, None).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(next(&mut below).await);
    }
    let changed = node(EventType::NodeDataChanged, &a);
    let expected = [
        node(EventType::NodeCreated, &a),
        changed.clone(),
        changed.clone(),
        changed,
        node(EventType::NodeDeleted, &a),
    ];
    assert_eq!(seen, expected);
    for _ in 0..2 {
        assert_eq!(next(&mut at).await, children_changed);
    }
    delete_all(&client, &root).await;
    for client in [client, other, second, third] {
        client.close().await;
    }
}

#[tokio::test]
#[ignore = "needs a real ZooKeeper: set BASALT_ZOOKEEPER to its host:port"]
async fn ephemeral_nodes_go_with_their_session() {
    let client = client_at(&server()).await;
    let root = root(&client, "ephemeral").await;
    let e = format!("{root}/e");
    let owner = client_at(&server()).await;
    let mode = CreateMode::Ephemeral;
    let (_, stat) = owner.create(&e, Bytes::new(), mode).await.unwrap();
    assert_eq!(stat.ephemeral_owner, owner.session_id().0);
    let below = owner.create(&format!("{e}/x"), Bytes::new(), mode).await;
    assert_eq!(below.unwrap_err().code(), Some(ErrorCode::NoChildrenForEphemerals));
    let (_, gone) = client.exists_watch(&e).await.unwrap();
    owner.close().await;
    assert_eq!(timeout(PATIENCE, gone).await.unwrap().unwrap(), node(EventType::NodeDeleted, &e));
    delete_all(&client, &root).await;
    client.close().await;
}

#[tokio::test]
#[ignore = "needs a real ZooKeeper: set BASALT_ZOOKEEPER to its host:port"]
async fn a_session_outlives_its_connection() {
    let (way, other) = (way().await, client_at(&server()).await);
    let client = client_at(&way.address).await;
    let root = root(&client, "reconnect").await;
    let e = format!("{root}/e");
    let mode = CreateMode::Ephemeral;
    client.create(&e, Bytes::new(), mode).await.unwrap();
    let mode = AddWatchMode::PersistentRecursive;
    let tree = format!("{root}/tree");
    let mut below = client.add_watch(&tree, mode).await.unwrap();
    let (_, _, changed) = client.get_data_watch(&root).await.unwrap();
    let absent = format!("{root}/absent");
    let (_, created) = client.exists_watch(&absent).await.unwrap();

    way.open.send_replace(false);
    assert_eq!(next(&mut below).await, WatchedEvent::Disconnected);
    let one = Bytes::from_static(b"1");
    other.set_data(&root, one.clone(), None).await.unwrap();
    let mode = CreateMode::Persistent;
    other.create(&absent, Bytes::new(), mode).await.unwrap();
    way.open.send_replace(true);

    // Sent while disconnected, answered afterwards.
    assert_eq!(client.get_data(&root).await.unwrap().0, one);
    assert_eq!(next(&mut below).await, WatchedEvent::Reconnected);
    assert_eq!(
        timeout(PATIENCE, changed).await.unwrap().unwrap(),
        node(EventType::NodeDataChanged, &root)
    );
    assert_eq!(
        timeout(PATIENCE, created).await.unwrap().unwrap(),
        node(EventType::NodeCreated, &absent)
    );
    let owner = client.exists(&e).await.unwrap().unwrap().ephemeral_owner;
    assert_eq!(owner, client.session_id().0);
    other.create(&tree, Bytes::new(), mode).await.unwrap();
    assert_eq!(next(&mut below).await, node(EventType::NodeCreated, &tree));
    delete_all(&client, &root).await;
    client.close().await;
    other.close().await;
}

#[tokio::test]
#[ignore = "needs a real ZooKeeper: set BASALT_ZOOKEEPER to its host:port"]
async fn a_session_that_was_away_too_long_has_expired() {
    let (way, other) = (way().await, client_at(&server()).await);
    let client = client_at(&way.address).await;
    let e = "/basalt-expiry";
    let mode = CreateMode::Ephemeral;
    client.create(e, Bytes::new(), mode).await.unwrap();
    let (_, gone) = other.exists_watch(e).await.unwrap();
    let mode = AddWatchMode::Persistent;
    let mut events = client.add_watch(e, mode).await.unwrap();
    way.open.send_replace(false);
    let gone = timeout(PATIENCE, gone).await.unwrap().unwrap();
    assert_eq!(gone, node(EventType::NodeDeleted, e));
    assert_eq!(*client.state().borrow(), State::Disconnected);
    way.open.send_replace(true);
    let mut state = client.state();
    let expired = state.wait_for(|state| *state == State::Expired);
    let _ = timeout(PATIENCE, expired).await.unwrap().unwrap();
    assert!(client.sync("/").await.unwrap_err().is_session_over());
    assert_eq!(next(&mut events).await, WatchedEvent::Disconnected);
    assert_eq!(next(&mut events).await, WatchedEvent::Expired);
    assert_eq!(events.recv().await, None);
    other.close().await;
}

/// A connection on which records are sent and read as they are.
struct Raw {
    reader: FrameReader<ReadHalf<Connection>>,
    writer: WriteHalf<Connection>,
    last_xid: i32,
}

impl Raw {
    async fn connect() -> Self {
        let connection = Seams::system().network.connect(&server()).await.unwrap();
        let (reader, mut writer) = tokio::io::split(connection);
        let mut reader = FrameReader::new(reader, FRAME_BYTES_MAX);
        // Like an old client, without the last byte, which the answer then lacks too.
        let hello = ConnectRequest {
            timeout_ms: 2000,
            password: Bytes::from_static(&[0; PASSWORD_BYTES]),
            ..ConnectRequest::default()
        };
        frame::write(&mut writer, &[&hello]).await.unwrap();
        let answer = reader.next().await.unwrap().unwrap();
        let answer = ConnectResponse::from_message(answer).unwrap();
        assert_eq!(answer.read_only, None);
        assert_eq!(answer.timeout_ms, 2000);
        assert_eq!(answer.password.len(), PASSWORD_BYTES);
        Self { reader, writer, last_xid: 0 }
    }

    async fn ask<T: Decode>(&mut self, request: Request) -> Result<T, ErrorCode> {
        self.last_xid += 1;
        let xid = match &request {
            Request::Ping => Xid::PING,
            Request::Auth(_) => Xid::AUTH,
            Request::SetWatches(_) | Request::SetWatches2(_) => Xid::SET_WATCHES,
            _ => Xid(self.last_xid),
        };
        let op = request.op_code().code();
        let header = RequestHeader { xid, op };
        let records: [&dyn Encode; 2] = [&header, &request];
        frame::write(&mut self.writer, &records).await.unwrap();
        loop {
            let mut input = Decoder::new(self.reader.next().await.unwrap().unwrap());
            let header = ReplyHeader::decode(&mut input).unwrap();
            if header.xid == Xid::EVENT {
                WatcherEvent::decode(&mut input).unwrap();
                assert!(input.is_empty());
                continue;
            }
            assert_eq!(header.xid, xid);
            if let Some(error) = header.error {
                return Err(error);
            }
            let answer = T::decode(&mut input).unwrap();
            assert!(input.is_empty(), "{request:?} left a part of its answer");
            return Ok(answer);
        }
    }
}

fn create(path: &str, mode: CreateMode) -> CreateRequest {
    CreateRequest { path: path.to_owned(), data: None, acl: Acl::open(), flags: mode.flags() }
}

/// Requests that [`Client`] does not send, but that servers must answer.
#[tokio::test]
#[ignore = "needs a real ZooKeeper: set BASALT_ZOOKEEPER to its host:port"]
async fn the_other_requests_are_understood() {
    let client = client_at(&server()).await;
    let root = root(&client, "raw").await;
    let (a, e) = (format!("{root}/a"), format!("{root}/e"));
    let path = || a.clone();
    let mut raw = Raw::connect().await;
    let _: () = raw.ask(Request::Ping).await.unwrap();
    let auth = AuthRequest {
        kind: 0,
        scheme: "digest".to_owned(),
        auth: Bytes::from_static(b"user:password"),
    };
    let _: () = raw.ask(Request::Auth(auth)).await.unwrap();
    let me: WhoAmIResponse = raw.ask(Request::WhoAmI).await.unwrap();
    assert!(me.clients.iter().any(|client| client.user == "user"), "{me:?}");

    let request = Request::Create(create(&a, CreateMode::Persistent));
    let created: CreateResponse = raw.ask(request).await.unwrap();
    assert_eq!(created.path, a);
    let request = GetDataRequest { path: path(), watch: true };
    let read: GetDataResponse = raw.ask(Request::GetData(request)).await.unwrap();
    assert_eq!(read.data, None, "null data stays null");
    let request = Request::Create2(create(&e, CreateMode::Ephemeral));
    let _: Create2Response = raw.ask(request).await.unwrap();
    let prefix = root.clone();
    let request = Request::GetEphemerals(GetEphemeralsRequest { prefix });
    let mine: GetEphemeralsResponse = raw.ask(request).await.unwrap();
    assert_eq!(mine.paths, [e]);
    let ttl = CreateTtlRequest {
        path: format!("{root}/ttl"),
        data: Some(Bytes::new()),
        acl: Acl::open(),
        flags: CreateMode::PersistentWithTtl.flags(),
        ttl_ms: 60_000,
    };
    let created: Create2Response = raw.ask(Request::CreateTtl(ttl)).await.unwrap();
    assert_eq!(created.stat.ephemeral_owner, 0, "only sessions are reported as owners");
    let request = Request::CreateContainer(create(&format!("{root}/c"), CreateMode::Container));
    let created: Create2Response = raw.ask(request).await.unwrap();
    assert_eq!(created.stat.ephemeral_owner, 0);
    let request = GetAllChildrenNumberRequest { path: root.clone() };
    let request = Request::GetAllChildrenNumber(request);
    let count: GetAllChildrenNumberResponse = raw.ask(request).await.unwrap();
    assert_eq!(count.total_number, 4);

    let request = GetAclRequest { path: path() };
    let list: GetAclResponse = raw.ask(Request::GetAcl(request)).await.unwrap();
    assert_eq!(list.acl, Acl::open());
    let request = SetAclRequest { path: path(), acl: Acl::open(), version: 0 };
    let set: StatResponse = raw.ask(Request::SetAcl(request)).await.unwrap();
    assert_eq!(set.stat.aversion, 1);

    watch_requests(&mut raw, &a).await;
    let request = Request::GetChildren(GetChildrenRequest { path: path(), watch: false });
    let children: GetChildrenResponse = raw.ask(request).await.unwrap();
    assert!(children.children.is_empty());
    let request = MultiRequest {
        ops: vec![
            MultiOp::GetData(GetDataRequest { path: path(), watch: false }),
            MultiOp::GetChildren(GetChildrenRequest {
                path: "/basalt-absent".to_owned(),
                watch: false,
            }),
        ],
    };
    let reads: MultiResponse = raw.ask(Request::MultiRead(request)).await.unwrap();
    assert!(matches!(reads.results[0], MultiResult::GetData(_)));
    let absent = MultiResult::Error(Some(ErrorCode::NoNode));
    assert_eq!(reads.results[1], absent);
    let _: () = raw.ask(Request::CloseSession).await.unwrap();
    delete_all(&client, &root).await;
    client.close().await;
}

async fn watch_requests(raw: &mut Raw, path: &str) {
    let path = || path.to_owned();
    let data = RemoveWatchesRequest { path: path(), kind: WatcherType::Data.code() };
    let _: () = raw.ask(Request::CheckWatches(data.clone())).await.unwrap();
    let _: () = raw.ask(Request::RemoveWatches(data.clone())).await.unwrap();
    let gone: Result<(), ErrorCode> = raw.ask(Request::CheckWatches(data)).await;
    assert_eq!(gone, Err(ErrorCode::NoWatcher));
    let request = AddWatchRequest { path: path(), mode: AddWatchMode::PersistentRecursive.code() };
    let _: AddWatchResponse = raw.ask(Request::AddWatch(request)).await.unwrap();
    let again = SetWatchesRequest {
        relative_zxid: Zxid(0),
        data: vec![path()],
        exist: vec![path()],
        child: vec![path()],
    };
    let _: () = raw.ask(Request::SetWatches(again)).await.unwrap();
    let again =
        SetWatches2Request { persistent_recursive: vec![path()], ..SetWatches2Request::default() };
    let _: () = raw.ask(Request::SetWatches2(again)).await.unwrap();
}
