//! The network seam over turmoil's simulated TCP.
//!
//! turmoil takes down a whole machine: what is sent to it is not answered. Here it is a process
//! that dies, and the machine's kernel refuses further connections at once; so this file looks
//! whether the process is up. A silent machine is a matter of partitions.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use basalt_runtime::{Connection, Listener, NetworkSource};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::process::Processes;
use crate::trace::Trace;

/// How long the answer takes that nobody listens.
const REFUSAL_TIME: Duration = Duration::from_millis(1);

/// The network as one process sees it.
pub struct SimulatedNetwork {
    process: Arc<str>,
    processes: Processes,
    trace: Trace,
}

struct SimulatedListener {
    listener: turmoil::net::TcpListener,
    process: Arc<str>,
    trace: Trace,
}

/// A stream whose writes are noted in the trace.
struct TracedStream {
    stream: turmoil::net::TcpStream,
    from: Arc<str>,
    to: Arc<str>,
    trace: Trace,
}

// === impl SimulatedNetwork ===

impl SimulatedNetwork {
    pub(crate) fn new(process: Arc<str>, processes: Processes, trace: Trace) -> Self {
        Self { process, processes, trace }
    }

    async fn open(&self, address: &str) -> io::Result<turmoil::net::TcpStream> {
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, address.to_owned());
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        if !self.processes.is_up(host) {
            tokio::time::sleep(REFUSAL_TIME).await;
            return Err(refused());
        }
        tokio::select! {
            biased;
            connected = turmoil::net::TcpStream::connect(address) => connected,
            () = self.processes.down(host) => Err(refused()),
        }
    }
}

#[async_trait]
impl NetworkSource for SimulatedNetwork {
    async fn connect(&self, address: &str) -> io::Result<Connection> {
        match self.open(address).await {
            Ok(stream) => {
                self.trace.record(format_args!("{}: connected to {address}", self.process));
                Ok(Box::new(TracedStream {
                    stream,
                    from: Arc::clone(&self.process),
                    to: address.into(),
                    trace: self.trace.clone(),
                }))
            }
            Err(error) => {
                self.trace.record(format_args!(
                    "{}: no connection to {address}: {}",
                    self.process,
                    error.kind()
                ));
                Err(error)
            }
        }
    }

    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let listener = turmoil::net::TcpListener::bind(address).await?;
        let (process, trace) = (Arc::clone(&self.process), self.trace.clone());
        Ok(Box::new(SimulatedListener { listener, process, trace }))
    }
}

// === impl SimulatedListener ===

#[async_trait]
impl Listener for SimulatedListener {
    async fn accept(&mut self) -> io::Result<(Connection, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        let traced = TracedStream {
            stream,
            from: Arc::clone(&self.process),
            to: peer.to_string().into(),
            trace: self.trace.clone(),
        };
        Ok((Box::new(traced), peer))
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

// === impl TracedStream ===

impl AsyncRead for TracedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for TracedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.trace.note_network_write(&self.from, &self.to, written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
