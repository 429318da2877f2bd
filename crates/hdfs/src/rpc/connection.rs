//! One connection for one protocol of one server, with many calls in progress.
//!
//! When a connection fails, all its calls fail. It is not reopened: the owner opens a new one. If
//! the caller of a call gives up, the call is forgotten and its late answer is dropped.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use basalt_runtime::{Connection as Stream, Network, Shutdown};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::Protocol;
use super::frame::{self, ANSWER_BYTES_MAX, CONTEXT_CALL_ID, CallId, ClientId};
use crate::error::{Defect, Error, Result};
use crate::wire::split_delimited;

/// How to connect.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionOptions {
    /// The protocol of all calls.
    pub(crate) protocol: Protocol,
    /// The user to act as.
    pub(crate) user: Arc<str>,
    /// Identifies the client to the server.
    pub(crate) client: ClientId,
    /// How long connecting may take.
    pub(crate) connect_timeout: Duration,
    /// How long the server may leave a request unread.
    pub(crate) write_timeout: Duration,
}

/// An open connection; clones share it. It is closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    shared: Arc<ConnectionShared>,
    _close: Arc<tokio_util::sync::DropGuard>,
}

#[derive(Debug)]
struct ConnectionShared {
    server: Arc<str>,
    protocol: Protocol,
    client: ClientId,
    requests: mpsc::Sender<BytesMut>,
    room: Semaphore,
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    waiting: BTreeMap<i32, oneshot::Sender<Result<Bytes, Failure>>>,
    /// Why the connection failed; once it is set, `waiting` stays empty.
    failed: Option<Failure>,
}

/// Why a call has no answer.
#[derive(Clone, Debug)]
enum Failure {
    Remote(crate::RemoteException),
    Lost(Arc<str>),
    Bad(Defect),
}

/// A call in progress.
struct Waiting<'a> {
    shared: &'a ConnectionShared,
    call_id: i32,
}

/// How many calls are in progress at once. Further calls wait, within their timeouts.
const CALLS_MAX: usize = 256;

// === impl Connection ===

impl Connection {
    /// Connects to `server` (`host:port`) and sends the preamble.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub(crate) async fn open(
        network: &Network,
        server: Arc<str>,
        options: &ConnectionOptions,
    ) -> Result<Self> {
        let stream = connect(network, &server, options.connect_timeout).await?;
        let (requests, to_write) = mpsc::channel(CALLS_MAX);
        let shared = Arc::new(ConnectionShared {
            server,
            protocol: options.protocol,
            client: options.client,
            requests,
            room: Semaphore::new(CALLS_MAX),
            calls: Mutex::default(),
        });
        let mut preamble = BytesMut::new();
        frame::put_preamble(options.protocol, &options.user, &options.client, &mut preamble);
        let (reader, writer) = tokio::io::split(stream);
        let close = Shutdown::new();
        let write = write_requests(writer, preamble, to_write, options.write_timeout);
        tokio::spawn(run(reader, write, Arc::clone(&shared), close.clone()));
        Ok(Self { shared, _close: Arc::new(close.drop_guard()) })
    }

    /// Whether the connection has failed. All further calls then fail.
    pub(crate) fn is_failed(&self) -> bool {
        self.shared.calls.lock().failed.is_some()
    }

    /// Whether both are handles to the same connection.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Calls `method`; the answer must come within `wait`.
    ///
    /// # Errors
    /// [`Error::Remote`], [`Error::TimedOut`], [`Error::Lost`] or [`Error::BadAnswer`].
    pub(crate) async fn call<M: Message + Default>(
        &self,
        call: CallId,
        method: &'static str,
        message: &impl Message,
        wait: Duration,
    ) -> Result<M> {
        let shared = &*self.shared;
        let server = Arc::clone(&shared.server);
        match timeout(wait, shared.call(call, method, message)).await {
            Err(_) => Err(Error::TimedOut { server, what: method, limit: wait }),
            Ok(Err(failure)) => Err(failure.of(server, method)),
            Ok(Ok(mut answer)) => split_delimited(method, &mut answer)
                .map_err(|defect| Error::BadAnswer { server, defect }),
        }
    }
}

/// Opens a stream within `limit`.
///
/// # Errors
/// [`Error::Unreachable`].
pub(crate) async fn connect(
    network: &Network,
    server: &Arc<str>,
    limit: Duration,
) -> Result<Stream> {
    let unreachable =
        |reason: String| Error::Unreachable { server: Arc::clone(server), reason: reason.into() };
    match timeout(limit, network.connect(server)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_) => Err(unreachable(format!("no connection within {limit:?}"))),
    }
}

/// Ends when no new stream can be opened within `limit`. After each `pause` it opens one and closes
/// it again. This distinguishes a machine that is gone from a process that only hangs, because the
/// kernel still accepts connections for the latter. Streams that are already open do not show the
/// difference.
pub(crate) async fn until_unreachable(
    network: &Network,
    server: &Arc<str>,
    pause: Duration,
    limit: Duration,
) -> Error {
    loop {
        sleep(pause).await;
        if let Err(error) = connect(network, server, limit).await {
            return error;
        }
    }
}

// === impl ConnectionShared ===

