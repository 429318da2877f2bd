//! Packets: data with a checksum for each chunk.
//!
//! ```text
//! │ u32 length of itself, checksums and data │ u16 length of the header │ header │
//! │ u32 checksum of each chunk… │ data │
//! ```
//! A packet begins at a chunk boundary. So bytes after the last boundary are sent again together
//! with the bytes that follow them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::Crc;
use prost::Message;

use super::operation::{CHUNK_BYTES, CRC32C};
use crate::error::Defect;
use crate::pb;
use crate::wire::decode;

/// The maximum data length of a packet that is sent, in bytes: a multiple of the chunk length.
pub(crate) const DATA_BYTES_MAX: usize = 512 * CHUNK_BYTES;
/// The sequence number of heartbeat packets.
pub(crate) const HEARTBEAT: i64 = -1;

/// The maximum length of a packet that is read, in bytes, as in Hadoop's own reader.
const PACKET_BYTES_MAX: usize = 16 << 20;
/// The maximum length of a header; a header has about 25 bytes.
const HEADER_BYTES_MAX: usize = 1 << 10;
/// The length fields before the header.
const PREFIX_BYTES: usize = 4 + 2;
/// The number of CRC-32 among HDFS's checksums.
const CRC32: u32 = 1;

/// The header of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PacketHeader {
    /// The position of the data, in bytes from the beginning of the block.
    pub(crate) offset: u64,
    /// The number of the packet in its block, from 0.
    pub(crate) sequence: i64,
    /// Whether this is the last packet of the block; it has no data.
    pub(crate) is_last: bool,
    /// Whether the DataNode must sync the data to its disk before it acknowledges.
    pub(crate) sync: bool,
}

/// A packet that was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Packet {
    pub(crate) header: PacketHeader,
    checksums: Bytes,
    pub(crate) data: Bytes,
}

/// The checksums of a replica's chunks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Checksums {
    /// No checksums.
    Absent,
    /// CRC-32, over chunks of this many bytes.
    Crc32(usize),
    /// CRC-32C, over chunks of this many bytes.
    Crc32c(usize),
}

/// Encodes a packet. `data` has at most [`DATA_BYTES_MAX`] bytes.
pub(crate) fn encode_packet(header: PacketHeader, data: &[u8]) -> Bytes {
    let message = pb::PacketHeader {
        offset_in_block: header.offset as i64,
        sequence_number: header.sequence,
        last_in_block: header.is_last,
        data_length: data.len() as i32,
        sync_block: header.sync.then_some(true),
    };
    let checksums_bytes = 4 * data.len().div_ceil(CHUNK_BYTES);
    let payload_bytes = 4 + checksums_bytes + data.len();
    let header_bytes = message.encoded_len();
    let mut output = BytesMut::with_capacity(2 + header_bytes + payload_bytes);
    output.put_u32(payload_bytes as u32);
    output.put_u16(header_bytes as u16);
    // A BytesMut grows: encoding into it cannot fail.
    let _infallible = message.encode(&mut output);
    for chunk in data.chunks(CHUNK_BYTES) {
        output.put_u32(crc32c::crc32c(chunk));
    }
    output.put_slice(data);
    output.freeze()
}

/// Takes a packet from the front, if it is complete.
///
/// # Errors
/// Lengths that are too large or inconsistent, or an invalid header.
pub(crate) fn take_packet(input: &mut BytesMut) -> Result<Option<Packet>, Defect> {
    let Some(prefix) = input.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let [a, b, c, d, e, f] = *prefix;
    let payload_bytes = u32::from_be_bytes([a, b, c, d]) as usize;
    let header_bytes = u16::from_be_bytes([e, f]) as usize;
    if !(4..=PACKET_BYTES_MAX).contains(&payload_bytes) {
        return Err(too_long("packet", payload_bytes, PACKET_BYTES_MAX));
    }
    if header_bytes > HEADER_BYTES_MAX {
        return Err(too_long("header of a packet", header_bytes, HEADER_BYTES_MAX));
    }
    let body_bytes = payload_bytes - 4;
    let whole = PREFIX_BYTES + header_bytes + body_bytes;
    if input.len() < whole {
        input.reserve(whole - input.len());
        return Ok(None);
    }
    input.advance(PREFIX_BYTES);
    let message: pb::PacketHeader =
        decode("header of a packet", input.split_to(header_bytes).freeze())?;
    let mut checksums = input.split_to(body_bytes).freeze();
    let data_bytes = usize::try_from(message.data_length)
        .ok()
        .filter(|length| *length <= body_bytes)
        .ok_or(Defect::Value { what: "data length", value: message.data_length.into() })?;
    let data = checksums.split_off(body_bytes - data_bytes);
    let offset = u64::try_from(message.offset_in_block)
        .map_err(|_| Defect::Value { what: "offset", value: message.offset_in_block })?;
    let header = PacketHeader {
        offset,
        sequence: message.sequence_number,
        is_last: message.last_in_block,
        sync: message.sync_block(),
    };
    Ok(Some(Packet { header, checksums, data }))
}

fn too_long(what: &'static str, length: usize, length_max: usize) -> Defect {
    Defect::Length { what, length: length as u64, length_max: length_max as u64 }
}

// === impl Checksums ===

