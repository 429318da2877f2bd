//! The network seam over turmoil's simulated TCP.
//!
//! turmoil takes down a whole machine, which then does not answer at all. Here only a process dies,
//! and the kernel of its machine refuses further connections at once. So this file checks whether
//! the process is up. turmoil's own partitions drop segments, and no TCP retransmits them. So data
//! that is cut off is held back here, at the end that reads it; see `crate::links`.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use basalt_runtime::{Connection, Listener, NetworkSource};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::links::{LinkedEnd, Links, Passage};
use crate::process::Processes;
use crate::trace::Trace;

/// How long it takes until a connection is refused because no process listens.
const REFUSAL_TIME: Duration = Duration::from_millis(1);
/// How long the kernel tries to connect to a machine that does not answer.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(60);

/// The network as one process sees it.
pub struct SimulatedNetwork {
    process: Arc<str>,
    processes: Processes,
    links: Links,
    trace: Trace,
}

struct SimulatedListener {
    listener: turmoil::net::TcpListener,
    process: Arc<str>,
    links: Links,
    trace: Trace,
}

/// A stream whose link may be held or refused, and whose writes are recorded in the trace.
struct LinkedStream {
    stream: turmoil::net::TcpStream,
    from: Arc<str>,
    /// The address of the other end, as the trace names it.
    to: Arc<str>,
    link: LinkedEnd,
    trace: Trace,
}

// === impl SimulatedNetwork ===

impl SimulatedNetwork {
    pub(crate) fn new(process: Arc<str>, processes: Processes, links: Links, trace: Trace) -> Self {
        Self { process, processes, links, trace }
    }

    async fn open(&self, host: &Arc<str>, address: &str) -> io::Result<turmoil::net::TcpStream> {
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, address.to_owned());
        let opened = self.links.open(&self.process, host);
        if tokio::time::timeout(CONNECT_TIME_MAX, opened).await.is_err() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, address.to_owned()));
        }
        if !self.processes.is_up(host) || self.links.is_refused(&self.process, host) {
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
        let host: Arc<str> = address.rsplit_once(':').map_or(address, |(host, _)| host).into();
        let link = self.links.connection(&self.process, &host);
        match self.open(&host, address).await {
            Ok(stream) => {
                self.trace.record(format_args!("{}: connected to {address}", self.process));
                Ok(Box::new(LinkedStream {
                    stream,
                    from: Arc::clone(&self.process),
                    to: address.into(),
                    link,
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
        Ok(Box::new(SimulatedListener { listener, process, links: self.links.clone(), trace }))
    }
}

// === impl SimulatedListener ===

#[async_trait]
impl Listener for SimulatedListener {
    async fn accept(&mut self) -> io::Result<(Connection, SocketAddr)> {
        let (stream, address) = self.listener.accept().await?;
        let name = turmoil::reverse_lookup(address.ip());
        let peer: Arc<str> = name.unwrap_or_else(|| address.ip().to_string()).into();
        let linked = LinkedStream {
            stream,
            from: Arc::clone(&self.process),
            to: address.to_string().into(),
            link: self.links.connection(&self.process, &peer),
            trace: self.trace.clone(),
        };
        Ok((Box::new(linked), address))
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

// === impl LinkedStream ===

impl LinkedStream {
    /// While no data arrives from the other end, no error does either.
    fn unheard<T>(&self, result: io::Result<T>, otherwise: T) -> io::Result<T> {
        match result {
            Err(_) if self.link.is_unheard() => Ok(otherwise),
            result => result,
        }
    }
}

impl AsyncRead for LinkedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(self.link.poll_read(context)) {
            Passage::Open => Pin::new(&mut self.stream).poll_read(context, buffer),
            Passage::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncWrite for LinkedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.link.is_reset() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        let written = self.unheard(written, bytes.len())?;
        self.trace.note_network_write(&self.from, &self.to, written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(context));
        Poll::Ready(self.unheard(flushed, ()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
