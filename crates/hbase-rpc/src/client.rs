//! Makes calls: one connection to one service of one server, with many calls in progress.
//!
//! The error of a failed call says whether the server may have received it
//! ([`CallError::is_unsent`]): a call that was sent but not answered is *unknown*, never undone.
//! When a connection fails, all its calls fail. It is not reopened: the owner opens a new one.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use basalt_model::Cell;
use basalt_runtime::{Connection as Stream, Network, Shutdown};
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tracing::debug;

use crate::frame::{self, FRAME_BYTES_MAX, FrameBuffer, SIMPLE_PREAMBLE};
use crate::outbox::{Batch, Outbox};
use crate::{CellBlockCodec, Error, Exception, Service, pb};

/// An open connection; clones share it. It is closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<ClientShared>,
    _close: Arc<tokio_util::sync::DropGuard>,
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// The service that receives all calls.
    pub service: Service,
    /// The user to act as.
    pub user: String,
    /// How cells beside messages are encoded. Default: without tags, as in Java.
    pub codec: CellBlockCodec,
    /// How long connecting may take. Default 2 s.
    pub connect_timeout: Duration,
    /// How many calls are in progress at once. Further calls wait, within their timeouts. Default
    /// 1,024.
    pub calls_max: usize,
    /// The largest answer, in bytes. Default 256 MiB.
    pub answer_bytes_max: usize,
    /// How long the server may leave a request unread. Default 60 s.
    pub write_timeout: Duration,
}

/// The answer to a call.
#[derive(Clone, Debug)]
pub struct Response {
    /// The response message, not decoded yet.
    pub message: Bytes,
    /// The cells beside it. They share the memory of the data that was read with them.
    pub cells: Vec<Cell>,
}

/// Why a call has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The server rejected or failed the call.
    #[error(transparent)]
    Remote(#[from] Exception),
    /// No answer in time. The server may have performed the call, or may still perform it.
    #[error("{method} of {address}: no answer within {timeout:?}")]
    TimedOut {
        /// The method.
        method: &'static str,
        /// The server.
        address: Arc<str>,
        /// How long the caller waited.
        timeout: Duration,
        /// Whether the server has answered no call at all since this call was made.
        silent: bool,
    },
    /// The connection failed while the call was in progress. The server may have performed it.
    #[error("connection to {address} lost: {reason}")]
    Lost {
        /// The server.
        address: Arc<str>,
        /// The reason.
        reason: Arc<str>,
    },
    /// The call was not sent: there is no connection, or it failed before.
    #[error("not sent to {address}: {reason}")]
    NotSent {
        /// The server.
        address: Arc<str>,
        /// The reason.
        reason: Arc<str>,
    },
    /// The server sent an invalid answer.
    #[error("bad answer from {address}: {source}")]
    BadAnswer {
        /// The server.
        address: Arc<str>,
        /// What is wrong with it.
        source: Error,
    },
}

/// The result of a call.
pub type CallResult<T> = Result<T, CallError>;

#[derive(Debug)]
struct ClientShared {
    address: Arc<str>,
    codec: CellBlockCodec,
    requests: Outbox<()>,
    room: Semaphore,
    /// The number of answers received so far.
    answers: AtomicU64,
    calls: Mutex<Calls>,
}

#[derive(Debug)]
struct Calls {
    next_id: u32,
    waiting: BTreeMap<u32, oneshot::Sender<CallResult<Response>>>,
    /// Why the connection failed; once it is set, `waiting` stays empty.
    failed: Option<CallError>,
}

/// A call in progress. If it is dropped before its answer arrives, because its caller no longer
/// waits, the answer is dropped when it arrives.
struct Waiting<'a> {
    shared: &'a ClientShared,
    call_id: u32,
}

// === impl ConnectionOptions ===

impl ConnectionOptions {
    /// The defaults, for `service` as `user`.
    pub fn new(service: Service, user: &str) -> Self {
        Self {
            service,
            user: user.to_owned(),
            codec: CellBlockCodec::KeyValue,
            connect_timeout: Duration::from_secs(2),
            calls_max: 1024,
            answer_bytes_max: FRAME_BYTES_MAX,
            write_timeout: Duration::from_secs(60),
        }
    }
}

// === impl Connection ===

impl Connection {
    /// Connects to `address` (`host:port`) and sends the connection's preamble and header.
    ///
    /// # Errors
    /// [`CallError::NotSent`], with the reason.
    pub async fn open(
        network: &Network,
        address: &str,
        options: &ConnectionOptions,
    ) -> CallResult<Self> {
        let not_sent =
            |reason: String| CallError::NotSent { address: address.into(), reason: reason.into() };
        let stream = match timeout(options.connect_timeout, network.connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(not_sent(error.to_string())),
            Err(_) => {
                let waited = options.connect_timeout;
                return Err(not_sent(format!("no connection within {waited:?}")));
            }
        };
        Ok(Self::start(stream, address.into(), options))
    }