impl ConnectionShared {
    async fn call(
        &self,
        call: CallId,
        method: &'static str,
        message: &impl Message,
    ) -> Result<Bytes, Failure> {
        let closed = || self.failure();
        let _room = self.room.acquire().await.map_err(|_| closed())?;
        let (answer, receiver) = oneshot::channel();
        let _waiting = self.register(call.id, answer)?;
        let mut request = BytesMut::new();
        frame::put_call(call, &self.client, self.protocol, method, message, &mut request);
        self.requests.send(request).await.map_err(|_| closed())?;
        receiver.await.unwrap_or_else(|_| Err(closed()))
    }

    fn register(
        &self,
        call_id: i32,
        answer: oneshot::Sender<Result<Bytes, Failure>>,
    ) -> Result<Waiting<'_>, Failure> {
        let mut calls = self.calls.lock();
        if let Some(failed) = &calls.failed {
            return Err(failed.clone());
        }
        calls.waiting.insert(call_id, answer);
        Ok(Waiting { shared: self, call_id })
    }

    fn answer(&self, call_id: i32, result: Result<Bytes, Failure>) {
        if let Some(waiting) = self.calls.lock().waiting.remove(&call_id) {
            // The caller may have stopped waiting.
            let _ = waiting.send(result);
        }
    }

    fn fail(&self, failure: &Failure) {
        let waiting = {
            let mut calls = self.calls.lock();
            calls.failed.get_or_insert_with(|| failure.clone());
            std::mem::take(&mut calls.waiting)
        };
        self.room.close();
        for answer in waiting.into_values() {
            let _ = answer.send(Err(failure.clone()));
        }
    }

    fn failure(&self) -> Failure {
        let failed = self.calls.lock().failed.clone();
        failed.unwrap_or_else(|| Failure::Lost("it was closed".into()))
    }
}

// === impl Failure ===

impl Failure {
    fn of(self, server: Arc<str>, method: &'static str) -> Error {
        match self {
            Self::Remote(exception) => Error::Remote { server, method, exception },
            Self::Lost(reason) => Error::Lost { server, reason },
            Self::Bad(defect) => Error::BadAnswer { server, defect },
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Lost(error.to_string().into())
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
    write: impl Future<Output = Failure>,
    shared: Arc<ConnectionShared>,
    close: Shutdown,
) {
    let failure = tokio::select! {
        biased;
        () = close.cancelled() => Failure::Lost("it was closed".into()),
        failure = read_answers(reader, &shared) => failure,
        failure = write => failure,
    };
    debug!(server = %shared.server, ?failure, "connection ended");
    shared.fail(&failure);
}

async fn read_answers(mut stream: ReadHalf<Stream>, shared: &ConnectionShared) -> Failure {
    let mut input = BytesMut::new();
    loop {
        loop {
            let answer = match frame::take_frame(&mut input, ANSWER_BYTES_MAX) {
                Ok(Some(frame)) => frame::decode_answer(frame),
                Ok(None) => break,
                Err(defect) => return Failure::Bad(defect),
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(defect) => return Failure::Bad(defect),
            };
            let result = answer.result.map_err(Failure::Remote);
            if let Err(failure) = &result
                && (answer.is_fatal || answer.call_id == CONTEXT_CALL_ID)
            {
                return failure.clone();
            }
            shared.answer(answer.call_id, result);
        }
        // No timeout: each call has its own.
        match stream.read_buf(&mut input).await {
            Ok(0) => return Failure::Lost("the server closed it".into()),
            Ok(_) => {}
            Err(error) => return error.into(),
        }
    }
}

/// Returns only after a failure, or once all handles are dropped.
async fn write_requests(
    mut stream: WriteHalf<Stream>,
    mut bytes: BytesMut,
    mut requests: mpsc::Receiver<BytesMut>,
    limit: Duration,
) -> Failure {
    loop {
        match timeout(limit, stream.write_all(&bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => {
                return Failure::Lost(format!("it accepted no bytes within {limit:?}").into());
            }
        }
        bytes = match requests.recv().await {
            Some(request) => request,
            None => return Failure::Lost("it was closed".into()),
        };
        while let Ok(more) = requests.try_recv() {
            bytes.unsplit(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_runtime::{Listener, NetworkSource};
    use std::net::SocketAddr;
    use tokio::time::Instant;

    const PAUSE: Duration = Duration::from_millis(100);
    const LIMIT: Duration = Duration::from_millis(200);

    /// Its machines accept connections until then, and none after that.
    struct Gone(Instant);

    #[async_trait::async_trait]
    impl NetworkSource for Gone {
        async fn connect(&self, _: &str) -> io::Result<Stream> {
            if Instant::now() >= self.0 {
                std::future::pending::<()>().await;
            }
            Ok(Box::new(tokio::io::empty()))
        }

        async fn listen(&self, _: SocketAddr) -> io::Result<Box<dyn Listener>> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_goes_is_noticed_soon_and_not_before() {
        let started = Instant::now();
        let gone_at = started + Duration::from_millis(1_250);
        let network = Network::new(Gone(gone_at));
        let error = until_unreachable(&network, &"dn:1".into(), PAUSE, LIMIT).await;
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        assert!(Instant::now() > gone_at);
        assert!(Instant::now() <= gone_at + PAUSE + LIMIT, "{:?}", started.elapsed());
    }
}
