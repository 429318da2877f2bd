//! Answers calls: the accept loop, and the interface that a role implements.
//!
//! Each connection has one task that reads, one that writes, and one for each call that does not
//! finish immediately. The calls of a connection are answered as they finish, in any order.

mod admission;
mod connection;
mod held;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use basalt_model::Cell;
use basalt_runtime::{Listener, Shutdown};
use bytes::Bytes;
use prost::Message;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::frame::FRAME_BYTES_MAX;
use crate::{CellBlockCodec, Exception, Service};

use admission::Admission;
use connection::EndReason;
use held::HeldBytes;

/// How a role handles calls.
pub trait Handler: Send + Sync + 'static {
    /// Answers one call. It is never cancelled, even if the client has disconnected.
    fn handle(&self, call: Call) -> impl Future<Output = Result<Reply, Exception>> + Send;

    /// Whether the first step of a call, up to where it waits, takes only microseconds. The
    /// connection then performs that step itself. All other calls run in a task of their own.
    fn is_short(&self, _call: &Call) -> bool {
        false
    }

    /// The cluster's id, for clients that open with `Regist`; `None` while it is unknown.
    fn cluster_id(&self) -> Option<String>;
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// The caller and its connection.
    pub caller: Arc<Caller>,
    /// The method, as it is spelled in the service's protocol.
    pub method: String,
    /// The request message, not decoded yet. It and `cells` share the memory of everything that was
    /// read with them: copy data that is kept.
    pub message: Bytes,
    /// The cells beside the message.
    pub cells: Vec<Cell>,
    /// When the client stops waiting; `None` if it sets no timeout.
    pub deadline: Option<Instant>,
    /// 0 is normal, 200 high.
    pub priority: u32,
}

/// The other end of a connection, as its header describes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    /// Its address.
    pub address: SocketAddr,
    /// The user whose permissions apply.
    pub user: String,
    /// The service that the connection is for.
    pub service: Service,
    /// How cells beside messages are encoded; `None` if cells must be inside messages.
    pub codec: Option<CellBlockCodec>,
    /// The version of its HBase client, if it is known.
    pub version: Option<String>,
}

/// The answer to a call.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// The response message, encoded.
    pub message: Bytes,
    /// The cells beside it. Must be empty if the caller has no codec.
    pub cells: Vec<Cell>,
}

/// The limits of a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The services that connections may be opened for.
    pub services: Vec<Service>,
    /// The largest request, in bytes. Default 256 MiB.
    pub request_bytes_max: usize,
    /// How many connections may be open at once. Further ones are closed immediately. Default
    /// 4,096.
    pub connections_max: usize,
    /// How many calls of one connection may be in progress at once, including those whose answers
    /// are not written yet. Default 2,048.
    pub connection_calls_max: usize,
    /// How many calls may be in progress at once in total. Default 16,384.
    pub calls_max: usize,
    /// How many bytes the requests and answers in progress may occupy. Default 1 GiB.
    pub calls_bytes_max: usize,
    /// How many bytes incomplete requests and unread answers may occupy over all connections. Above
    /// this limit, the connection that has made no progress for the longest time is closed. The
    /// first 64 KiB of each do not count. Default 512 MiB.
    pub held_bytes_max: usize,
    /// How long a client may take to send its preamble and header. Default 30 s.
    pub open_timeout: Duration,
    /// How long a connection may be silent. Default 30 min.
    pub idle_timeout: Duration,
    /// How long a client may be silent in the middle of a request. Default 60 s.
    pub frame_timeout: Duration,
    /// How long a client may read nothing of an answer. Default 60 s.
    pub write_timeout: Duration,
    /// How long calls in progress may take to finish once the server stops. Default 5 s.
    pub stop_timeout: Duration,
}

/// The minimum interval between log messages about rejected connections.
const REFUSALS_REPORTED_EVERY: Duration = Duration::from_secs(10);
/// The pause after a failed accept, for example without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

// === impl ServerOptions ===

impl ServerOptions {
    /// The default limits, for these services.
    pub fn new(services: impl Into<Vec<Service>>) -> Self {
        Self {
            services: services.into(),
            request_bytes_max: FRAME_BYTES_MAX,
            connections_max: 4096,
            connection_calls_max: 2048,
            calls_max: 16_384,
            calls_bytes_max: 1 << 30,
            held_bytes_max: 512 << 20,
            open_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30 * 60),
            frame_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(5),
        }
    }
}

// === impl Reply ===

impl Reply {
    /// An answer without cells beside it.
    pub fn new(message: &impl Message) -> Self {
        Self::with_cells(message, Vec::new())
    }

    /// An answer with cells beside it.
    pub fn with_cells(message: &impl Message, cells: Vec<Cell>) -> Self {
        let message = message.encode_to_vec().into();
        Self { message, cells }
    }
}

/// Counts connections that were rejected because there are too many. Logged from time to time, with
/// their number.
#[derive(Debug, Default)]
struct Refusals {
    count: u64,
    reported_at: Option<Instant>,
}

impl Refusals {
    fn add(&mut self, peer: SocketAddr, open: usize) {
        self.count += 1;
        if self.reported_at.is_none_or(|at| at.elapsed() >= REFUSALS_REPORTED_EVERY) {
            warn!(%peer, open, refused = self.count, "too many connections: new ones are closed");
            *self = Self { count: 0, reported_at: Some(Instant::now()) };
        }
    }
}

/// Answers the calls of all connections of `listener` until `shutdown`. Then lets the calls in
/// progress finish, for at most [`ServerOptions::stop_timeout`].
pub async fn serve<H: Handler>(
    mut listener: Box<dyn Listener>,
    handler: Arc<H>,
    options: ServerOptions,
    shutdown: Shutdown,
) {
    let stop_timeout = options.stop_timeout;
    let admission = Arc::new(Admission::new(options.calls_max, options.calls_bytes_max));
    let held = Arc::new(HeldBytes::new(options.held_bytes_max));
    let options = Arc::new(options);
    let connections = TaskTracker::new();
    let mut refusals = Refusals::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if connections.len() >= options.connections_max {
            refusals.add(peer, connections.len());
            continue;
        }
        let server = connection::Server {
            handler: handler.clone(),
            options: options.clone(),
            admission: admission.clone(),
            held: held.clone(),
            shutdown: shutdown.clone(),
        };
        connections.spawn(async move {
            match connection::run(stream, peer, server).await {
                Err(reason @ EndReason::NoProgress) => warn!(%peer, %reason, "connection dropped"),
                Err(reason) => debug!(%peer, %reason, "connection ended"),
                Ok(()) => {}
            }
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(stop_timeout, connections.wait()).await.is_err() {
        warn!(open = connections.len(), "closing connections with calls in progress");
    }
}