    fn start(stream: Stream, address: Arc<str>, options: &ConnectionOptions) -> Self {
        let shared = Arc::new(ClientShared {
            address,
            codec: options.codec,
            requests: Outbox::new(),
            room: Semaphore::new(options.calls_max),
            answers: AtomicU64::new(0),
            calls: Mutex::new(Calls { next_id: 0, waiting: BTreeMap::new(), failed: None }),
        });
        let header = connection_header(options);
        shared.requests.push((), |output| {
            output.extend_from_slice(&SIMPLE_PREAMBLE);
            frame::encode_connection_header(&header, output);
        });
        let (reader, writer) = tokio::io::split(stream);
        let close = Shutdown::new();
        tokio::spawn(run(reader, writer, shared.clone(), options.clone(), close.clone()));
        Self { shared, _close: Arc::new(close.drop_guard()) }
    }

    /// The server's address.
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// Whether both are handles to the same connection.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Whether the connection has failed. All further calls then fail.
    pub fn is_failed(&self) -> bool {
        self.shared.calls.lock().failed.is_some()
    }

    /// Calls `method` with `message` and the `cells` beside it. The answer must arrive within
    /// `wait`.
    ///
    /// # Errors
    /// Any [`CallError`].
    pub async fn call(
        &self,
        method: &'static str,
        message: &impl Message,
        cells: &[Cell],
        wait: Duration,
    ) -> CallResult<Response> {
        let shared = &*self.shared;
        let answers = shared.answers.load(Ordering::Relaxed);
        match timeout(wait, shared.call(method, message, cells, wait)).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::TimedOut {
                method,
                address: shared.address.clone(),
                timeout: wait,
                silent: answers == shared.answers.load(Ordering::Relaxed),
            }),
        }
    }

    /// Like [`Connection::call`], with the response message decoded.
    ///
    /// # Errors
    /// Any [`CallError`].
    pub async fn call_decoded<M: Message + Default>(
        &self,
        method: &'static str,
        message: &impl Message,
        cells: &[Cell],
        wait: Duration,
    ) -> CallResult<(M, Vec<Cell>)> {
        let response = self.call(method, message, cells, wait).await?;
        let message = frame::decode_message(response.message, method)
            .map_err(|source| self.bad_answer(source))?;
        Ok((message, response.cells))
    }

    /// The error for an inconsistent answer.
    pub fn bad_answer(&self, source: Error) -> CallError {
        let address = self.shared.address.clone();
        CallError::BadAnswer { address, source }
    }
}

// === impl CallError ===

impl CallError {
    /// Whether the server has certainly not received the call.
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::NotSent { .. })
    }

    /// The exception, if the server returned one.
    pub fn exception(&self) -> Option<&Exception> {
        match self {
            Self::Remote(exception) => Some(exception),
            _ => None,
        }
    }
}

// === impl ClientShared ===

impl ClientShared {
    async fn call(
        &self,
        method: &'static str,
        message: &impl Message,
        cells: &[Cell],
        wait: Duration,
    ) -> CallResult<Response> {
        let _room = self.room.acquire().await.map_err(|_| self.not_sent())?;
        let (answer, receiver) = oneshot::channel();
        let waiting = self.register(answer)?;
        let mut header = pb::RequestHeader {
            call_id: Some(waiting.call_id),
            method_name: Some(method.to_owned()),
            timeout: Some(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1)),
            ..Default::default()
        };
        let sent = self.requests.push((), |output| {
            frame::encode_request(&mut header, message, cells, self.codec, output);
        });
        if !sent {
            return Err(self.not_sent());
        }
        match receiver.await {
            Ok(answer) => answer,
            Err(_) => Err(self.lost("it was closed")),
        }
    }

    fn register(&self, answer: oneshot::Sender<CallResult<Response>>) -> CallResult<Waiting<'_>> {
        let mut calls = self.calls.lock();
        if let Some(failed) = &calls.failed {
            let reason: Arc<str> = failed.to_string().into();
            let address = self.address.clone();
            return Err(CallError::NotSent { address, reason });
        }
        // Far fewer calls are waiting than there are ids.
        while calls.waiting.contains_key(&calls.next_id) {
            calls.next_id = next_call_id(calls.next_id);
        }
        let call_id = calls.next_id;
        calls.next_id = next_call_id(call_id);
        calls.waiting.insert(call_id, answer);
        let shared = self;
        Ok(Waiting { shared, call_id })
    }

    fn fail(&self, error: CallError) {
        let waiting = {
            let mut calls = self.calls.lock();
            calls.failed.get_or_insert_with(|| error.clone());
            std::mem::take(&mut calls.waiting)
        };
        self.room.close();
        self.requests.close();
        for answer in waiting.into_values() {
            // The caller may have stopped waiting.
            let _ = answer.send(Err(error.clone()));
        }
    }

    fn answer(&self, answer: frame::Answer) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        let waiting = self.calls.lock().waiting.remove(&answer.call_id);
        let Some(waiting) = waiting else {
            return;
        };
        let answer = match answer.result {
            Ok((message, cells)) => Ok(Response { message, cells }),
            Err(exception) => Err(CallError::Remote(exception)),
        };
        let _ = waiting.send(answer);
    }

    fn not_sent(&self) -> CallError {
        CallError::NotSent {
            address: self.address.clone(),
            reason: "the connection was lost before".into(),
        }
    }

    fn lost(&self, reason: impl ToString) -> CallError {
        CallError::Lost { address: self.address.clone(), reason: reason.to_string().into() }
    }
}

