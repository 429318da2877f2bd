//! The headers of a log: that of the file and those of its batches.
//!
//! ```text
//! file  │ magic 8 │ u16 version │ u64 number │ u64 created ms │ cluster id │ server name │
//!       │ boot id │ zeros │ u32 crc32c of all before │                      512 bytes in all
//! text  │ u16 length │ UTF-8 │
//! batch │ magic 4 │ u64 offset of this header │ u64 synced │ u64 bytes of records │
//!       │ u32 records │ u32 crc32c, begun with the file's │                   36 bytes
//! ```
//! All numbers are big endian. A batch header states its own offset, and its checksum continues
//! from that of the file header. Bytes that only look like a batch header, such as a copy of a log
//! that a client stored as a value, are therefore not treated as one.

use basalt_model::ServerName;
use bytes::{Buf, BufMut, BytesMut};
use crc32c::{crc32c, crc32c_append};

use super::error::{Defect, Error, Result};

/// The length of a file header.
pub(super) const FILE_HEADER_BYTES: usize = basalt_model::LOG_HEADER_BYTES as usize;
/// The length of a batch header.
pub(super) const BATCH_HEADER_BYTES: usize = 36;
/// The first bytes of a batch header.
pub(super) const BATCH_MAGIC: [u8; 4] = *b"BsB\x9d";

const FILE_MAGIC: [u8; 8] = *b"BsltWAL\n";
const FILE_VERSION: u16 = 1;
const CHECKSUM_BYTES: usize = 4;
/// Magic, version, number, creation.
const FIXED_BYTES: usize = 8 + 2 + 8 + 8;

/// Identifies the log that a file belongs to, and its place in that log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileHeader {
    /// The cluster that the server belongs to.
    pub cluster_id: String,
    /// The server that writes the file.
    pub server: ServerName,
    /// The boot id of the kernel under which the server runs, for [`basalt_fs::FileSystem::seal`].
    pub boot_id: String,
    /// The number of the file among those of its server; the first is 1.
    pub number: u64,
    /// When the file was created, in milliseconds since 1970.
    pub created_ms: u64,
}

/// The checksum of a file header, from which the checksums of the file's batch headers continue.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct FileChecksum(pub(super) u32);

/// The header that precedes the records of one group commit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct BatchHeader {
    /// The offset of this header in its file.
    pub(super) offset: u64,
    /// All bytes before this offset were durable when this header was written.
    pub(super) synced: u64,
    /// The length of the records that follow.
    pub(super) records_bytes: u64,
    /// The number of the records that follow.
    pub(super) records: u32,
}

// === impl FileHeader ===

impl FileHeader {
    /// Serializes the header, padded to its full length.
    pub(super) fn encode(&self) -> Result<(BytesMut, FileChecksum)> {
        let server = self.server.to_string();
        let texts = [&self.cluster_id, &server, &self.boot_id];
        let bytes: usize = texts.iter().map(|text| 2 + text.len()).sum();
        let bytes_max = FILE_HEADER_BYTES - FIXED_BYTES - CHECKSUM_BYTES;
        if bytes > bytes_max {
            return Err(Error::NamesTooLong { bytes, bytes_max });
        }
        let mut output = BytesMut::with_capacity(FILE_HEADER_BYTES);
        output.put_slice(&FILE_MAGIC);
        output.put_u16(FILE_VERSION);
        output.put_u64(self.number);
        output.put_u64(self.created_ms);
        for text in texts {
            output.put_u16(text.len() as u16);
            output.put_slice(text.as_bytes());
        }
        output.resize(FILE_HEADER_BYTES - CHECKSUM_BYTES, 0);
        let checksum = crc32c(&output);
        output.put_u32(checksum);
        Ok((output, FileChecksum(checksum)))
    }

