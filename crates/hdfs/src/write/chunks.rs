//! Splits the bytes that are appended to a block into the data of packets.
//!
//! Invariant: each packet begins at a chunk boundary. The bytes of a chunk that was flushed before
//! it was full are kept, and are sent again in the next packet together with the bytes that follow.

use bytes::{Buf, Bytes, BytesMut};

use crate::transfer::operation::CHUNK_BYTES;
use crate::transfer::packet::DATA_BYTES_MAX;

/// The end of a block that is not completely sent yet.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// Where `tail` begins in the block: at a chunk boundary.
    boundary: u64,
    tail: BytesMut,
    /// How many bytes of `tail` have been sent: less than one chunk.
    sent: usize,
}

/// The data of one packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PacketData {
    /// The position of the data in the block.
    pub(super) offset: u64,
    pub(super) data: Bytes,
}

// === impl Chunks ===

impl Chunks {
    /// The length of the block in bytes, including all appended bytes.
    pub(super) fn length(&self) -> u64 {
        self.boundary + self.tail.len() as u64
    }

    /// Appends bytes.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// Takes the next full packet, if there is one.
    pub(super) fn take_full(&mut self) -> Option<PacketData> {
        (self.tail.len() >= DATA_BYTES_MAX).then(|| self.take(DATA_BYTES_MAX))
    }

    /// Takes all bytes that have not been sent. Must only be called if there is no full packet.
    pub(super) fn take_rest(&mut self) -> Option<PacketData> {
        (self.tail.len() > self.sent).then(|| self.take(self.tail.len()))
    }

    fn take(&mut self, length: usize) -> PacketData {
        let whole_chunks = length - length % CHUNK_BYTES;
        let data = Bytes::copy_from_slice(self.tail.get(..length).unwrap_or_default());
        let offset = self.boundary;
        self.tail.advance(whole_chunks);
        self.boundary += whole_chunks as u64;
        self.sent = length - whole_chunks;
        PacketData { offset, data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_chunk_that_is_not_full_is_sent_again() {
        let mut chunks = Chunks::default();
        assert_eq!(chunks.take_rest(), None);
        chunks.append(&[1; 500]);
        let packet_data = chunks.take_rest().unwrap();
        assert_eq!((packet_data.offset, packet_data.data.len()), (0, 500));
        assert_eq!(chunks.take_rest(), None, "all of it was sent");
        chunks.append(&[2; 20]);
        let packet_data = chunks.take_rest().unwrap();
        assert_eq!((packet_data.offset, packet_data.data.len()), (0, 520));
        chunks.append(&[3; 1]);
        let packet_data = chunks.take_rest().unwrap();
        assert_eq!(
            (packet_data.offset, &packet_data.data[..]),
            (512, &[2, 2, 2, 2, 2, 2, 2, 2, 3][..])
        );
    }

    proptest! {
        /// A DataNode that writes each packet at its offset has the appended bytes.
        #[test]
        fn the_packets_make_the_block(
            appends in prop::collection::vec((0..3000_usize, any::<bool>()), 1..60),
        ) {
            let (mut chunks, mut appended, mut written) = (Chunks::default(), vec![], vec![]);
            for (index, (length, flush)) in appends.into_iter().enumerate() {
                let length = if index == 7 { DATA_BYTES_MAX + length } else { length };
                let bytes: Vec<u8> = (0..length).map(|at| (index * 31 + at) as u8).collect();
                chunks.append(&bytes);
                appended.extend(bytes);
                let mut packets: Vec<PacketData> = Vec::new();
                packets.extend(std::iter::from_fn(|| chunks.take_full()));
                if flush {
                    packets.extend(chunks.take_rest());
                }
                for PacketData { offset, data } in packets {
                    let offset = offset as usize;
                    prop_assert!(offset.is_multiple_of(CHUNK_BYTES));
                    prop_assert!(data.len() <= DATA_BYTES_MAX);
                    prop_assert!(offset <= written.len(), "no gap");
                    prop_assert_eq!(&data[..written.len() - offset], &written[offset..]);
                    written.truncate(offset);
                    written.extend_from_slice(&data);
                }
                prop_assert_eq!(chunks.length() as usize, appended.len());
                if flush {
                    prop_assert_eq!(&written, &appended);
                }
            }
        }
    }
}