impl Checksums {
    /// The checksums that a DataNode announces for a replica.
    ///
    /// # Errors
    /// A type that HDFS does not have, or an invalid chunk length.
    pub(crate) fn new(message: &pb::Checksum) -> Result<Self, Defect> {
        let chunk = message.bytes_per_checksum as usize;
        if chunk == 0 || chunk > PACKET_BYTES_MAX {
            return Err(Defect::Value { what: "bytes per checksum", value: chunk as i64 });
        }
        match message.r#type {
            0 => Ok(Self::Absent),
            CRC32 => Ok(Self::Crc32(chunk)),
            CRC32C => Ok(Self::Crc32c(chunk)),
            other => Err(Defect::Value { what: "kind of checksum", value: other.into() }),
        }
    }
}

// === impl Packet ===

impl Packet {
    /// Verifies the data against its checksums.
    ///
    /// # Errors
    /// They differ, or the number of checksums is not the number of chunks.
    pub(crate) fn verify(&self, checksums: Checksums) -> Result<(), Defect> {
        let (chunk_bytes, checksum): (usize, fn(&[u8]) -> u32) = match checksums {
            Checksums::Absent => return Ok(()),
            Checksums::Crc32(chunk_bytes) => (chunk_bytes, crc32),
            Checksums::Crc32c(chunk_bytes) => (chunk_bytes, crc32c::crc32c),
        };
        let expected = 4 * self.data.len().div_ceil(chunk_bytes);
        if self.checksums.len() != expected {
            return Err(too_long("list of checksums", self.checksums.len(), expected));
        }
        let mut expected = self.checksums.clone();
        for (index, chunk) in self.data.chunks(chunk_bytes).enumerate() {
            if checksum(chunk) != expected.get_u32() {
                return Err(Defect::Checksum { offset: index * chunk_bytes });
            }
        }
        Ok(())
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(offset: u64, sequence: i64) -> PacketHeader {
        PacketHeader { offset, sequence, is_last: false, sync: false }
    }

    #[test]
    fn a_packet_has_the_bytes_that_hadoop_expects() {
        let last = PacketHeader { offset: 5, sequence: 1, is_last: true, sync: false };
        let expected: &[u8] = &[
            0, 0, 0, 4, 0, 25, // The length counts itself.
            0x09, 5, 0, 0, 0, 0, 0, 0, 0, // sfixed64 offset, little endian
            0x11, 1, 0, 0, 0, 0, 0, 0, 0, // sfixed64 sequence number
            0x18, 1, // last in block
            0x25, 0, 0, 0, 0, // sfixed32 data length
        ];
        assert_eq!(&encode_packet(last, &[])[..], expected);
    }

    #[test]
    fn checksums_are_those_of_crc32c_and_crc32() {
        let packet = encode_packet(header(0, 0), b"123456789");
        let mut read = take_packet(&mut BytesMut::from(&packet[..])).unwrap().unwrap();
        assert_eq!(&read.checksums[..], 0xe306_9283_u32.to_be_bytes());
        assert_eq!(read.verify(Checksums::Crc32c(512)), Ok(()));
        assert_eq!(read.verify(Checksums::Crc32(512)), Err(Defect::Checksum { offset: 0 }));
        read.checksums = Bytes::copy_from_slice(&0xcbf4_3926_u32.to_be_bytes());
        assert_eq!(read.verify(Checksums::Crc32(512)), Ok(()));
        assert!(read.verify(Checksums::Crc32(4)).is_err(), "three chunks need three checksums");
    }

    #[test]
    fn lengths_are_not_trusted() {
        let whole = encode_packet(header(0, 0), b"data");
        for (at, value) in [(0, 0xff), (3, 3), (4, 0xff)] {
            let mut bytes = BytesMut::from(&whole[..]);
            bytes[at] = value;
            assert!(take_packet(&mut bytes).is_err(), "byte {at} as {value}");
        }
        let longer = pb::PacketHeader { data_length: 5, ..Default::default() };
        let mut bytes = BytesMut::new();
        bytes.put_u32(4 + 4);
        bytes.put_u16(longer.encoded_len() as u16);
        longer.encode(&mut bytes).unwrap();
        bytes.put_slice(b"data");
        assert!(take_packet(&mut bytes).is_err());
    }

    proptest! {
        #[test]
        fn packets_come_back(
            data in prop::collection::vec(any::<u8>(), 0..3000),
            offset in 0..u64::MAX >> 1,
        ) {
            let header = PacketHeader { offset, sequence: 9, is_last: false, sync: true };
            let whole = encode_packet(header, &data);
            let mut input = BytesMut::from(&whole[..]);
            let packet = take_packet(&mut input).unwrap().unwrap();
            prop_assert_eq!(packet.header, header);
            prop_assert_eq!(&packet.data[..], &data[..]);
            prop_assert_eq!(packet.verify(Checksums::Crc32c(CHUNK_BYTES)), Ok(()));
            let cut = whole.len() / 2;
            prop_assert_eq!(take_packet(&mut BytesMut::from(&whole[..cut])), Ok(None));
        }

        #[test]
        fn a_flipped_bit_is_noticed(
            data in prop::collection::vec(any::<u8>(), 1..2000),
            at: usize,
            bit in 0..8_u8,
        ) {
            let mut whole = BytesMut::from(&encode_packet(header(0, 0), &data)[..]);
            let start = whole.len() - data.len();
            whole[start + at % data.len()] ^= 1 << bit;
            let packet = take_packet(&mut whole).unwrap().unwrap();
            prop_assert!(packet.verify(Checksums::Crc32c(CHUNK_BYTES)).is_err());
        }

        #[test]
        fn any_bytes_are_a_packet_or_a_defect(bytes: Vec<u8>) {
            if let Ok(Some(packet)) = take_packet(&mut BytesMut::from(&bytes[..])) {
                let _ = packet.verify(Checksums::Crc32c(CHUNK_BYTES));
            }
        }
    }
}