// === impl Waiting ===

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.calls.lock().waiting.remove(&self.call_id);
    }
}

async fn run(
    reader: ReadHalf<Stream>,
    writer: WriteHalf<Stream>,
    shared: Arc<ClientShared>,
    options: ConnectionOptions,
    close: Shutdown,
) {
    let error = tokio::select! {
        biased;
        () = close.cancelled() => shared.lost("it was closed"),
        error = read_answers(reader, &shared, options.answer_bytes_max) => error,
        error = write_requests(writer, &shared, options.write_timeout) => shared.lost(error),
    };
    debug!(address = %shared.address, %error, "connection ended");
    shared.fail(error);
}

async fn read_answers(
    mut stream: ReadHalf<Stream>,
    shared: &ClientShared,
    answer_bytes_max: usize,
) -> CallError {
    let mut buffer = FrameBuffer::new(answer_bytes_max);
    let bad = |source| CallError::BadAnswer { address: shared.address.clone(), source };
    loop {
        loop {
            let answer = match buffer.next_frame() {
                Ok(Some(frame)) => frame::decode_answer(frame, Some(shared.codec)),
                Ok(None) => break,
                Err(error) => return bad(error),
            };
            match answer {
                Ok(answer) if answer.call_id == frame::PREAMBLE_CALL_ID => {
                    if let Err(exception) = answer.result {
                        return CallError::Remote(exception);
                    }
                }
                Ok(answer) => shared.answer(answer),
                Err(error) => return bad(error),
            }
        }
        // No timeout: each call has its own.
        match stream.read_buf(buffer.space()).await {
            Ok(0) => return shared.lost("the server closed it"),
            Ok(_) => {}
            Err(error) => return shared.lost(error),
        }
    }
}

/// Returns only after an error. Once there is nothing more to write, it stays pending forever.
async fn write_requests(
    mut stream: WriteHalf<Stream>,
    shared: &ClientShared,
    write_timeout: Duration,
) -> io::Error {
    let mut batch = Batch::new();
    while shared.requests.next(&mut batch).await {
        let written = timeout(write_timeout, async {
            stream.write_all(&batch.bytes).await?;
            stream.flush().await
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error,
            Err(_) => return io::ErrorKind::TimedOut.into(),
        }
    }
    std::future::pending().await
}

fn connection_header(options: &ConnectionOptions) -> pb::ConnectionHeader {
    pb::ConnectionHeader {
        user_info: Some(pb::UserInformation {
            effective_user: options.user.clone(),
            real_user: None,
        }),
        service_name: Some(options.service.name().to_owned()),
        cell_block_codec_class: Some(options.codec.class_name().to_owned()),
        version_info: Some(version_info()),
        ..Default::default()
    }
}

/// Servers use the version to determine what a client supports. Ours is that of the Java client
/// whose behaviour this client implements.
fn version_info() -> pb::VersionInfo {
    pb::VersionInfo {
        version: "2.6.0".to_owned(),
        url: "basalt".to_owned(),
        revision: env!("CARGO_PKG_VERSION").to_owned(),
        user: String::new(),
        date: String::new(),
        src_checksum: String::new(),
        version_major: Some(2),
        version_minor: Some(6),
    }
}

/// Java stores call ids in an `i32`, and uses negative ones itself.
fn next_call_id(call_id: u32) -> u32 {
    (call_id + 1) & (i32::MAX as u32)
}
