//! The network seam: byte streams to `host:port`, and listeners that accept them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static> Stream for T {}

/// An open stream of the network in use.
pub type Connection = Box<dyn Stream>;

/// The network, as a role sees it.
#[derive(Clone)]
pub struct Network(Arc<dyn NetworkSource>);

/// Where a [`Network`] gets its connections.
#[async_trait]
pub trait NetworkSource: Send + Sync + 'static {
    /// Opens a connection to `address` (`host:port`). Has no timeout; the caller sets one.
    async fn connect(&self, address: &str) -> io::Result<Connection>;

    /// Listens on `address`. Port 0 selects a free port.
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>>;
}

/// A bound address that accepts connections.
#[async_trait]
pub trait Listener: Send + 'static {
    /// Waits for the next connection and the peer's address. Cancel safe.
    async fn accept(&mut self) -> io::Result<(Connection, SocketAddr)>;

    /// The address of the listener, with the actual port.
    fn local_address(&self) -> io::Result<SocketAddr>;
}

/// TCP, with `TCP_NODELAY` on every connection because all our protocols send whole messages.
#[derive(Clone, Copy, Debug)]
pub struct TcpNetwork;

/// A listening TCP socket.
struct TcpListener(tokio::net::TcpListener);

/// How many connections may wait to be accepted.
const ACCEPT_BACKLOG: i32 = 1024;

// === impl Network ===

impl Network {
    /// A network that gets its connections from `source`.
    pub fn new(source: impl NetworkSource) -> Self {
        Self(Arc::new(source))
    }

    /// See [`NetworkSource::connect`].
    ///
    /// # Errors
    /// Errors of the operating system: connection refused, unreachable, no such host.
    pub async fn connect(&self, address: &str) -> io::Result<Connection> {
        self.0.connect(address).await
    }

    /// See [`NetworkSource::listen`].
    ///
    /// # Errors
    /// Errors of the operating system, with the address in the message.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        self.0.listen(address).await.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        })
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Network")
    }
}

// === impl TcpNetwork ===

#[async_trait]
impl NetworkSource for TcpNetwork {
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    async fn connect(&self, address: &str) -> io::Result<Connection> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A server that was killed a moment ago may have left its port in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(ACCEPT_BACKLOG)?;
        Ok(Box::new(TcpListener(tokio::net::TcpListener::from_std(socket.into())?)))
    }
}

// === impl TcpListener ===

#[async_trait]
impl Listener for TcpListener {
    async fn accept(&mut self) -> io::Result<(Connection, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), peer))
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn bytes_cross_a_connection() {
        let network = Network::new(TcpNetwork);
        let mut listener = network.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_address().unwrap().to_string();
        let mut client = network.connect(&address).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        client.write_all(b"basalt").await.unwrap();
        let mut received = [0; 6];
        server.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"basalt");
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let network = Network::new(TcpNetwork);
        let listener = network.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_address().unwrap();
        let error = network.listen(address).await.err().unwrap();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
