//! One DataNode of a block that is being written: a pipeline with itself as the only member.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use basalt_runtime::Connection as Stream;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout};

use super::block::Progress;
use crate::config::HdfsConfig;
use crate::data_node::transfer_address;
use crate::error::{Defect, Error, Result};
use crate::pb;
use crate::rpc::connect;
use crate::transfer::operation::{WriteBlock, bad, lost, read_more, read_response};
use crate::transfer::packet::{HEARTBEAT, PacketHeader, encode_packet};
use crate::wire::take_delimited;
use basalt_runtime::Network;

/// The maximum length of an acknowledgement, in bytes: it has one reply.
const ACK_BYTES_MAX: usize = 4 << 10;
/// How often overdue acknowledgements are checked, per timeout.
const LOOKS_PER_TIMEOUT: u32 = 8;

/// A DataNode that is ready to accept packets.
pub(super) struct NodeStream {
    pub(super) node: pb::DatanodeInfo,
    pub(super) server: Arc<str>,
    stream: Stream,
    /// Bytes received after its response.
    input: BytesMut,
}

/// The location of a new replica.
pub(super) struct Target<'a> {
    pub(super) located: &'a pb::LocatedBlock,
    /// The index of the location in `located`.
    pub(super) index: usize,
    pub(super) client_name: &'a str,
}

// === impl NodeStream ===

impl NodeStream {
    /// Connects, and creates an empty replica of the block.
    ///
    /// # Errors
    /// The DataNode cannot be reached in time, or rejects the request.
    pub(super) async fn open(
        network: &Network,
        config: &HdfsConfig,
        node: &pb::DatanodeInfo,
        target: Target<'_>,
    ) -> Result<Self> {
        let server = transfer_address(node);
        let mut stream = connect(network, &server, config.connect_timeout).await?;
        let Target { located, index, client_name } = target;
        let storage_type = located.storage_types.get(index).copied();
        let request = WriteBlock {
            block: &located.block,
            token: &located.token,
            client_name,
            stage: pb::op_write_block::Stage::PipelineSetupCreate,
            bytes_received_max: 0,
            storage_type: storage_type.and_then(|kind| pb::StorageType::try_from(kind).ok()),
            storage_id: located.storage_ids.get(index).cloned(),
        };
        let (mut output, mut input) = (BytesMut::new(), BytesMut::new());
        request.put(&mut output);
        let limit = config.ack_timeout;
        let set_up = timeout(limit, async {
            stream.write_all(&output).await.map_err(|error| lost(&server, error))?;
            read_response(&server, &mut stream, &mut input).await
        });
        match set_up.await {
            Ok(response) => response?,
            Err(_) => return Err(Error::TimedOut { server, what: "setting up a block", limit }),
        };
        Ok(Self { node: node.clone(), server, stream, input })
    }

    /// Sends a heartbeat. If this fails, the first packet will show it.
    pub(super) async fn beat(&mut self, config: &HdfsConfig) {
        let packet = heartbeat();
        let sending = self.stream.write_all(&packet);
        let _shows_later = timeout(config.heartbeat_interval, sending).await;
    }

    /// Sends packets and reads acknowledgements until either fails, or the last packet of the block
    /// is acknowledged. The DataNode then closes the connection.
    pub(super) async fn run(
        self,
        index: usize,
        packets: mpsc::Receiver<Bytes>,
        progress: &Progress,
        config: &HdfsConfig,
    ) -> Result<()> {
        let Self { server, stream, input, .. } = self;
        let (reader, writer) = tokio::io::split(stream);
        tokio::select! {
            biased;
            ended = read_acks(reader, input, index, &server, progress, config.ack_timeout) => ended,
            error = write_packets(writer, packets, &server, config) => Err(error),
        }
    }
}

async fn write_packets(
    mut stream: WriteHalf<Stream>,
    mut packets: mpsc::Receiver<Bytes>,
    server: &Arc<str>,
    config: &HdfsConfig,
) -> Error {
    let limit = config.ack_timeout;
    loop {
        let packet = match timeout(config.heartbeat_interval, packets.recv()).await {
            Ok(Some(packet)) => packet,
            // The writer was dropped, so this task will be cancelled.
            Ok(None) => return pending().await,
            Err(_) => heartbeat(),
        };
        match timeout(limit, stream.write_all(&packet)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return lost(server, error),
            Err(_) => {
                let server = Arc::clone(server);
                return Error::TimedOut { server, what: "sending a packet", limit };
            }
        }
    }
}

fn heartbeat() -> Bytes {
    encode_packet(PacketHeader { offset: 0, sequence: HEARTBEAT, is_last: false, sync: false }, &[])
}

async fn read_acks(
    mut stream: ReadHalf<Stream>,
    mut input: BytesMut,
    index: usize,
    server: &Arc<str>,
    progress: &Progress,
    limit: Duration,
) -> Result<()> {
    let mut look = interval(limit / LOOKS_PER_TIMEOUT);
    loop {
        while let Some(ack) = take_delimited("acknowledgement", ACK_BYTES_MAX, &mut input)
            .map_err(|defect| bad(server, defect))?
        {
            take_ack(&ack, index, server, progress)?;
        }
        if progress.is_done(index) {
            return Ok(());
        }
        tokio::select! {
            biased;
            // Reading is cancel safe: the bytes are in `input`.
            read = read_more(server, &mut stream, &mut input) => read?,
            _ = look.tick() => {
                if progress.is_overdue(index, Instant::now()) {
                    let server = Arc::clone(server);
                    return Err(Error::TimedOut { server, what: "acknowledging a packet", limit });
                }
            }
        }
    }
}

fn take_ack(
    ack: &pb::PipelineAck,
    index: usize,
    server: &Arc<str>,
    progress: &Progress,
) -> Result<()> {
    let reply = ack.replies.first().copied().unwrap_or(pb::Status::Error.into());
    if ack.replies.len() != 1 || reply != i32::from(pb::Status::Success) {
        let status = pb::Status::try_from(reply).unwrap_or(pb::Status::Error);
        return Err(Error::Refused {
            server: Arc::clone(server),
            status: status.as_str_name(),
            message: "a packet".into(),
        });
    }
    if ack.sequence_number == HEARTBEAT {
        return Ok(());
    }
    progress.acknowledged(index, ack.sequence_number).map_err(|expected| {
        let value = ack.sequence_number - expected;
        bad(server, Defect::Value { what: "acknowledgement's distance from the next", value })
    })
}
