//! Edits: the content of one record of the log.
//!
//! ```text
//! record │ u32 length of the body │ u32 crc32c of length and body │ body │
//! body   │ region 16 │ u64 region epoch │ u64 write time ms │ u8 flags │
//!        │ [u64 nonce group │ u64 nonce] │ u32 cells │ cells… │ u64 sequence id │
//! cell   │ u32 length │ the cell with its tags │
//! ```
//! All numbers are big endian. The sequence id comes last because it is known last. A region
//! assigns it under its lock, so everything else, including most of the checksum, is computed
//! before.

use basalt_model::{Cell, EncodedRegionName, RegionEpoch, SequenceId};
use basalt_planted::{Rule, is_off};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use crc32c::{crc32c, crc32c_append};

use super::error::{Defect, Error, Result};

/// The longest body of a record.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// The bytes before the body: its length and the checksum.
pub(super) const RECORD_PREFIX_BYTES: usize = 8;
/// The shortest body: no nonce and no cells.
pub(super) const RECORD_BYTES_MIN: usize = HEAD_BYTES + 4 + SEQUENCE_ID_BYTES;

/// Region, epoch, write time, flags.
const HEAD_BYTES: usize = 16 + 8 + 8 + 1;
const SEQUENCE_ID_BYTES: usize = 8;
/// The flag of a record that carries a nonce.
const HAS_NONCE: u8 = 1;
/// The shortest possible cell in a record: its length, and a cell without row or value.
const CELL_BYTES_MIN: usize = 4 + 8 + 12;

/// Names an operation of a client, so that a retry is recognized.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Nonce {
    /// The client.
    pub group: u64,
    /// The operation of that client.
    pub nonce: u64,
}

/// Cells that one region applied atomically, under one sequence id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Edit {
    /// The region.
    pub region: EncodedRegionName,
    /// The region epoch under which it was written.
    pub epoch: RegionEpoch,
    /// Its position among the edits of the region; all cells carry it.
    pub sequence_id: SequenceId,
    /// When the server wrote it, in milliseconds since 1970.
    pub write_time_ms: u64,
    /// The nonce of the client's operation, if it has one.
    pub nonce: Option<Nonce>,
    /// The cells that it adds.
    pub cells: Vec<Cell>,
}

/// An edit that is encoded for the log except for its sequence id.
#[derive(Clone, Debug)]
pub struct EncodedEdit {
    region: EncodedRegionName,
    /// The body up to the sequence id.
    body: Bytes,
    /// The checksum of the length and of `body`.
    checksum: u32,
}

/// The parts of a record that say to which region and owner it belongs, and where in its order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct RecordIdentity {
    pub(super) region: EncodedRegionName,
    pub(super) epoch: RegionEpoch,
    pub(super) sequence_id: SequenceId,
}

// === impl EncodedEdit ===

impl EncodedEdit {
    /// Encodes an edit. The sequence ids of the cells are ignored.
    ///
    /// # Errors
    /// [`Error::EditTooLong`] if the body would exceed [`RECORD_BYTES_MAX`].
    pub fn new(
        region: EncodedRegionName,
        epoch: RegionEpoch,
        write_time_ms: u64,
        nonce: Option<Nonce>,
        cells: &[Cell],
    ) -> Result<Self> {
        let nonce = nonce.filter(|_| !is_off(Rule::NonceInWal));
        let cells_bytes: usize = cells.iter().map(|cell| 4 + cell.bytes().len()).sum();
        let nonce_bytes = if nonce.is_some() { 16 } else { 0 };
        let bytes = HEAD_BYTES + nonce_bytes + 4 + cells_bytes;
        if bytes + SEQUENCE_ID_BYTES > RECORD_BYTES_MAX {
            return Err(Error::EditTooLong {
                bytes: bytes + SEQUENCE_ID_BYTES,
                bytes_max: RECORD_BYTES_MAX,
            });
        }
        let mut body = BytesMut::with_capacity(bytes);
        body.put_slice(region.digest());
        body.put_u64(epoch.0);
        body.put_u64(write_time_ms);
        body.put_u8(if nonce.is_some() { HAS_NONCE } else { 0 });
        if let Some(Nonce { group, nonce }) = nonce {
            body.put_u64(group);
            body.put_u64(nonce);
        }
        body.put_u32(cells.len() as u32);
        for cell in cells {
            body.put_u32(cell.bytes().len() as u32);
            body.put_slice(cell.bytes());
        }
        let length = (body.len() + SEQUENCE_ID_BYTES) as u32;
        let checksum = crc32c_append(crc32c(&length.to_be_bytes()), &body);
        Ok(Self { region, body: body.freeze(), checksum })
    }

