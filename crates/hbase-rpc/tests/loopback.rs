//! Client and server over loopback.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test may print")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use basalt_hbase_rpc::{
    Call, CallError, CellBlockCodec, Connection, ConnectionOptions, Exception, ExceptionKind,
    Handler, Reply, ServerOptions, Service, frame, pb, serve,
};
use basalt_model::Cell;
use basalt_runtime::{Network, Shutdown, TcpNetwork};
use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, SemaphorePermit};

const WAIT: Duration = Duration::from_secs(20);

/// Answers by method: `Echo` with message and cells, `Hold` once it is released, `Fail`, `Panic`.
/// `Block` is like `Hold`, but blocks its thread. With the prefix `Short` the call is a short one.
struct Echo {
    holding: AtomicUsize,
    release: Semaphore,
}

impl Handler for Echo {
    async fn handle(&self, call: Call) -> Result<Reply, Exception> {
        match call.method.trim_start_matches("Short") {
            "Echo" => {}
            "Hold" => {
                self.holding.fetch_add(1, Ordering::SeqCst);
                self.release.acquire().await.unwrap().forget();
            }
            "Block" => {
                self.holding.fetch_add(1, Ordering::SeqCst);
                let until = tokio::time::Instant::now() + WAIT / 2;
                while self.release.try_acquire().map(SemaphorePermit::forget).is_err() {
                    if tokio::time::Instant::now() >= until {
                        return Err(Exception::new(ExceptionKind::Other, "never released"));
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            "Fail" => return Err(Exception::new(ExceptionKind::NotServingRegion, "elsewhere")),
            "Panic" => panic!("a handler that panics, for the test"),
            other => return Err(Exception::unknown_method(other)),
        }
        Ok(Reply { message: call.message, cells: call.cells })
    }

    fn is_short(&self, call: &Call) -> bool {
        call.method.starts_with("Short")
    }

    fn cluster_id(&self) -> Option<String> {
        Some("the-cluster".to_owned())
    }
}

struct Rig {
    network: Network,
    address: SocketAddr,
    handler: Arc<Echo>,
    shutdown: Shutdown,
    server: tokio::task::JoinHandle<()>,
}

impl Rig {
    async fn start(change: impl FnOnce(&mut ServerOptions)) -> Self {
        let network = Network::new(TcpNetwork);
        let listener = network.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_address().unwrap();
        let handler = Arc::new(Echo { holding: AtomicUsize::new(0), release: Semaphore::new(0) });
        let mut options = ServerOptions::new([Service::Client]);
        change(&mut options);
        let shutdown = Shutdown::new();
        let server = tokio::spawn(serve(listener, handler.clone(), options, shutdown.clone()));
        Self { network, address, handler, shutdown, server }
    }

    async fn connect(&self) -> Connection {
        let options = ConnectionOptions::new(Service::Client, "me");
        self.connect_with(&options).await
    }

    async fn connect_with(&self, options: &ConnectionOptions) -> Connection {
        Connection::open(&self.network, &self.address.to_string(), options).await.unwrap()
    }

    async fn holding(&self, calls: usize) {
        while self.handler.holding.load(Ordering::SeqCst) < calls {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn message(text: &str) -> pb::GetClusterIdResponse {
    pb::GetClusterIdResponse { cluster_id: Some(text.to_owned()) }
}

fn cells() -> Vec<Cell> {
    (0..5).map(|index| Cell::put(b"row", b"f", &[index], 1, &vec![index; 1000]).unwrap()).collect()
}

async fn echo(connection: &Connection, text: &str) -> Result<String, CallError> {
    let (answer, _): (pb::GetClusterIdResponse, _) =
        connection.call_decoded("Echo", &message(text), &[], WAIT).await?;
    Ok(answer.cluster_id.unwrap())
}

#[tokio::test]
async fn a_call_crosses_with_its_cells() {
    let rig = Rig::start(|_| {}).await;
    for codec in [CellBlockCodec::KeyValue, CellBlockCodec::KeyValueWithTags] {
        let mut options = ConnectionOptions::new(Service::Client, "me");
        options.codec = codec;
        let connection = rig.connect_with(&options).await;
        let (answer, found): (pb::GetClusterIdResponse, _) =
            connection.call_decoded("Echo", &message("x"), &cells(), WAIT).await.unwrap();
        assert_eq!(answer, message("x"));
        assert_eq!(found, cells());
    }
}

#[tokio::test]
async fn exceptions_come_back_as_they_are() {
    let rig = Rig::start(|_| {}).await;
    let connection = rig.connect().await;
    for (method, kind) in [
        ("Fail", ExceptionKind::NotServingRegion),
        ("Nonsense", ExceptionKind::DoNotRetry),
        ("Panic", ExceptionKind::Other),
        ("ShortFail", ExceptionKind::NotServingRegion),
        ("ShortPanic", ExceptionKind::Other),
    ] {
        let error = connection.call(method, &message(""), &[], WAIT).await.unwrap_err();
        assert_eq!(error.exception().unwrap().kind(), kind, "{method}");
    }
    assert_eq!(echo(&connection, "still there").await.unwrap(), "still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_call_holds_up_no_other() {
    let rig = Rig::start(|_| {}).await;
    let connection = rig.connect().await;
    // A short call that turns out to be long behaves the same.
    let held = ["Hold", "ShortHold"].map(|method| {
        let connection = connection.clone();
        tokio::spawn(async move { connection.call(method, &message("held"), &[], WAIT).await })
    });
    rig.holding(2).await;
    let others: Vec<_> = (0..500)
        .map(|index| {
            let connection = connection.clone();
            tokio::spawn(async move {
                let text = index.to_string();
                assert_eq!(echo(&connection, &text).await.unwrap(), text);
            })
        })
        .collect();
    for other in others {
        other.await.unwrap();
    }
    assert!(held.iter().all(|held| !held.is_finished()));
    rig.handler.release.add_permits(2);
    for held in held {
        held.await.unwrap().unwrap();
    }
}

/// Before large requests were handled in long steps, this failed with `never released`.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_large_call_that_occupies_the_only_thread_holds_up_no_other() {
    let rig = Rig::start(|_| {}).await;
    let (large, small) = (rig.connect().await, rig.connect().await);
    let blocked = tokio::spawn(async move {
        let text = message(&"x".repeat(17 << 20));
        large.call_decoded::<pb::GetClusterIdResponse>("ShortBlock", &text, &[], WAIT).await
    });
    rig.holding(1).await;
    assert_eq!(echo(&small, "past it").await.unwrap(), "past it");
    rig.handler.release.add_permits(1);
    blocked.await.unwrap().unwrap();
}

#[tokio::test]
async fn calls_beyond_the_bound_are_refused_and_the_others_answered() {
    let rig = Rig::start(|options| options.connection_calls_max = 2).await;
    let connection = rig.connect().await;
    let hold = || {
        let connection = connection.clone();
        tokio::spawn(async move { connection.call("Hold", &message(""), &[], WAIT).await })
    };
    let held = [hold(), hold()];
    rig.holding(2).await;
    let error = echo(&connection, "one too many").await.unwrap_err();
    assert_eq!(error.exception().unwrap().kind(), ExceptionKind::CallQueueTooBig);
    rig.handler.release.add_permits(2);
    for held in held {
        held.await.unwrap().unwrap();
    }
    assert_eq!(echo(&connection, "room again").await.unwrap(), "room again");
}

#[tokio::test]
async fn a_request_above_the_bound_is_refused_and_the_connection_goes_on() {
    let rig = Rig::start(|options| options.request_bytes_max = 100_000).await;
    let connection = rig.connect().await;
    let error = echo(&connection, &"x".repeat(300_000)).await.unwrap_err();
    assert_eq!(error.exception().unwrap().kind(), ExceptionKind::RequestTooBig);
    assert_eq!(echo(&connection, "small").await.unwrap(), "small");
}

#[tokio::test]
async fn a_server_that_stops_answers_what_it_has_begun() {
    let rig = Rig::start(|_| {}).await;
    let connection = rig.connect().await;
    let held = tokio::spawn({
        let connection = connection.clone();
        async move { connection.call("Hold", &message(""), &[], WAIT).await }
    });
    rig.holding(1).await;
    rig.shutdown.cancel();
    rig.handler.release.add_permits(1);
    held.await.unwrap().unwrap();
    rig.server.await.unwrap();
    let error = echo(&connection, "too late").await.unwrap_err();
    assert!(error.exception().is_none(), "{error}");
}

#[tokio::test]
async fn a_call_that_times_out_is_unknown_and_spoils_no_other() {
    let rig = Rig::start(|_| {}).await;
    let connection = rig.connect().await;
    let wait = Duration::from_millis(20);
    let error = connection.call("Hold", &message(""), &[], wait).await.unwrap_err();
    assert!(matches!(error, CallError::TimedOut { .. }) && !error.is_unsent(), "{error}");
    rig.handler.release.add_permits(1);
    assert_eq!(echo(&connection, "next").await.unwrap(), "next");
}

#[tokio::test]
async fn all_calls_of_a_lost_connection_fail_at_once() {
    let network = Network::new(TcpNetwork);
    let mut listener = network.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_address().unwrap().to_string();
    let options = ConnectionOptions::new(Service::Client, "me");
    let connection = Connection::open(&network, &address, &options).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let call = tokio::spawn({
        let connection = connection.clone();
        async move { echo(&connection, "").await }
    });
    let mut stream = stream;
    let mut some = [0; 50];
    stream.read_exact(&mut some).await.unwrap();
    drop(stream);
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Lost { .. }), "{error}");
    assert!(connection.is_failed());
    assert!(echo(&connection, "").await.unwrap_err().is_unsent());
}

#[tokio::test]
async fn a_service_that_is_not_offered_is_refused_by_name() {
    let rig = Rig::start(|_| {}).await;
    let options = ConnectionOptions::new(Service::Master, "me");
    let connection = rig.connect_with(&options).await;
    let error = echo(&connection, "").await.unwrap_err().to_string();
    assert!(error.contains("UnknownServiceException"), "{error}");
}

/// Sends `bytes` and returns what comes back until the server closes, or `length` bytes of it.
async fn raw(rig: &Rig, bytes: &[u8], length: usize) -> Vec<u8> {
    let mut stream = rig.network.connect(&rig.address.to_string()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.take(length as u64).read_to_end(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_registry_opening_sends_the_cluster_id_and_closes() {
    let rig = Rig::start(|_| {}).await;
    let answer = raw(&rig, b"Regist", 1000).await;
    let mut buffer = frame::FrameBuffer::new(1000);
    buffer.space().extend_from_slice(&answer);
    let frame = buffer.next_frame().unwrap().unwrap();
    let answer = frame::decode_answer(frame, None).unwrap();
    assert_eq!(answer.call_id, frame::PREAMBLE_CALL_ID);
    let (message, _) = answer.result.unwrap();
    let response: pb::GetConnectionRegistryResponse =
        frame::decode_message(message, "response").unwrap();
    assert_eq!(response.cluster_id, "the-cluster");
}

#[tokio::test]
async fn the_security_opening_falls_back_to_the_simple_one() {
    let rig = Rig::start(|_| {}).await;
    let header = pb::ConnectionHeader {
        service_name: Some("ClientService".to_owned()),
        ..Default::default()
    };
    let mut bytes = BytesMut::from(&b"Securi"[..]);
    bytes.extend_from_slice(&frame::SIMPLE_PREAMBLE);
    frame::encode_connection_header(&header, &mut bytes);
    let mut request = pb::RequestHeader {
        call_id: Some(5),
        method_name: Some("Echo".to_owned()),
        ..Default::default()
    };
    let codec = CellBlockCodec::KeyValue;
    frame::encode_request(&mut request, &message("x"), &[], codec, &mut bytes);
    let mut stream = rig.network.connect(&rig.address.to_string()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut buffer = frame::FrameBuffer::new(1000);
    let mut answers = Vec::new();
    while answers.len() < 2 {
        assert!(stream.read_buf(buffer.space()).await.unwrap() > 0);
        while let Some(frame) = buffer.next_frame().unwrap() {
            answers.push(frame::decode_answer(frame, None).unwrap());
        }
    }
    let refusal = answers[0].result.as_ref().unwrap_err();
    assert_eq!(refusal.kind(), ExceptionKind::SecurityNotEnabled);
    assert_eq!(answers[1].call_id, 5);
}

#[tokio::test]
async fn other_protocols_get_an_error_that_names_what_is_expected() {
    let rig = Rig::start(|_| {}).await;
    let mut kerberos = BytesMut::new();
    kerberos.put_slice(b"HBas\x00\x51");
    for (opening, expected) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "FatalConnectionException"),
        (&kerberos[..], "BadAuthException"),
        (b"HBas\x07\x50", "WrongVersionException"),
    ] {
        let answer = raw(&rig, opening, 1000).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: run it in release, with --nocapture"]
async fn calls_a_second() {
    const CALLS: usize = 20_000;
    let rig = Rig::start(|_| {}).await;
    for streams in [1, 16, 64] {
        let connection = rig.connect().await;
        let started = tokio::time::Instant::now();
        let streams: Vec<_> = (0..streams)
            .map(|_| {
                let connection = connection.clone();
                tokio::spawn(async move {
                    let message = message("x");
                    let cells = &cells()[..1];
                    for _ in 0..CALLS {
                        connection.call("Echo", &message, cells, WAIT).await.unwrap();
                    }
                })
            })
            .collect();
        let count = streams.len();
        for stream in streams {
            stream.await.unwrap();
        }
        let rate = (CALLS * count) as f64 / started.elapsed().as_secs_f64();
        println!("{count} streams on one connection, 1 KB each way: {rate:.0} calls/s");
    }
}

/// A connection that has sent its header and half of a frame of `frame_bytes`.
async fn half_a_frame(rig: &Rig, frame_bytes: u32) -> basalt_runtime::Connection {
    let mut stream = rig.network.connect(&rig.address.to_string()).await.unwrap();
    let mut opening = opening();
    opening.put_u32(frame_bytes);
    opening.put_bytes(1, frame_bytes as usize / 2);
    stream.write_all(&opening).await.unwrap();
    stream
}

async fn is_closed_within(stream: &mut basalt_runtime::Connection, wait: Duration) -> bool {
    let mut byte = [0];
    matches!(tokio::time::timeout(wait, stream.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn requests_that_are_never_whole_are_dropped_once_they_hold_too_much() {
    let rig = Rig::start(|options| options.held_bytes_max = 1 << 20).await;
    let client = rig.connect().await;
    let mut halves = Vec::new();
    for _ in 0..5 {
        halves.push(half_a_frame(&rig, 600_000).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Of five requests of 300,000 bytes, three fit.
    for stream in &mut halves[..2] {
        assert!(is_closed_within(stream, WAIT).await, "an old one stays");
    }
    for stream in &mut halves[2..] {
        assert!(!is_closed_within(stream, Duration::from_millis(50)).await, "a young one goes");
    }
    assert_eq!(echo(&client, "served").await.unwrap(), "served");
}

#[tokio::test]
async fn a_request_is_not_waited_for_in_its_middle_as_long_as_for_the_next_one() {
    let rig = Rig::start(|options| options.frame_timeout = Duration::from_millis(100)).await;
    let client = rig.connect().await;
    assert_eq!(echo(&client, "first").await.unwrap(), "first");
    let mut half = half_a_frame(&rig, 100).await;
    assert!(is_closed_within(&mut half, WAIT).await);
    assert_eq!(echo(&client, "second").await.unwrap(), "second");
}

#[tokio::test]
async fn clients_that_do_not_read_are_dropped_once_their_answers_hold_too_much() {
    let rig = Rig::start(|options| options.held_bytes_max = 32 << 20).await;
    let client = rig.connect().await;
    let text = "a".repeat(1 << 20);
    let mut requests = opening();
    for call_id in 0..64 {
        let mut header = pb::RequestHeader {
            call_id: Some(call_id),
            method_name: Some("Echo".to_owned()),
            ..pb::RequestHeader::default()
        };
        let codec = CellBlockCodec::KeyValue;
        frame::encode_request(&mut header, &message(&text), &[], codec, &mut requests);
    }
    let mut stream = rig.network.connect(&rig.address.to_string()).await.unwrap();
    // The client sends 64 requests, and reads none of the 64 MiB of answers.
    let sent = tokio::time::timeout(WAIT, stream.write_all(&requests)).await.unwrap();
    let dropped = async {
        while stream.write_all(&[0; 4]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if sent.is_ok() {
        tokio::time::timeout(WAIT, dropped).await.unwrap();
    }
    assert_eq!(echo(&client, "served").await.unwrap(), "served");
}

/// The first bytes of a connection.
fn opening() -> BytesMut {
    let mut opening = BytesMut::from(&frame::SIMPLE_PREAMBLE[..]);
    let header = pb::ConnectionHeader {
        service_name: Some("ClientService".to_owned()),
        ..pb::ConnectionHeader::default()
    };
    frame::encode_connection_header(&header, &mut opening);
    opening
}
