//! The connections of the other members: few, and soon known.
//!
//! A connection over which no request of this ensemble comes within a while is closed, so that
//! strangers cannot take the places of the members.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use basalt_runtime::{Listener, grpc};
use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

/// One connection of a peer.
pub(crate) struct PeerStream {
    stream: grpc::Accepted,
    info: PeerInfo,
    deadline: Pin<Box<Sleep>>,
    /// One of the places for connections.
    _place: OwnedSemaphorePermit,
}

/// What the service knows of the connection that a request came over.
#[derive(Clone, Debug)]
pub(crate) struct PeerInfo {
    pub(crate) address: SocketAddr,
    is_known: Arc<AtomicBool>,
}

/// How many connections there may be: four other members, each with one, and room for those that
/// are broken but not noticed yet.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection has for its first request of this ensemble.
const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(5);

// === impl PeerInfo ===

impl PeerInfo {
    /// A request of this ensemble came over the connection: it stays.
    pub(crate) fn make_known(&self) {
        self.is_known.store(true, Ordering::Relaxed);
    }
}

/// The connections that `listener` accepts; what is beyond their number is closed at once.
pub(crate) fn incoming(listener: Box<dyn Listener>) -> impl Stream<Item = io::Result<PeerStream>> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    grpc::incoming(listener).filter_map(move |accepted| {
        let place = Arc::clone(&places).try_acquire_owned().ok();
        std::future::ready(match (accepted, place) {
            (Ok(stream), Some(place)) => Some(Ok(PeerStream::new(stream, place))),
            (Ok(_), None) => None,
            (Err(error), _) => Some(Err(error)),
        })
    })
}

// === impl PeerStream ===

impl PeerStream {
    fn new(stream: grpc::Accepted, place: OwnedSemaphorePermit) -> Self {
        let info = PeerInfo { address: stream.connect_info(), is_known: Arc::default() };
        let deadline = Box::pin(tokio::time::sleep(INTRODUCTION_TIMEOUT));
        Self { stream, info, deadline, _place: place }
    }
}

impl Connected for PeerStream {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.info.is_known.load(Ordering::Relaxed)
            && self.deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