    /// The length of the edit's record in the log, in bytes.
    pub fn record_bytes(&self) -> usize {
        RECORD_PREFIX_BYTES + self.body.len() + SEQUENCE_ID_BYTES
    }

    /// The region.
    pub fn region(&self) -> EncodedRegionName {
        self.region
    }

    /// Appends the record to `output`.
    pub(super) fn put(&self, sequence_id: SequenceId, output: &mut BytesMut) {
        let sequence_id = sequence_id.0.to_be_bytes();
        output.reserve(self.record_bytes());
        output.put_u32((self.body.len() + SEQUENCE_ID_BYTES) as u32);
        output.put_u32(crc32c_append(self.checksum, &sequence_id));
        output.put_slice(&self.body);
        output.put_slice(&sequence_id);
    }
}

// === impl Edit ===

impl Edit {
    /// Parses the body of a record. The cells share its memory.
    pub(super) fn decode(body: &Bytes) -> Result<Self, Defect> {
        let RecordIdentity { region, epoch, sequence_id } = RecordIdentity::decode(body)?;
        let mut rest = body.slice(16 + 8..body.len() - SEQUENCE_ID_BYTES);
        let write_time_ms = rest.get_u64();
        let nonce = match rest.get_u8() {
            0 => None,
            HAS_NONCE if rest.len() >= 16 => {
                Some(Nonce { group: rest.get_u64(), nonce: rest.get_u64() })
            }
            HAS_NONCE => return Err(cut_off("nonce", 16, rest.len())),
            flags => return Err(Defect::Flags { flags }),
        };
        let cells = decode_cells(rest, sequence_id)?;
        Ok(Self { region, epoch, sequence_id, write_time_ms, nonce, cells })
    }
}

fn decode_cells(mut rest: Bytes, sequence_id: SequenceId) -> Result<Vec<Cell>, Defect> {
    let count = rest.try_get_u32().map_err(|_| cut_off("number of cells", 4, rest.len()))? as usize;
    if count > rest.len() / CELL_BYTES_MIN {
        return Err(cut_off("list of cells", count * CELL_BYTES_MIN, rest.len()));
    }
    let mut cells = Vec::with_capacity(count);
    for _ in 0..count {
        let length =
            rest.try_get_u32().map_err(|_| cut_off("length of a cell", 4, rest.len()))? as usize;
        if length > rest.len() {
            return Err(cut_off("cell", length, rest.len()));
        }
        cells.push(Cell::from_bytes(rest.split_to(length), sequence_id)?);
    }
    if rest.is_empty() {
        Ok(cells)
    } else {
        Err(Defect::Mismatch {
            what: "bytes between the last cell and the sequence id",
            found: rest.len() as u64,
            expected: 0,
        })
    }
}

fn cut_off(part: &'static str, needed: usize, left: usize) -> Defect {
    Defect::CutOff { part, needed: needed as u64, left: left as u64 }
}

// === impl RecordIdentity ===

impl RecordIdentity {
    /// Reads the identity from the body of a record.
    pub(super) fn decode(body: &[u8]) -> Result<Self, Defect> {
        let parts = || {
            let (region, rest) = body.split_first_chunk::<16>()?;
            let (epoch, rest) = rest.split_first_chunk::<8>()?;
            let (rest, sequence_id) = rest.split_last_chunk::<SEQUENCE_ID_BYTES>()?;
            (rest.len() >= HEAD_BYTES - 16 - 8).then_some(Self {
                region: EncodedRegionName::from_digest(*region),
                epoch: RegionEpoch(u64::from_be_bytes(*epoch)),
                sequence_id: SequenceId(u64::from_be_bytes(*sequence_id)),
            })
        };
        parts().ok_or_else(|| cut_off("record", RECORD_BYTES_MIN, body.len()))
    }
}

/// The length of the body, as stated in the prefix of a record.
pub(super) fn body_length(prefix: &[u8; RECORD_PREFIX_BYTES]) -> Result<usize, Defect> {
    let [a, b, c, d, ..] = *prefix;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if (RECORD_BYTES_MIN..=RECORD_BYTES_MAX).contains(&length) {
        return Ok(length);
    }
    Err(Defect::Length {
        part: "record",
        found: length as u64,
        min: RECORD_BYTES_MIN as u64,
        max: RECORD_BYTES_MAX as u64,
    })
}

/// Verifies the checksum in the prefix of a record.
pub(super) fn check_record(prefix: &[u8; RECORD_PREFIX_BYTES], body: &[u8]) -> Result<(), Defect> {
    let [length @ .., a, b, c, d] = prefix;
    let found = u32::from_be_bytes([*a, *b, *c, *d]);
    let computed = crc32c_append(crc32c(length), body);
    if found == computed {
        return Ok(());
    }
    Err(Defect::Checksum { part: "record", found, computed })
}
