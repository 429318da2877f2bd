//! One connection of a server, from its preamble to its last answer.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use basalt_model::Cell;
use basalt_runtime::{Connection as Stream, LongSteps, Shutdown, long_step};
use bytes::Bytes;
use futures::FutureExt;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::admission::{Admission, Admitted};
use super::held::{HeldBytes, Share};
use super::{Call, Caller, Handler, Reply, ServerOptions};
use crate::frame::{self, FrameBuffer, PREAMBLE_BYTES, PREAMBLE_CALL_ID, Preamble};
use crate::outbox::{Batch, Outbox};
use crate::{CellBlockCodec, Error, Exception, ExceptionKind, pb};

/// The maximum length of a connection header, in bytes.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// A request above the limit is rejected by its call id, which is in this many first bytes.
const REQUEST_HEADER_BYTES: usize = 4 << 10;
/// After this many bytes of one request were read or decoded, other tasks get a turn.
const TURN_BYTES_MAX: usize = 1 << 20;
/// Decoding, answering or dropping a request of at least this size may occupy a thread for long.
/// Requests in progress occupy a limited number of bytes, so there are few of these, and the
/// threads suffice.
const LONG_REQUEST_BYTES: usize = 16 << 20;
/// While a client reads nothing, the bytes that it holds are counted this often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The call id of an exception that concerns the connection.
const NO_CALL_ID: u32 = u32::MAX;

/// The state that all connections of a server share.
pub(super) struct Server<H> {
    pub(super) handler: Arc<H>,
    pub(super) options: Arc<ServerOptions>,
    pub(super) admission: Arc<Admission>,
    pub(super) held: Arc<HeldBytes>,
    pub(super) shutdown: Shutdown,
}

