//! A coordinator of real members over loopback. Each member has its own runtime, so that it can be
//! killed like a process: at once, with all its connections.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use basalt_coordinator::{Config, CoordinatorTimers, Limits, Member, run};
use basalt_fs::LocalFileSystem;
use basalt_runtime::{Connection, Seams, Shutdown};
use basalt_zk::proto::frame::{self, FrameReader};
use basalt_zk::proto::{
    ConnectRequest, ConnectResponse, Decode, Decoder, Encode, ReplyHeader, RequestHeader,
    SessionId, Xid, Zxid,
};
use basalt_zk::{Client, Options};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running coordinator.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    members: BTreeMap<u64, Member>,
    running: BTreeMap<u64, Running>,
    limits: Limits,
}

struct Running {
    runtime: Runtime,
    shutdown: Shutdown,
    outcome: JoinHandle<Result<(), basalt_coordinator::Error>>,
}

/// A client that does nothing by itself: no pings, no reconnects.
pub(crate) struct RawClient {
    frames: FrameReader<ReadHalf<Connection>>,
    writer: WriteHalf<Connection>,
    pub(crate) session: SessionId,
    pub(crate) password: Bytes,
    pub(crate) timeout_ms: i32,
}

impl Cluster {
    /// Starts a coordinator of `count` members.
    pub(crate) fn start(count: u64) -> Self {
        Self::start_with(count, Limits::default())
    }

    /// Starts a coordinator with other limits.
    pub(crate) fn start_with(count: u64, limits: Limits) -> Self {
        // The first test that enables a log (RUST_LOG) enables it for all.
        let _started_already = basalt_runtime::init_telemetry("off");
        // All ports are held until all are known, so that no two are the same.
        let held: Vec<TcpListener> =
            (0..count * 2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let mut addresses = held.iter().map(|held| held.local_addr().unwrap().to_string());
        let members = (1..=count)
            .map(|id| {
                let member = Member {
                    peer_address: addresses.next().unwrap(),
                    client_address: addresses.next().unwrap(),
                };
                (id, member)
            })
            .collect();
        let mut cluster = Self {
            folder: tempfile::tempdir().unwrap(),
            members,
            running: BTreeMap::new(),
            limits,
        };
        drop(held);
        for id in 1..=count {
            cluster.start_member(id);
        }
        cluster
    }

    pub(crate) fn config(&self, id: u64) -> Config {
        let member = &self.members[&id];
        Config {
            cluster: "test".to_owned(),
            member_id: id,
            members: self.members.clone(),
            peer_listen: member.peer_address.parse().unwrap(),
            client_listen: member.client_address.parse().unwrap(),
            data: Path::new("/data").to_owned(),
            // The machine that runs the tests may be busy with other things.
            timers: CoordinatorTimers {
                isolation_grace: Duration::from_secs(8),
                ..CoordinatorTimers::default()
            },
            limits: self.limits,
            ready: None,
        }
    }

    /// The data folder of a member.
    pub(crate) fn folder(&self, id: u64) -> std::path::PathBuf {
        self.folder.path().join(id.to_string())
    }

    pub(crate) fn start_member(&mut self, id: u64) {
        self.start_member_on(id, Seams::system());
    }

    /// Starts a member on seams other than those of this machine.
    pub(crate) fn start_member_on(&mut self, id: u64, seams: Seams) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let files = Arc::new(LocalFileSystem::open(&self.folder(id)).unwrap());
        let shutdown = Shutdown::new();
        let running = run(self.config(id), seams, files, shutdown.clone());
        let outcome = runtime.spawn(running);
        let running = Running { runtime, shutdown, outcome };
        assert!(self.running.insert(id, running).is_none(), "{id} runs already");
    }

    /// Ends a member as `kill -9` does; its sockets are closed when this returns.
    pub(crate) fn kill(&mut self, id: u64) {
        let running = self.running.remove(&id).unwrap();
        // A runtime cannot be waited for from within another one's thread.
        let ended = std::thread::spawn(move || running.runtime.shutdown_timeout(PATIENCE));
        ended.join().unwrap();
    }

    /// Stops a member cleanly.
    pub(crate) async fn stop(&mut self, id: u64) {
        let running = self.running.remove(&id).unwrap();
        running.shutdown.cancel();
        running.outcome.await.unwrap().unwrap();
        running.runtime.shutdown_background();
    }

