//! Reads a range of one block from one DataNode.

use std::sync::Arc;

use basalt_runtime::{Connection as Stream, Network};
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};
use tracing::trace;

use super::connections::IdleConnections;
use crate::config::HdfsConfig;
use crate::data_node::transfer_address;
use crate::error::{Defect, Error, Result};
use crate::pb;
use crate::rpc::connect;
use crate::transfer::operation::{ReadBlock, bad, lost, read_more, read_response};
use crate::transfer::packet::{Checksums, take_packet};
use crate::wire::put_delimited;

/// The shared state of all reads.
#[derive(Debug)]
pub(super) struct BlockReads {
    pub(super) network: Network,
    pub(super) config: Arc<HdfsConfig>,
    pub(super) client_name: Arc<str>,
    pub(super) idle: IdleConnections,
}

/// A range of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockRange<'a> {
    pub(super) located: &'a pb::LocatedBlock,
    /// In bytes from the beginning of the block.
    pub(super) offset: u64,
    /// At least 1.
    pub(super) length: usize,
}

/// Assembles the data of packets.
#[derive(Debug)]
struct Gathered {
    /// Where the next packet must begin, in bytes from the beginning of the block.
    next: u64,
    /// How many bytes at the front of the first packets precede the range.
    skip: u64,
    bytes: BytesMut,
    length: usize,
    checksums: Checksums,
}

// === impl BlockReads ===

impl BlockReads {
    /// Reads the range from `node`. Each wait has its own timeout. The returned bytes match their
    /// checksums.
    ///
    /// # Errors
    /// The DataNode cannot be reached, rejects the read, stops sending, or sends invalid data.
    pub(super) async fn read(
        &self,
        node: &pb::DatanodeInfo,
        range: BlockRange<'_>,
    ) -> Result<Bytes> {
        let (server, asked) = (transfer_address(node), Instant::now());
        let read = self.read_from(&server, range).await;
        let (length, took) = (range.length, asked.elapsed());
        trace!(%server, length, ?took, ok = read.is_ok(), "read from a DataNode");
        read
    }

    async fn read_from(&self, server: &Arc<str>, range: BlockRange<'_>) -> Result<Bytes> {
        if let Some(stream) = self.idle.take(server) {
            match self.read_by(stream, server, range).await {
                // Most likely closed by the DataNode while it was idle.
                Err(Error::Lost { .. }) => {}
                result => return result,
            }
        }
        let stream = connect(&self.network, server, self.config.connect_timeout).await?;
        self.read_by(stream, server, range).await
    }

    async fn read_by(
        &self,
        mut stream: Stream,
        server: &Arc<str>,
        range: BlockRange<'_>,
    ) -> Result<Bytes> {
        let request = ReadBlock {
            block: &range.located.block,
            token: &range.located.token,
            client_name: &self.client_name,
            offset: range.offset,
            length: range.length as u64,
        };
        let (mut output, mut input) = (BytesMut::new(), BytesMut::new());
        request.put(&mut output);
        let asking = async {
            stream.write_all(&output).await.map_err(|error| lost(server, error))?;
            read_response(server, &mut stream, &mut input).await
        };
        let response = self.within(server, asking).await?;
        let mut gathered = Gathered::new(&response, range).map_err(|defect| bad(server, defect))?;
        loop {
            match take_packet(&mut input).map_err(|defect| bad(server, defect))? {
                Some(packet) if packet.header.is_last => break,
                Some(packet) => gathered.add(&packet).map_err(|defect| bad(server, defect))?,
                None => self.within(server, read_more(server, &mut stream, &mut input)).await?,
            }
        }
        let bytes = gathered.finish().map_err(|defect| bad(server, defect))?;
        if self.confirm(server, &mut stream).await.is_ok() && input.is_empty() {
            self.idle.keep(server, stream);
        }
        Ok(bytes)
    }

    /// Confirms to the DataNode that its checksums were right. It reads that before the next
    /// request.
    async fn confirm(&self, server: &Arc<str>, stream: &mut Stream) -> Result<()> {
        let mut output = BytesMut::new();
        let status = pb::ClientReadStatus { status: pb::Status::ChecksumOk.into() };
        put_delimited(&status, &mut output);
        let writing =
            async { stream.write_all(&output).await.map_err(|error| lost(server, error)) };
        self.within(server, writing).await
    }