/// Why a connection ended, other than because its client closed it.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndReason {
    #[error("it was lost: {0}")]
    Lost(#[from] io::Error),
    #[error("it was silent for {0:?}")]
    Silent(Duration),
    #[error("others need the memory that its unfinished request or its unread answers hold")]
    NoProgress,
    #[error("it was rejected: {0}")]
    Refused(Exception),
    #[error(transparent)]
    Protocol(#[from] Error),
}

type Answers = Outbox<Option<Admitted>>;

/// The writing side.
struct Writer {
    stream: WriteHalf<Stream>,
    /// The calls in progress of this connection.
    own: Arc<Admission>,
    share: Share,
    timeout: Duration,
}

/// The reading side.
struct Reader {
    stream: ReadHalf<Stream>,
    buffer: FrameBuffer,
    share: Share,
    frame_timeout: Duration,
    /// How much was read since other tasks last had a turn.
    bytes_in_turn: usize,
}

/// The answer that a call owes. If it is dropped without one (the handler panicked), it sends an
/// exception.
struct Owed {
    call_id: u32,
    codec: Option<CellBlockCodec>,
    admitted: Option<Admitted>,
    answers: Arc<Answers>,
}

/// Serves one connection until it ends and all its calls are answered.
pub(super) async fn run<H: Handler>(
    stream: Stream,
    peer: SocketAddr,
    server: Server<H>,
) -> Result<(), EndReason> {
    let (read_half, write_half) = tokio::io::split(stream);
    let dropped = Shutdown::new();
    let mut reader = Reader {
        stream: read_half,
        buffer: FrameBuffer::new(HEADER_BYTES_MAX),
        share: server.held.share(dropped.clone()),
        frame_timeout: server.options.frame_timeout,
        bytes_in_turn: 0,
    };
    let answers = Arc::new(Answers::new());
    let own = Arc::new(Admission::new(
        server.options.connection_calls_max,
        server.options.calls_bytes_max,
    ));
    let writer = Writer {
        stream: write_half,
        own: own.clone(),
        share: server.held.share(dropped.clone()),
        timeout: server.options.write_timeout,
    };
    let writer = writer.run(answers.clone(), dropped.clone());
    let lost = Shutdown::new();
    let writer = tokio::spawn({
        let lost = lost.clone().drop_guard();
        async move {
            let _lost = lost;
            writer.await
        }
    });
    let ended = tokio::select! {
        biased;
        () = server.shutdown.cancelled() => Ok(()),
        () = dropped.cancelled() => Err(EndReason::NoProgress),
        () = lost.cancelled() => Ok(()),
        ended = read_calls(&mut reader, peer, &server, &answers, &own) => ended,
    };
    if let Err(EndReason::Refused(exception)) = &ended {
        answers.push(None, |output| frame::encode_exception(NO_CALL_ID, exception, output));
    }
    // Calls in progress still answer. If the writer ends first, it drops their answers.
    while !own.is_idle() && !lost.is_cancelled() {
        tokio::select! {
            biased;
            () = lost.cancelled() => {}
            () = own.idle.notified() => {}
        }
    }
    answers.close();
    match writer.await {
        Ok(Err(error)) if !dropped.is_cancelled() => Err(error.into()),
        _ if dropped.is_cancelled() => Err(EndReason::NoProgress),
        _ => ended,
    }
}

async fn read_calls<H: Handler>(
    reader: &mut Reader,
    peer: SocketAddr,
    server: &Server<H>,
    answers: &Arc<Answers>,
    own: &Arc<Admission>,
) -> Result<(), EndReason> {
    let options = &server.options;
    let opened = timeout(options.open_timeout, open(reader, peer, server, answers));
    let Some(caller) = opened.await.map_err(|_| EndReason::Silent(options.open_timeout))?? else {
        return Ok(());
    };
    let caller = Arc::new(caller);
    reader.buffer.set_length_max(options.request_bytes_max);
    loop {
        let frame = match reader.buffer.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                if !reader.fill(options.idle_timeout).await? {
                    return Ok(());
                }
                continue;
            }
            Err(Error::FrameTooLong { length, length_max }) => {
                refuse_long_request(reader, length, length_max, options, answers).await?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let bytes = frame.len();
        let Some(admitted) = Admitted::enter(&server.admission, own, bytes) else {
            refuse(answers, call_id_of(&frame), &too_busy(options), options).await;
            continue;
        };
        let is_long = bytes >= LONG_REQUEST_BYTES;
        let decoding = decode_request(frame.clone(), caller.codec);
        let decoded = if is_long { LongSteps::new(decoding).await } else { decoding.await };
        let request = match decoded {
            Ok(request) => request,
            Err(error) => {
                drop(admitted);
                let exception = Exception::bad_request(error);
                refuse(answers, call_id_of(&frame), &exception, options).await;
                continue;
            }
        };
        // The parts of the request keep the memory that they need.
        drop(frame);
        let owed = Owed {
            call_id: request.call_id,
            codec: caller.codec,
            admitted: Some(admitted),
            answers: answers.clone(),
        };
        let call = call(caller.clone(), request);
        if is_long {
            let handler = server.handler.clone();
            tokio::spawn(LongSteps::new(answer(handler, call, owed)));
        } else {
            let is_last = !reader.buffer.has_frame();
            start(server.handler.clone(), call, owed, is_last).await;
        }
    }
}

fn call_id_of(frame: &[u8]) -> u32 {
    frame::peek_call_id(frame).unwrap_or(NO_CALL_ID)
}

/// Reads the preamble and the header of a connection. Returns `None` if the client only asked a
/// question.
async fn open<H: Handler>(
    reader: &mut Reader,
    peer: SocketAddr,
    server: &Server<H>,
    answers: &Answers,
) -> Result<Option<Caller>, EndReason> {
    loop {
        let Some(preamble) = reader.preamble(server.options.open_timeout).await? else {
            return Ok(None);
        };
        let refuse = |kind, message: String| Err(EndReason::Refused(Exception::new(kind, message)));
        match Preamble::parse(preamble) {
            Preamble::Simple => break,
            Preamble::Registry => {
                let Some(cluster_id) = server.handler.cluster_id() else {
                    let message = "the cluster's id is not known yet".to_owned();
                    return refuse(ExceptionKind::FatalConnection, message);
                };
                let response = pb::GetConnectionRegistryResponse { cluster_id };
                answers.push(None, |output| {
                    let message = response.encode_to_vec();
                    frame::encode_answer(PREAMBLE_CALL_ID, &message, &[], None, output);
                });
                return Ok(None);
            }
            Preamble::Security => {
                let kind = ExceptionKind::SecurityNotEnabled;
                let exception = Exception::new(kind, "security is not enabled");
                answers.push(None, |output| {
                    frame::encode_exception(PREAMBLE_CALL_ID, &exception, output);
                });
            }
            Preamble::WrongVersion(version) => {
                let message = format!("RPC version {version} is not supported; only 0 is");
                return refuse(ExceptionKind::WrongVersion, message);
            }
            Preamble::WrongLogin(login) => {
                let message = format!("login method {login} is not supported; only 80 (SIMPLE) is");
                return refuse(ExceptionKind::BadAuth, message);
            }
            Preamble::Unknown => {
                let received = preamble.escape_ascii();
                let message = format!("Expected HEADER=HBas but received HEADER={received}");
                return refuse(ExceptionKind::FatalConnection, message);
            }
        }
    }
    let header = loop {
        if let Some(header) = reader.buffer.next_frame()? {
            break header;
        }
        if !reader.fill(server.options.open_timeout).await? {
            return Ok(None);
        }
    };
    let header = frame::decode_message(header, "ConnectionHeader")?;
    introduce(peer, header, &server.options).map(Some).map_err(EndReason::Refused)
}

/// Parses a connection's header. Returns an exception if the connection is not possible.
fn introduce(
    address: SocketAddr,
    header: pb::ConnectionHeader,
    options: &ServerOptions,
) -> Result<Caller, Exception> {
    let name = header.service_name();
    let service = name
        .parse()
        .ok()
        .filter(|service| options.services.contains(service))
        .ok_or_else(|| Exception::new(ExceptionKind::UnknownService, name))?;
    let codec = match header.cell_block_codec_class.as_deref() {
        None | Some("") => None,
        Some(class_name) => Some(CellBlockCodec::from_class_name(class_name).map_err(|error| {
            Exception::new(ExceptionKind::UnsupportedCellCodec, error.to_string())
        })?),
    };
    match header.cell_block_compressor_class.as_deref() {
        None | Some("") => {}
        Some(class_name) => {
            let message = format!("compressed cell blocks ({class_name}) are not supported");
            return Err(Exception::new(ExceptionKind::UnsupportedCompressionCodec, message));
        }
    }
    Ok(Caller {
        address,
        user: header.user_info.map_or_else(String::new, |user| user.effective_user),
        service,
        codec,
        version: header.version_info.map(|version| version.version),
    })
}

fn call(caller: Arc<Caller>, request: frame::Request) -> Call {
    let wait = Duration::from_millis(request.timeout_ms.into());
    Call {
        caller,
        method: request.method,
        message: request.message,
        cells: request.cells,
        deadline: (!wait.is_zero()).then(|| Instant::now() + wait),
        priority: request.priority,
    }
}

async fn answer<H: Handler>(handler: Arc<H>, call: Call, owed: Owed) {
    let reply = handler.handle(call).await;
    owed.pay(reply);
}

/// Starts a call in a task of its own. A short call with no other call waiting behind it is started
/// here, and needs no task if it finishes immediately, because handing it to a task costs as much
/// as the call itself.
async fn start<H: Handler>(handler: Arc<H>, call: Call, owed: Owed, is_last: bool) {
    let is_begun_here = is_last && handler.is_short(&call);
    let answer = answer(handler, call, owed);
    if !is_begun_here {
        tokio::spawn(answer);
        return;
    }
    // A panic affects only its own call, as in a task.
    let mut answer = Box::pin(AssertUnwindSafe(answer).catch_unwind());
    if poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await.is_pending() {
        tokio::spawn(answer);
    }
}

/// Answers a call that was not started. Waits if too many such answers are pending: the server
/// stops reading from a client that does not read its answers.
async fn refuse(answers: &Answers, call_id: u32, exception: &Exception, options: &ServerOptions) {
    answers.push(None, |output| frame::encode_exception(call_id, exception, output));
    answers.drained(options.connection_calls_max).await;
}

fn too_busy(options: &ServerOptions) -> Exception {
    Exception::new(
        ExceptionKind::CallQueueTooBig,
        format!(
            "too many calls in progress: the limits are {} per connection, {} in all, and {} bytes",
            options.connection_calls_max, options.calls_max, options.calls_bytes_max
        ),
    )
}

/// Rejects a request above the limit, and drops its bytes as they arrive.
async fn refuse_long_request(
    reader: &mut Reader,
    length: u64,
    length_max: u64,
    options: &ServerOptions,
    answers: &Answers,
) -> Result<(), EndReason> {
    let wait = options.frame_timeout;
    let mut rest = length + 4;
    while (reader.buffer.peek().len() as u64) < rest.min(REQUEST_HEADER_BYTES as u64) {
        if !reader.fill(wait).await? {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    let call_id = reader.buffer.peek().get(4..).and_then(frame::peek_call_id);
    let message = format!("a request of {length} bytes; at most {length_max} are accepted");
    let exception = Exception::new(ExceptionKind::RequestTooBig, message);
    refuse(answers, call_id.unwrap_or(NO_CALL_ID), &exception, options).await;
    loop {
        rest -= reader.buffer.discard(usize::try_from(rest).unwrap_or(usize::MAX)) as u64;
        if rest == 0 {
            return Ok(());
        }
        if !reader.fill(wait).await? {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// Decodes a call. If it has many cells, other tasks get a turn now and then.
async fn decode_request(
    frame: Bytes,
    codec: Option<CellBlockCodec>,
) -> Result<frame::Request, Error> {
    let mut decoding = frame::begin_request(frame, codec)?;
    while !decoding.is_done_after(TURN_BYTES_MAX)? {
        yield_now().await;
    }
    Ok(decoding.request)
}

// === impl Writer ===

impl Writer {
    /// Writes answers until there are no more, or the connection must be closed.
    async fn run(mut self, answers: Arc<Answers>, dropped: Shutdown) -> io::Result<()> {
        let mut batch = Batch::new();
        let ended = loop {
            if !answers.next(&mut batch).await {
                break Ok(());
            }
            let written = tokio::select! {
                biased;
                () = dropped.cancelled() => Err(io::ErrorKind::TimedOut.into()),
                written = self.write(&batch.bytes) => written,
            };
            if written.is_err() {
                break written;
            }
        };
        answers.close();
        if ended.is_ok() {
            // The client may be gone already.
            let _ = timeout(self.timeout, self.stream.shutdown()).await;
        }
        ended
    }

    /// Writes all of `bytes`, as long as the client keeps reading.
    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.write_some(bytes).await?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        let flushed = timeout(self.timeout, self.stream.flush()).await;
        self.share.progressed(0);
        flushed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let give_up_at = Instant::now() + self.timeout;
        let mut writing = pin!(self.stream.write(bytes));
        loop {
            match timeout(LOOK_INTERVAL, &mut writing).await {
                Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.share.progressed(self.own.bytes());
                    return written;
                }
                Err(_) if Instant::now() >= give_up_at => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                // More answers may be pending behind this one.
                Err(_) => self.share.holds(self.own.bytes()),
            }
        }
    }
}

// === impl Reader ===

impl Reader {
    /// Reads more. Returns false at the end of the stream. Between requests the client may be
    /// silent for `idle_timeout`, in the middle of one for less.
    async fn fill(&mut self, idle_timeout: Duration) -> Result<bool, EndReason> {
        if self.bytes_in_turn >= TURN_BYTES_MAX {
            self.bytes_in_turn = 0;
            yield_now().await;
        }
        let unfinished = self.buffer.peek().len();
        self.share.progressed(unfinished);
        let wait = if unfinished == 0 { idle_timeout } else { self.frame_timeout };
        if unfinished >= LONG_REQUEST_BYTES && self.buffer.must_grow() {
            // Growing the buffer copies the beginning of a large request.
            long_step(|| self.buffer.space().len());
        }
        let read = self.stream.read_buf(self.buffer.space());
        let wait = wait.min(idle_timeout);
        let length = timeout(wait, read).await.map_err(|_| EndReason::Silent(wait))??;
        self.bytes_in_turn += length;
        Ok(length > 0)
    }

    async fn preamble(
        &mut self,
        wait: Duration,
    ) -> Result<Option<[u8; PREAMBLE_BYTES]>, EndReason> {
        loop {
            if let Some(preamble) = self.buffer.take() {
                return Ok(Some(preamble));
            }
            if !self.fill(wait).await? {
                return Ok(None);
            }
        }
    }
}

// === impl Owed ===

impl Owed {
    /// Sends the answer.
    fn pay(mut self, reply: Result<Reply, Exception>) {
        self.send(reply);
    }

    fn send(&mut self, reply: Result<Reply, Exception>) {
        let Some(mut admitted) = self.admitted.take() else {
            return;
        };
        let (call_id, codec) = (self.call_id, self.codec);
        admitted.hold(reply.as_ref().map_or(0, reply_bytes));
        // If the connection is gone, nobody waits for the answer.
        self.answers.push(Some(admitted), |output| match &reply {
            Ok(reply) => {
                debug_assert!(codec.is_some() || reply.cells.is_empty());
                frame::encode_answer(call_id, &reply.message, &reply.cells, codec, output);
            }
            Err(exception) => frame::encode_exception(call_id, exception, output),
        });
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if self.admitted.is_some() {
            let message = "the server failed to answer this call";
            self.send(Err(Exception::new(ExceptionKind::Other, message)));
        }
    }
}

fn reply_bytes(reply: &Reply) -> usize {
    let cells: usize = reply.cells.iter().map(|cell: &Cell| cell.bytes().len()).sum();
    reply.message.len() + cells
}
