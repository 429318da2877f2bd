//! Tests the client against servers that the test simulates, on a network in memory and with paused
//! time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use basalt_runtime::{
    Clock, ClockSource, Connection, Listener, Network, NetworkSource, Random, Seams, Threads,
};
use bytes::Bytes;
use tokio::io::{DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::*;
use crate::error::Error;
use crate::proto::frame::{self, FRAME_BYTES_MAX, FrameReader};
use crate::proto::*;

const SESSION_TIMEOUT: Duration = Duration::from_millis(3000);
const SESSION: SessionId = SessionId(0x51);

/// How long the test waits for something that may not arrive. With paused time this is short.
const PATIENCE: Duration = Duration::from_secs(20);

/// The servers on the client's network. `down` refuses connections.
struct TestNetwork(mpsc::UnboundedSender<(String, DuplexStream)>);

/// The test's end of the network.
struct Servers(mpsc::UnboundedReceiver<(String, DuplexStream)>);

/// The test's end of one connection.
struct Peer {
    address: String,
    reader: FrameReader<ReadHalf<DuplexStream>>,
    writer: WriteHalf<DuplexStream>,
}

/// A boot time that does not advance.
struct TestClock;

impl ClockSource for TestClock {
    fn boot_time(&self) -> Duration {
        Duration::from_secs(77)
    }

    fn wall_ms(&self) -> u64 {
        0
    }
}

#[async_trait::async_trait]
impl NetworkSource for TestNetwork {
    async fn connect(&self, address: &str) -> io::Result<Connection> {
        if address.starts_with("down") {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = tokio::io::duplex(1 << 16);
        let _ = self.0.send((address.to_owned(), far));
        Ok(Box::new(near))
    }

    async fn listen(&self, _: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Servers {
    async fn accept(&mut self) -> Peer {
        let accepted = timeout(PATIENCE, self.0.recv()).await;
        let (address, stream) = accepted.expect("no connection came").unwrap();
        let (reader, writer) = tokio::io::split(stream);
        Peer { address, reader: FrameReader::new(reader, FRAME_BYTES_MAX), writer }
    }

    /// Accepts a connection and grants the session. Returns the client's request.
    async fn welcome(&mut self) -> (Peer, ConnectRequest) {
        let mut peer = self.accept().await;
        let request = peer.greeting().await;
        peer.send(&[&ConnectResponse {
            protocol_version: 0,
            timeout_ms: 3000,
            session_id: SESSION,
            password: Bytes::from_static(b"secret"),
            read_only: Some(false),
        }])
        .await;
        (peer, request)
    }
}

impl Peer {
    async fn greeting(&mut self) -> ConnectRequest {
        ConnectRequest::from_message(self.reader.next().await.unwrap().unwrap()).unwrap()
    }

    /// The next request, including pings. `None` if the client has hung up.
    async fn any_request(&mut self) -> Option<(Xid, Request)> {
        let mut input = Decoder::new(self.reader.next().await.ok()??);
        let header = RequestHeader::decode(&mut input).unwrap();
        let request = Request::decode(header.op, &mut input).unwrap();
        Some((header.xid, request))
    }

    /// The next request. Answers pings before it.
    async fn request(&mut self) -> (Xid, Request) {
        let asked = async {
            loop {
                let (xid, request) = self.any_request().await.expect("the client has hung up");
                if xid != Xid::PING {
                    return (xid, request);
                }
                self.reply(xid, 0, &()).await;
            }
        };
        timeout(PATIENCE, asked).await.expect("no request came")
    }

    async fn reply(&mut self, xid: Xid, zxid: i64, record: &dyn Encode) {
        let header = ReplyHeader { xid, zxid: Zxid(zxid), error: None };
        self.send(&[&header, record]).await;
    }

    async fn refuse(&mut self, xid: Xid, code: ErrorCode) {
        let zxid = Zxid(1);
        let error = Some(code);
        self.send(&[&ReplyHeader { xid, zxid, error }]).await;
    }

    async fn event(&mut self, kind: EventType, path: &str) {
        self.reply(Xid::EVENT, -1, &WatcherEvent::of(kind, path)).await;
    }

    async fn send(&mut self, records: &[&dyn Encode]) {
        frame::write(&mut self.writer, records).await.unwrap();
    }
}

fn network() -> (Seams, Servers) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let seams = Seams {
        clock: Clock::new(TestClock),
        random: Random::from_seed(1),
        network: Network::new(TestNetwork(sender)),
        threads: Threads::default(),
    };
    (seams, Servers(receiver))
}

fn addresses(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A client with `options`, its first connection, and its servers.
async fn connected_with(options: Options) -> (Client, Peer, Servers) {
    let (seams, mut servers) = network();
    let names = addresses(&["one:2181", "two:2181"]);
    let (client, (peer, request)) =
        tokio::join!(Client::connect(&seams, &names, SESSION_TIMEOUT, options), servers.welcome());
    assert_eq!(request.session_id, SessionId::NONE);
    assert_eq!(request.timeout_ms, 3000);
    (client.unwrap(), peer, servers)
}

async fn connected() -> (Client, Peer, Servers) {
    connected_with(Options::default()).await
}

fn node(kind: EventType, path: &str) -> WatchedEvent {
    let path = path.to_owned();
    WatchedEvent::Node { kind, path }
}

/// Runs `request` while the server answers it with `answer`.
macro_rules! answered {
    ($peer:ident, $zxid:expr, $answer:expr, $request:expr) => {{
        let (result, _) = tokio::join!($request, async {
            let (xid, _) = $peer.request().await;
            $peer.reply(xid, $zxid, $answer).await;
        });
        result.unwrap()
    }};
}

#[tokio::test(start_paused = true)]
async fn requests_under_way_at_a_disconnect_are_unknown_and_later_ones_wait() {
    let (client, mut peer, mut servers) = connected().await;
    let first = client.set_data("/a", Bytes::new(), None);
    let (lost, first_address) = tokio::join!(first, async {
        peer.request().await;
        let address = peer.address.clone();
        drop(peer);
        address
    });
    let lost = lost.unwrap_err();
    assert!(matches!(lost, Error::ConnectionLoss { .. }), "{lost}");
    assert!(lost.is_outcome_unknown());

    let written = client.set_data("/b", Bytes::new(), None);
    let (written, ()) = tokio::join!(written, async {
        let (mut peer, request) = servers.welcome().await;
        assert_ne!(peer.address, first_address, "the next server is tried");
        assert_eq!(request.session_id, SESSION);
        assert_eq!(request.password, Bytes::from_static(b"secret"));
        let (xid, Request::SetData(again)) = peer.request().await else {
            panic!("not the request that was made");
        };
        assert_eq!(again.path, "/b", "what was lost is not sent again");
        peer.reply(xid, 9, &StatResponse::default()).await;
    });
    written.unwrap();
}

#[tokio::test(start_paused = true)]
async fn all_watches_are_set_again_at_a_reconnect() {
    let (client, mut peer, mut servers) = connected().await;
    let data = &GetDataResponse::default();
    let (_, _, changed) = answered!(peer, 5, data, client.get_data_watch("/data"));
    let children = &GetChildren2Response::default();
    let (_, _, grown) = answered!(peer, 6, children, client.get_children_watch("/child"));
    let (found, _) = tokio::join!(client.exists_watch("/absent"), async {
        let (xid, _) = peer.request().await;
        peer.refuse(xid, ErrorCode::NoNode).await;
    });
    let (stat, created) = found.unwrap();
    assert_eq!(stat, None);
    let mode = AddWatchMode::PersistentRecursive;
    let added = &AddWatchResponse::default();
    let mut events = answered!(peer, 7, added, client.add_watch("/tree", mode));
    peer.event(EventType::NodeCreated, "/tree/x").await;
    let first = events.recv().await.unwrap();
    assert_eq!(first, node(EventType::NodeCreated, "/tree/x"));

    drop(peer);
    assert_eq!(events.recv().await, Some(WatchedEvent::Disconnected));
    let (mut peer, request) = servers.welcome().await;
    assert_eq!(request.last_zxid_seen, Zxid(7));
    let (xid, again) = peer.request().await;
    assert_eq!(xid, Xid::SET_WATCHES);
    let expected = SetWatches2Request {
        relative_zxid: Zxid(7),
        data: addresses(&["/data"]),
        exist: addresses(&["/absent"]),
        child: addresses(&["/child"]),
        persistent: Vec::new(),
        persistent_recursive: addresses(&["/tree"]),
    };
    assert_eq!(again, Request::SetWatches2(expected));
    assert_eq!(events.recv().await, Some(WatchedEvent::Reconnected));

    peer.event(EventType::NodeDataChanged, "/data").await;
    peer.event(EventType::NodeCreated, "/absent").await;
    peer.event(EventType::NodeDeleted, "/child").await;
    peer.reply(Xid::SET_WATCHES, 8, &()).await;
    assert_eq!(changed.await.unwrap(), node(EventType::NodeDataChanged, "/data"));
    assert_eq!(created.await.unwrap(), node(EventType::NodeCreated, "/absent"));
    assert_eq!(grown.await.unwrap(), node(EventType::NodeDeleted, "/child"));
}

#[tokio::test(start_paused = true)]
async fn a_client_without_watches_sets_none_at_a_reconnect() {
    let (client, peer, mut servers) = connected().await;
    drop(peer);
    let (mut peer, _) = servers.welcome().await;
    let found = answered!(peer, 1, &GetDataResponse::default(), client.get_data("/a"));
    assert_eq!(found.0, Bytes::new());
}

#[tokio::test(start_paused = true)]
async fn an_expired_session_is_final() {
    let (client, mut peer, mut servers) = connected().await;
    let added = &AddWatchResponse::default();
    let mut events = answered!(peer, 1, added, client.add_watch("/a", AddWatchMode::Persistent));
    let data = &GetDataResponse::default();
    let (_, _, changed) = answered!(peer, 1, data, client.get_data_watch("/a"));
    drop(peer);
    let waiting = client.get_data("/a");
    let (waited, ()) = tokio::join!(waiting, async {
        let mut peer = servers.accept().await;
        peer.greeting().await;
        peer.send(&[&ConnectResponse::expired(Some(false))]).await;
    });
    let expired = Error::SessionExpired { session_id: SESSION };
    assert_eq!(waited.unwrap_err(), expired);
    assert_eq!(client.sync("/").await.unwrap_err(), expired);
    assert_eq!(*client.state().borrow(), State::Expired);
    assert_eq!(events.recv().await, Some(WatchedEvent::Disconnected));
    assert_eq!(events.recv().await, Some(WatchedEvent::Expired));
    assert_eq!(events.recv().await, None);
    assert_eq!(changed.await.unwrap(), WatchedEvent::Expired);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_pinged_at_a_third_and_left_at_two_thirds_of_the_timeout() {
    let (client, mut peer, mut servers) = connected().await;
    let start = Instant::now();
    let (xid, ping) = peer.any_request().await.unwrap();
    assert_eq!((xid, ping), (Xid::PING, Request::Ping));
    assert_eq!(start.elapsed().as_millis(), 1000);
    let (next, _) = servers.welcome().await;
    assert_eq!(start.elapsed().as_millis(), 2000);
    assert_ne!(next.address, peer.address);
    let mut state = client.state();
    let connected = State::Connected { session_id: SESSION, negotiated_timeout: SESSION_TIMEOUT };
    state.wait_for(|now| *now == connected).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_pings_but_not_requests_is_left() {
    let options = Options { silence_max: Some(Duration::from_millis(300)), ..Options::default() };
    let (client, mut peer, mut servers) = connected_with(options).await;
    let start = Instant::now();
    let write = client.set_data("/lease", Bytes::new(), None);
    let (written, ()) = tokio::join!(write, async {
        while let Some((xid, _)) = peer.any_request().await
            && start.elapsed() < SESSION_TIMEOUT
        {
            if xid == Xid::PING {
                peer.reply(xid, 0, &()).await;
            }
        }
        assert_eq!(start.elapsed().as_millis(), 300);
    });
    assert!(written.unwrap_err().is_outcome_unknown());
    servers.welcome().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_greet_is_left_as_soon_as_one_that_falls_silent() {
    let options = Options { silence_max: Some(Duration::from_millis(300)), ..Options::default() };
    let (_client, first, mut servers) = connected_with(options).await;
    drop(first);
    let _mute = servers.accept().await;
    let since = Instant::now();
    servers.welcome().await;
    assert!(since.elapsed() <= Duration::from_millis(300), "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn servers_that_refuse_are_passed_over() {
    let (seams, mut servers) = network();
    let names = addresses(&["down:1", "down:2", "up:3"]);
    let connecting = Client::connect(&seams, &names, SESSION_TIMEOUT, Options::default());
    let (client, (peer, _)) = tokio::join!(connecting, servers.welcome());
    assert_eq!(client.unwrap().session_id(), SESSION);
    assert_eq!(peer.address, "up:3");
}

#[tokio::test(start_paused = true)]
async fn no_session_in_time_is_an_error_that_names_the_servers() {
    let (seams, _servers) = network();
    let names = addresses(&["down:1", "down:2"]);
    let start = Instant::now();
    let error =
        Client::connect(&seams, &names, SESSION_TIMEOUT, Options::default()).await.unwrap_err();
    assert_eq!(start.elapsed(), SESSION_TIMEOUT);
    let message = error.to_string();
    assert!(message.contains("down:1,down:2"), "{message}");
    assert!(message.contains("refused"), "{message}");
    let none = Client::connect(&seams, &[], SESSION_TIMEOUT, Options::default()).await;
    assert_eq!(none.unwrap_err(), Error::NoServers);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_up_at_once_is_not_hammered() {
    let (_client, peer, mut servers) = connected().await;
    drop(peer);
    let mut count = 0;
    let _ = timeout(Duration::from_secs(3), async {
        // Without pauses, time would not advance.
        while count <= 100 {
            drop(servers.welcome().await);
            count += 1;
        }
    })
    .await;
    assert!((10..=100).contains(&count), "{count} connections in 3 s");
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_time_is_over_before_it_was_sent_is_never_sent() {
    let (client, peer, mut servers) = connected().await;
    drop(peer);
    let mut state = client.state();
    let gone = |now: &State| *now == State::Disconnected;
    state.wait_for(gone).await.unwrap();
    let hasty = client.with_request_timeout(Duration::from_millis(50));
    let late = hasty.delete("/never", None).await.unwrap_err();
    assert!(matches!(late, Error::Timeout { .. }), "{late}");
    let mut peer = servers.accept().await; // Its answer has been awaited meanwhile.
    peer.greeting().await;
    drop(peer);
    let (mut peer, _) = servers.welcome().await;
    let (_, (_, request)) = tokio::join!(hasty.sync("/sent"), peer.request());
    assert_eq!(request.op_code(), OpCode::Sync);
}

#[tokio::test(start_paused = true)]
async fn an_answer_out_of_order_ends_the_connection() {
    let (client, mut peer, mut servers) = connected().await;
    let (lost, ()) = tokio::join!(client.sync("/"), async {
        let (xid, _) = peer.request().await;
        peer.reply(Xid(xid.0 + 1), 1, &()).await;
    });
    assert!(matches!(lost.unwrap_err(), Error::ConnectionLoss { .. }));
    servers.welcome().await;
}

#[tokio::test(start_paused = true)]
async fn closing_ends_the_session_at_the_server() {
    let (client, mut peer, _servers) = connected().await;
    let ((), ()) = tokio::join!(client.close(), async {
        let (xid, request) = peer.request().await;
        assert_eq!(request, Request::CloseSession);
        peer.reply(xid, 1, &()).await;
    });
    assert_eq!(*client.state().borrow(), State::Closed);
    let closed = client.sync("/").await.unwrap_err();
    assert!(closed.is_session_over(), "{closed}");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_ends_the_session_at_the_server() {
    let (client, mut peer, _servers) = connected().await;
    drop(client.clone());
    let _ = timeout(Duration::from_millis(10), peer.any_request()).await.unwrap_err();
    drop(client);
    let (_, request) = peer.request().await;
    assert_eq!(request, Request::CloseSession);
}

#[tokio::test(start_paused = true)]
async fn requests_are_sent_without_waiting_for_answers_and_answered_in_order() {
    let (client, mut peer, _servers) = connected().await;
    let paths = ["/a", "/b", "/c"];
    let asked = async { tokio::join!(client.sync("/a"), client.sync("/b"), client.sync("/c")) };
    let (results, ()) = tokio::join!(asked, async {
        let mut xids = Vec::new();
        for path in paths {
            let (xid, request) = peer.request().await;
            let path = path.to_owned();
            assert_eq!(request, Request::Sync(SyncRequest { path }));
            xids.push(xid);
        }
        for xid in xids {
            peer.reply(xid, 1, &SyncResponse::default()).await;
        }
    });
    assert_eq!(results, (Ok(()), Ok(()), Ok(())));
}

#[tokio::test(start_paused = true)]
async fn a_timed_write_reports_when_it_was_sent() {
    let (client, mut peer, _servers) = connected().await;
    let write = client.set_data_timed("/a", Bytes::new(), Some(3));
    let written = answered!(peer, 1, &StatResponse::default(), write);
    assert_eq!(written.sent_at, Duration::from_secs(77));
}

#[tokio::test(start_paused = true)]
async fn a_refused_multi_names_the_operation() {
    let (client, mut peer, _servers) = connected().await;
    let op = |path: &str| Op::Check { path: path.to_owned(), version: Some(1) };
    let inconsistent = Some(ErrorCode::RuntimeInconsistency);
    let refusal = MultiResponse {
        results: vec![
            MultiResult::Error(None),
            MultiResult::Error(Some(ErrorCode::BadVersion)),
            MultiResult::Error(inconsistent),
        ],
    };
    let asked = client.multi(vec![op("/a"), op("/b"), op("/c")]);
    let (refused, ()) = tokio::join!(asked, async {
        let (xid, _) = peer.request().await;
        peer.reply(xid, 1, &refusal).await;
    });
    assert_eq!(
        refused.unwrap_err(),
        Error::Multi { index: 1, path: "/b".to_owned(), code: ErrorCode::BadVersion }
    );
}

#[tokio::test(start_paused = true)]
async fn what_servers_would_refuse_is_not_sent() {
    let (client, _peer, _servers) = connected().await;
    let bad = client.get_data("no/slash").await.unwrap_err();
    assert!(matches!(bad, Error::Path(_)), "{bad}");
    let large = Bytes::from(vec![0; FRAME_BYTES_MAX]);
    let refused = client.set_data("/a", large, None).await.unwrap_err();
    assert!(matches!(refused, Error::TooLarge { .. }), "{refused}");
}