    async fn within<T>(
        &self,
        server: &Arc<str>,
        operation: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let limit = self.config.read_timeout;
        let timed_out =
            |_| Error::TimedOut { server: Arc::clone(server), what: "reading a block", limit };
        timeout(limit, operation).await.map_err(timed_out)?
    }
}

// === impl Gathered ===

impl Gathered {
    fn new(response: &pb::BlockOpResponse, range: BlockRange<'_>) -> Result<Self, Defect> {
        let info = response
            .read_checksum
            .as_ref()
            .ok_or(Defect::CutOff { what: "the response to a read" })?;
        let beyond = || Defect::Value { what: "first offset", value: info.chunk_offset as i64 };
        Ok(Self {
            next: info.chunk_offset,
            skip: range.offset.checked_sub(info.chunk_offset).ok_or_else(beyond)?,
            bytes: BytesMut::with_capacity(range.length),
            length: range.length,
            checksums: Checksums::new(&info.checksum)?,
        })
    }

    fn add(&mut self, packet: &crate::transfer::packet::Packet) -> Result<(), Defect> {
        if packet.header.offset != self.next {
            let value = packet.header.offset as i64;
            return Err(Defect::Value { what: "offset of a packet", value });
        }
        packet.verify(self.checksums)?;
        self.next += packet.data.len() as u64;
        let skip = self.skip.min(packet.data.len() as u64);
        self.skip -= skip;
        // `skip` is at most the length of the packet.
        let wanted = packet.data.slice(skip as usize..);
        let missing = self.length - self.bytes.len();
        self.bytes.extend_from_slice(wanted.get(..missing.min(wanted.len())).unwrap_or_default());
        Ok(())
    }

    fn finish(self) -> Result<Bytes, Defect> {
        if self.bytes.len() < self.length {
            return Err(Defect::CutOff { what: "the requested range" });
        }
        Ok(self.bytes.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::packet::{Packet, PacketHeader, encode_packet};

    fn response(chunk_offset: u64) -> pb::BlockOpResponse {
        let checksum = pb::Checksum { r#type: 2, bytes_per_checksum: 512 };
        let read_checksum = Some(pb::ReadChecksumInfo { checksum, chunk_offset });
        pb::BlockOpResponse { read_checksum, ..Default::default() }
    }

    fn packet(offset: u64, data: &[u8]) -> Packet {
        let header = PacketHeader { offset, sequence: 0, is_last: false, sync: false };
        let bytes = encode_packet(header, data);
        take_packet(&mut BytesMut::from(&bytes[..])).unwrap().unwrap()
    }

    #[test]
    fn a_range_is_cut_out_of_whole_chunks() {
        let located = pb::LocatedBlock::default();
        let range = BlockRange { located: &located, offset: 1000, length: 100 };
        let data: Vec<u8> = (0..1024).map(|at| (at / 10) as u8).collect();
        let mut gathered = Gathered::new(&response(512), range).unwrap();
        gathered.add(&packet(512, &data[512..1024])).unwrap();
        gathered.add(&packet(1024, &[7; 512])).unwrap();
        let bytes = gathered.finish().unwrap();
        assert_eq!(&bytes[..24], &data[1000..]);
        assert_eq!(&bytes[24..], &[7; 76]);
    }

    #[test]
    fn what_does_not_fit_is_a_defect() {
        let located = pb::LocatedBlock::default();
        let range = BlockRange { located: &located, offset: 100, length: 100 };
        assert!(Gathered::new(&response(512), range).is_err(), "it begins behind the range");
        assert!(Gathered::new(&pb::BlockOpResponse::default(), range).is_err());
        let mut gathered = Gathered::new(&response(0), range).unwrap();
        assert!(gathered.add(&packet(512, &[0; 512])).is_err(), "a gap");
        gathered.add(&packet(0, &[0; 150])).unwrap();
        assert!(gathered.finish().is_err(), "50 bytes are missing");
    }
}
