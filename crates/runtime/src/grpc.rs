//! gRPC over the network seam: tonic channels and servers on [`Network`]'s connections.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream as AsyncStream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};

use crate::{Connection, Listener, Network};

/// The largest gRPC message that any of our services takes or sends, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A lazily connecting channel to `address` (`host:port`) over `network`.
/// Each attempt to connect has `connect_timeout`; each request gets its own deadline from its caller.
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

/// The accepted connections of `listener`, as tonic's `serve_with_incoming` takes them.
/// An error of a single accept (out of file descriptors, say) is passed on; tonic logs it and goes on.
pub fn incoming(listener: Box<dyn Listener>) -> impl AsyncStream<Item = io::Result<Accepted>> {
    futures::stream::unfold(listener, |mut listener| async move {
        let accepted = listener.accept().await;
        Some((accepted.map(|(connection, peer)| Accepted { connection, peer }), listener))
    })
}

/// One accepted connection; its peer's address is each request's connect info.
pub struct Accepted {
    connection: Connection,
    peer: SocketAddr,
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
        Pin::new(&mut self.connection).poll_read(context, buffer)
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
