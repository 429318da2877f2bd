//! gRPC over the network seam: tonic channels and servers on [`Network`]'s connections.

mod limits;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream as AsyncStream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};

use crate::{Connection, Listener, Network};

pub use limits::{Bounded, BoundedRequests, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, server};

/// The largest gRPC message that any of our services accepts or sends, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The maximum number of open connections of a port. Further ones are closed immediately.
const CONNECTIONS_MAX: usize = 4_096;
/// The first bytes of every HTTP/2 connection, and how long they may take to arrive.
const PREFACE_BYTES: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// The shortest interval between two log messages about rejected connections.
const REFUSALS_REPORTED_EVERY: Duration = Duration::from_secs(10);

/// A lazily connecting channel to `address` (`host:port`) over `network`. `connect_timeout` bounds
/// each attempt to connect. The caller sets the deadline of each request.
///
/// # Errors
/// `address` is not a valid authority.
pub fn channel(
    network: &Network,
    address: &str,
    connect_timeout: Duration,
) -> Result<Channel, tonic::transport::Error> {
    let network = network.clone();
    let target = address.to_owned();
    let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let (network, target) = (network.clone(), target.clone());
        async move {
            match tokio::time::timeout(connect_timeout, network.connect(&target)).await {
                Ok(connected) => connected.map(TokioIo::new),
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no connection to {target} within {connect_timeout:?}"),
                )),
            }
        }
    });
    Ok(Endpoint::from_shared(format!("http://{address}"))?.connect_with_connector_lazy(connector))
}

/// The accepted connections of `listener`, in the form that tonic's `serve_with_incoming` needs: at
/// most `CONNECTIONS_MAX` at once. If a single accept fails (out of file descriptors, for example),
/// the error is passed on to tonic, which logs it and continues.
pub fn incoming(listener: Box<dyn Listener>) -> impl AsyncStream<Item = io::Result<Accepted>> {
    let gate = Gate {
        listener,
        places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        refused: 0,
        reported_at: None,
    };
    futures::stream::unfold(gate, |mut gate| async move { Some((gate.next().await, gate)) })
}

/// Admits connections while it has free permits.
struct Gate {
    listener: Box<dyn Listener>,
    places: Arc<Semaphore>,
    /// Rejected connections since the last log message.
    refused: u64,
    reported_at: Option<Instant>,
}

/// One accepted connection. Its peer's address is the connect info of each request.
pub struct Accepted {
    connection: Connection,
    peer: SocketAddr,
    /// While the preface is incomplete: how many bytes are missing, and the deadline.
    preface: Option<(usize, Pin<Box<Sleep>>)>,
    _place: OwnedSemaphorePermit,
}

// === impl Gate ===

impl Gate {
    async fn next(&mut self) -> io::Result<Accepted> {
        loop {
            let (connection, peer) = self.listener.accept().await?;
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                self.refuse(peer);
                continue;
            };
            let preface = Some((PREFACE_BYTES, Box::pin(sleep(PREFACE_TIMEOUT))));
            return Ok(Accepted { connection, peer, preface, _place: place });
        }
    }

    fn refuse(&mut self, peer: SocketAddr) {
        self.refused += 1;
        if self.reported_at.is_none_or(|at| at.elapsed() >= REFUSALS_REPORTED_EVERY) {
            let refused = std::mem::take(&mut self.refused);
            self.reported_at = Some(Instant::now());
            tracing::warn!(%peer, refused, "too many gRPC connections: new ones are closed");
        }
    }
}

// === impl Accepted ===

impl Connected for Accepted {
    type ConnectInfo = SocketAddr;

    fn connect_info(&self) -> SocketAddr {
        self.peer
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.connection).poll_read(context, buffer);
        if let Some((missing, deadline)) = &mut self.preface {
            *missing = missing.saturating_sub(buffer.filled().len() - before);
            if *missing == 0 {
                self.preface = None;
            } else if read.is_pending() && deadline.as_mut().poll(context).is_ready() {
                let problem = format!("no HTTP/2 preface within {PREFACE_TIMEOUT:?}");
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, problem)));
            }
        }
        read
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_preface_is_given_up() {
        let (mut client, server) = tokio::io::duplex(64);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let mut accepted = Accepted {
            connection: Box::new(server),
            peer: ([127, 0, 0, 1], 1).into(),
            preface: Some((PREFACE_BYTES, Box::pin(sleep(PREFACE_TIMEOUT)))),
            _place: place,
        };
        tokio::io::AsyncWriteExt::write_all(&mut client, b"PRI * HT").await.unwrap();
        let mut half = [0; 8];
        accepted.read_exact(&mut half).await.unwrap();
        let late = accepted.read_exact(&mut half).await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }
}
