//! Frames: the records that are written between two syncs.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::wire::v1;

/// The length of the head of a frame, which is before its records.
pub(super) const HEAD_BYTES: usize = 16;
/// The most bytes that the records of a frame may take. The largest single record is one entry: a
/// client's request, which is bounded by the frame of its protocol.
pub(super) const RECORDS_BYTES_MAX: usize = 64 << 20;

/// A frame that was read.
#[derive(Debug)]
pub(super) struct Frame {
    /// Its records, each preceded by its length.
    pub(super) records: Bytes,
    /// Where the next frame begins.
    pub(super) end: u64,
}

/// What was found at an offset of a segment.
#[derive(Debug)]
pub(super) enum Found {
    /// A whole frame.
    Frame(Frame),
    /// The end of the segment.
    End,
    /// Bytes that are not a whole frame.
    Damage,
}

/// Splits records into parts that each fit into a frame. Each part has at least one record. Records
/// that are written at once may be longer than one frame may be.
pub(super) fn split(records: &[v1::LogRecord]) -> impl Iterator<Item = &[v1::LogRecord]> {
    let mut bytes = 0;
    records.chunk_by(move |before, _| {
        bytes += before.encoded_len();
        let fits = bytes <= RECORDS_BYTES_MAX / 2;
        if !fits {
            bytes = 0;
        }
        fits
    })
}

/// Encodes a frame of `records` at `offset`.
pub(super) fn encode(offset: u64, records: &[v1::LogRecord]) -> Bytes {
    let records_bytes = records
        .iter()
        .map(|record| {
            let length = record.encoded_len();
            prost::length_delimiter_len(length) + length
        })
        .sum::<usize>();
    let mut output = BytesMut::with_capacity(HEAD_BYTES + records_bytes);
    output.put_u32(u32::try_from(records_bytes).unwrap_or(u32::MAX));
    output.put_u32(0);
    output.put_u64(offset);
    for record in records {
        let encoded = record.encode_length_delimited(&mut output);
        debug_assert!(encoded.is_ok(), "a BytesMut grows");
    }
    let checksum = crc32c::crc32c(output.get(8..).unwrap_or_default());
    if let Some(place) = output.get_mut(4..8) {
        place.copy_from_slice(&checksum.to_be_bytes());
    }
    output.freeze()
}

/// Reads the frame at `offset` of `segment`.
pub(super) fn read(segment: &Bytes, offset: u64) -> Found {
    let Some(mut rest) = usize::try_from(offset)
        .ok()
        .filter(|start| *start <= segment.len())
        .map(|start| segment.slice(start..))
    else {
        return Found::Damage;
    };
    if rest.is_empty() {
        return Found::End;
    }
    if rest.len() < HEAD_BYTES {
        return Found::Damage;
    }
    let length = rest.get_u32() as usize;
    let checksum = rest.get_u32();
    const OFFSET_BYTES: usize = 8;
    if length > RECORDS_BYTES_MAX || rest.len() - OFFSET_BYTES < length {
        return Found::Damage;
    }
    let mut covered = rest.split_to(OFFSET_BYTES + length);
    if crc32c::crc32c(&covered) != checksum || covered.get_u64() != offset {
        return Found::Damage;
    }
    Found::Frame(Frame { end: offset + (HEAD_BYTES + length) as u64, records: covered })
}

/// Whether there is a whole frame anywhere above `offset`. If so, the bytes at `offset` were
/// synced.
pub(super) fn any_above(segment: &Bytes, offset: u64) -> bool {
    let bytes: &[u8] = segment;
    let first = usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(1);
    let last = bytes.len().saturating_sub(HEAD_BYTES);
    (first..=last).any(|start| {
        // The offset field rules out nearly all other places at once.
        let place = bytes.get(start + 8..start + HEAD_BYTES);
        place == Some(&(start as u64).to_be_bytes()[..])
            && matches!(read(segment, start as u64), Found::Frame(_))
    })
}

/// The records of a frame.
pub(super) fn records(frame: &Frame) -> Result<Vec<v1::LogRecord>, prost::DecodeError> {
    let mut input = frame.records.clone();
    let mut records = Vec::new();
    while !input.is_empty() {
        records.push(v1::LogRecord::decode_length_delimited(&mut input)?);
    }
    Ok(records)
}