    /// Reads the header from the first bytes of a file.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, FileChecksum), Defect> {
        let bytes = bytes.get(..FILE_HEADER_BYTES).ok_or(Defect::CutOff {
            part: "file header",
            needed: FILE_HEADER_BYTES as u64,
            left: bytes.len() as u64,
        })?;
        let mut rest = bytes.strip_prefix(&FILE_MAGIC).ok_or(Defect::Magic { part: "log" })?;
        let checksum = check_end("file header", 0, bytes)?;
        let version = rest.get_u16();
        if version != FILE_VERSION {
            return Err(Defect::Version { found: version, known: FILE_VERSION });
        }
        let number = rest.get_u64();
        let created_ms = rest.get_u64();
        let cluster_id = take_text(&mut rest, "cluster id")?.to_owned();
        let server = take_text(&mut rest, "server name")?;
        let boot_id = take_text(&mut rest, "boot id")?.to_owned();
        let part = "server name";
        let server = server.parse().map_err(|_| Defect::Text { part })?;
        let header = Self { cluster_id, server, boot_id, number, created_ms };
        Ok((header, FileChecksum(checksum)))
    }
}

fn take_text<'a>(rest: &mut &'a [u8], part: &'static str) -> Result<&'a str, Defect> {
    let not_one = Defect::Text { part };
    let (length, after) = rest.split_first_chunk::<2>().ok_or(not_one.clone())?;
    let (text, after) =
        after.split_at_checked(u16::from_be_bytes(*length).into()).ok_or(not_one.clone())?;
    *rest = after;
    std::str::from_utf8(text).map_err(|_| not_one)
}

// === impl BatchHeader ===

impl BatchHeader {
    /// Serializes the header; its checksum continues from `file`.
    pub(super) fn encode(&self, file: FileChecksum) -> [u8; BATCH_HEADER_BYTES] {
        let mut output = [0; BATCH_HEADER_BYTES];
        let mut fields = &mut output[..];
        fields.put_slice(&BATCH_MAGIC);
        fields.put_u64(self.offset);
        fields.put_u64(self.synced);
        fields.put_u64(self.records_bytes);
        fields.put_u32(self.records);
        let checksum = crc32c_append(file.0, &output[..BATCH_HEADER_BYTES - CHECKSUM_BYTES]);
        output[BATCH_HEADER_BYTES - CHECKSUM_BYTES..].copy_from_slice(&checksum.to_be_bytes());
        output
    }

    /// Reads the header at `offset`.
    pub(super) fn decode(bytes: &[u8], file: FileChecksum, offset: u64) -> Result<Self, Defect> {
        let bytes = bytes.get(..BATCH_HEADER_BYTES).ok_or(Defect::CutOff {
            part: "batch header",
            needed: BATCH_HEADER_BYTES as u64,
            left: bytes.len() as u64,
        })?;
        let part = "batch header";
        let mut rest = bytes.strip_prefix(&BATCH_MAGIC).ok_or(Defect::Magic { part })?;
        check_end(part, file.0, bytes)?;
        let header = Self {
            offset: rest.get_u64(),
            synced: rest.get_u64(),
            records_bytes: rest.get_u64(),
            records: rest.get_u32(),
        };
        if header.offset != offset {
            return Err(Defect::Mismatch {
                what: "the offset that a batch header states",
                found: header.offset,
                expected: offset,
            });
        }
        if header.synced > offset {
            return Err(Defect::Mismatch {
                what: "the synced offset that a batch header states",
                found: header.synced,
                expected: offset,
            });
        }
        Ok(header)
    }
}

/// Verifies the checksum at the end of `bytes`, and returns it.
pub(super) fn check_end(part: &'static str, seed: u32, bytes: &[u8]) -> Result<u32, Defect> {
    let (covered, found) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Defect::CutOff {
        part,
        needed: CHECKSUM_BYTES as u64,
        left: bytes.len() as u64,
    })?;
    let found = u32::from_be_bytes(*found);
    let computed = crc32c_append(seed, covered);
    if found == computed {
        return Ok(found);
    }
    Err(Defect::Checksum { part, found, computed })
}