    /// The client address of a member.
    pub(crate) fn server(&self, id: u64) -> String {
        self.members[&id].client_address.clone()
    }

    /// The client addresses of all members.
    pub(crate) fn servers(&self) -> Vec<String> {
        self.members.keys().map(|id| self.server(*id)).collect()
    }

    pub(crate) async fn connect(&self) -> Client {
        connect_to(&self.servers()).await
    }

    /// A client of a single member.
    pub(crate) async fn connect_to(&self, id: u64) -> Client {
        connect_to(&[self.server(id)]).await
    }

    /// Waits until there is a leader and all running members serve. Returns the leader.
    pub(crate) async fn leader(&self) -> u64 {
        let found = async {
            loop {
                let mut leaders = Vec::new();
                let mut serving = 0;
                for id in self.running.keys() {
                    let status = four_letter_word(&self.server(*id), "srvr").await;
                    serving += usize::from(status.contains("Mode: "));
                    if status.contains("Mode: leader") || status.contains("Mode: standalone") {
                        leaders.push(*id);
                    }
                }
                if let ([leader], true) = (&leaders[..], serving == self.running.len()) {
                    return *leader;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("a leader")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, running) in std::mem::take(&mut self.running) {
            running.runtime.shutdown_background();
        }
    }
}

/// A session at one of `servers`.
pub(crate) async fn connect_to(servers: &[String]) -> Client {
    let options = Options {
        connect_timeout: Some(PATIENCE),
        request_timeout: Some(PATIENCE),
        ..Options::default()
    };
    Client::connect(&Seams::system(), servers, Duration::from_secs(10), options).await.unwrap()
}

/// Sends a four-letter word to a member. Returns an empty string if it does not answer.
pub(crate) async fn four_letter_word(server: &str, word: &str) -> String {
    let Ok(mut stream) = Seams::system().network.connect(server).await else {
        return String::new();
    };
    let mut answer = String::new();
    let asked = async {
        stream.write_all(word.as_bytes()).await?;
        stream.read_to_string(&mut answer).await
    };
    let _failed = tokio::time::timeout(PATIENCE, asked).await;
    answer
}

impl RawClient {
    /// Sends a connect request. Returns `None` if the member closes the connection.
    pub(crate) async fn connect(server: &str, request: ConnectRequest) -> Option<Self> {
        let connection = Seams::system().network.connect(server).await.ok()?;
        let (reader, mut writer) = tokio::io::split(connection);
        writer.write_all(&frame::encode(&[&request])).await.ok()?;
        let mut frames = FrameReader::new(reader, frame::FRAME_BYTES_MAX);
        let answer = tokio::time::timeout(PATIENCE, frames.next()).await.unwrap();
        let response = ConnectResponse::from_message(answer.ok()??).unwrap();
        Some(Self {
            frames,
            writer,
            session: response.session_id,
            password: response.password,
            timeout_ms: response.timeout_ms,
        })
    }

    /// Opens a session with the shortest timeout.
    pub(crate) async fn open(server: &str) -> Self {
        Self::connect(server, new_session()).await.expect("a session")
    }

    pub(crate) async fn send(&mut self, xid: i32, op: i32, record: &dyn Encode) {
        let header = RequestHeader { xid: Xid(xid), op };
        let frame = frame::encode(&[&header, record]);
        self.writer.write_all(&frame).await.unwrap();
    }

    /// The next reply or event. `None` if the member has closed the connection.
    pub(crate) async fn receive(&mut self) -> Option<(ReplyHeader, Decoder)> {
        let next = tokio::time::timeout(PATIENCE, self.frames.next()).await.unwrap();
        let mut input = Decoder::new(next.ok()??);
        let header = ReplyHeader::decode(&mut input).unwrap();
        Some((header, input))
    }
}

/// A request for a session with the shortest timeout.
pub(crate) fn new_session() -> ConnectRequest {
    ConnectRequest {
        last_zxid_seen: Zxid(0),
        timeout_ms: 1,
        password: Bytes::from_static(&[0; 16]),
        read_only: Some(false),
        ..ConnectRequest::default()
    }
}

/// Any free address.
pub(crate) fn free_address() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}
