//! One connection to a server: opens it, and buffers its output.

use std::io;
use std::time::Duration;

use basalt_runtime::{Connection, Network};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::Instant;

use crate::proto::frame::{self, FRAME_BYTES_MAX, FrameReader};
use crate::proto::{ConnectRequest, ConnectResponse, Decode, Encode};

/// A connection on which the server has answered the first message.
pub(super) struct Link {
    reader: FrameReader<ReadHalf<Connection>>,
    writer: WriteHalf<Connection>,
    /// Output that has been sent and is not yet written.
    output: BytesMut,
    /// When something was last sent.
    pub(super) last_sent: Instant,
    /// When something was last received.
    pub(super) last_received: Instant,
}

/// The result of a step of a link.
pub(super) enum Progress {
    /// Some output was written.
    Written,
    /// A frame was received.
    Received(bytes::Bytes),
}

// === impl Link ===

impl Link {
    /// Opens a connection to `address` and sends `request`, within `timeout`.
    pub(super) async fn open(
        network: &Network,
        address: &str,
        request: &ConnectRequest,
        timeout: Duration,
    ) -> io::Result<(Self, ConnectResponse)> {
        match tokio::time::timeout(timeout, Self::shake_hands(network, address, request)).await {
            Ok(opened) => opened,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no session within {timeout:?}"),
            )),
        }
    }

    async fn shake_hands(
        network: &Network,
        address: &str,
        request: &ConnectRequest,
    ) -> io::Result<(Self, ConnectResponse)> {
        let (reader, mut writer) = tokio::io::split(network.connect(address).await?);
        let mut reader = FrameReader::new(reader, FRAME_BYTES_MAX);
        frame::write(&mut writer, &[request]).await?;
        let answer = reader.next().await.map_err(io::Error::other)?;
        // A server closes the connection if it has seen less than this client, or has no leader.
        let answer = answer.ok_or_else(|| io::Error::other("closed without an answer"))?;
        let response = ConnectResponse::from_message(answer).map_err(io::Error::other)?;
        let now = Instant::now();
        let link =
            Self { reader, writer, output: BytesMut::new(), last_sent: now, last_received: now };
        Ok((link, response))
    }

    /// Queues the frame of `records` and counts it as sent. [`Link::step`] writes it.
    pub(super) fn send(&mut self, records: &[&dyn Encode]) {
        self.output.extend_from_slice(&frame::encode(records));
        self.last_sent = Instant::now();
    }

    /// How many bytes are sent and not yet written.
    pub(super) fn unwritten_bytes(&self) -> usize {
        self.output.len()
    }

    /// Writes some output or reads a frame, whichever is possible first. Cancel safe.
    pub(super) async fn step(&mut self) -> io::Result<Progress> {
        tokio::select! {
            biased;
            written = self.writer.write(&self.output), if !self.output.is_empty() => {
                match written? {
                    0 => Err(io::ErrorKind::WriteZero.into()),
                    bytes => {
                        self.output.advance(bytes);
                        Ok(Progress::Written)
                    }
                }
            }
            frame = self.reader.next() => match frame.map_err(io::Error::other)? {
                Some(frame) => {
                    self.last_received = Instant::now();
                    Ok(Progress::Received(frame))
                }
                None => Err(io::Error::other("closed by the server")),
            }
        }
    }
}
