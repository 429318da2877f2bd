//! The format of the index file.
//!
//! ```text
//! header │ magic 8 │ u16 version │ u32 regions │ u64 sealed length │ u64 end │
//!        │ u32 crc32c of the log's header │ u32 crc32c of the directory │
//!        │ u32 crc32c of all before │                                              42 bytes
//! entry  │ region 16 │ u64 lowest, u64 highest epoch │ u64 lowest, u64 highest sequence id │
//!        │ u64 edits │ u64 bytes │ u64 damaged at, u64 sequence id behind that │
//!        │ u64 offset, u64 length, u32 crc32c of the section │                        100 bytes
//! file   │ header │ entry… sorted by region │ section… │
//! ```
//! All numbers are big endian. A section holds the ranges of one region. `damaged at` is 0 if there
//! is no damage. The sequence id behind it is the highest possible one if no edit follows the
//! damage.

use std::path::Path;

use basalt_fs::ReadFile;
use basalt_model::{EncodedRegionName, RegionEpoch, SequenceId};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use crc32c::crc32c;

use super::{PartDamage, PartSummary, SplitIndexSummary};
use crate::wal::error::{Defect, Error};
use crate::wal::header::{FileChecksum, check_end};

const MAGIC: [u8; 8] = *b"BsltPRT\n";
const VERSION: u16 = 2;
const HEADER_BYTES: usize = 8 + 2 + 4 + 8 + 8 + 4 + 4 + 4;
const ENTRY_BYTES: usize = 16 + 10 * 8 + 4;
/// Encodes that no edit follows the damage.
const NOTHING_BEHIND: u64 = u64::MAX;
/// An upper bound: more regions than a server can hold.
pub(super) const REGIONS_MAX: u64 = 1 << 20;

/// The front of an index: its header and its entries.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Directory {
    pub(super) sealed_length: u64,
    pub(super) end: u64,
    /// The checksum of the log's file header; identifies the file that this index belongs to.
    pub(super) log: FileChecksum,
    /// Sorted by region.
    pub(super) entries: Vec<Entry>,
}

/// The entry of one region.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub(super) summary: PartSummary,
    section_offset: u64,
    section_bytes: u64,
    section_checksum: u32,
}

/// Why an index could not be read.
pub(super) enum Unreadable {
    Damaged(Defect),
    Files(basalt_fs::Error),
}

// === impl Directory ===

impl Directory {
    /// Serializes a whole index.
    pub(super) fn encode(
        (sealed_length, end, log): (u64, u64, FileChecksum),
        parts: &[(PartSummary, Vec<u8>)],
    ) -> Bytes {
        let front_bytes = HEADER_BYTES + parts.len() * ENTRY_BYTES;
        let sections_bytes: usize = parts.iter().map(|(_, section)| section.len()).sum();
        let mut entries = BytesMut::with_capacity(parts.len() * ENTRY_BYTES);
        let mut section_offset = front_bytes as u64;
        for (summary, section) in parts {
            let entry = Entry {
                summary: summary.clone(),
                section_offset,
                section_bytes: section.len() as u64,
                section_checksum: crc32c(section),
            };
            entry.put(&mut entries);
            section_offset += section.len() as u64;
        }
        let mut output = BytesMut::with_capacity(front_bytes + sections_bytes);
        output.put_slice(&MAGIC);
        output.put_u16(VERSION);
        output.put_u32(parts.len() as u32);
        output.put_u64(sealed_length);
        output.put_u64(end);
        output.put_u32(log.0);
        output.put_u32(crc32c(&entries));
        output.put_u32(crc32c(&output));
        output.put_slice(&entries);
        for (_, section) in parts {
            output.put_slice(section);
        }
        output.freeze()
    }

    /// Reads the front of an index: its header and its entries.
    pub(super) async fn read(file: &dyn ReadFile) -> Result<Self, Unreadable> {
        let header = read_part(file, "header of an index", 0, HEADER_BYTES as u64).await?;
        let (mut directory, regions, checksum) = Self::decode_header(&header)?;
        let length = u64::from(regions) * ENTRY_BYTES as u64;
        let entries = read_part(file, "directory", HEADER_BYTES as u64, length).await?;
        directory.decode_entries(entries, checksum)?;
        Ok(directory)
    }

    /// Returns the directory without its entries, with their number and their checksum.
    fn decode_header(bytes: &[u8]) -> Result<(Self, u32, u32), Defect> {
        let part = "header of an index";
        let mut rest = bytes.strip_prefix(&MAGIC).ok_or(Defect::Magic { part: "index" })?;
        check_end(part, 0, bytes)?;
        let version = rest.get_u16();
        if version != VERSION {
            return Err(Defect::Version { found: version, known: VERSION });
        }
        let regions = rest.get_u32();
        if u64::from(regions) > REGIONS_MAX {
            return Err(Defect::Length {
                part: "directory",
                found: regions.into(),
                min: 0,
                max: REGIONS_MAX,
            });
        }
        let directory = Self {
            sealed_length: rest.get_u64(),
            end: rest.get_u64(),
            log: FileChecksum(rest.get_u32()),
            entries: Vec::new(),
        };
        Ok((directory, regions, rest.get_u32()))
    }

    fn decode_entries(&mut self, bytes: Bytes, found: u32) -> Result<(), Defect> {
        let computed = crc32c(&bytes);
        if found != computed {
            return Err(Defect::Checksum { part: "directory", found, computed });
        }
        let entries = bytes.chunks_exact(ENTRY_BYTES).filter_map(Entry::decode);
        self.entries = entries.collect();
        Ok(())
    }

    /// The entry of a region.
    pub(super) fn find(&self, region: EncodedRegionName) -> Option<&Entry> {
        let found = self.entries.binary_search_by_key(&region, |entry| entry.summary.region);
        self.entries.get(found.ok()?)
    }

    pub(super) fn into_summary(self) -> SplitIndexSummary {
        SplitIndexSummary {
            sealed_length: self.sealed_length,
            end: self.end,
            parts: self.entries.into_iter().map(|entry| entry.summary).collect(),
        }
    }
}

// === impl Entry ===

impl Entry {
    fn put(&self, output: &mut BytesMut) {
        let PartSummary { region, epochs, sequence_ids, edits, bytes, damage } = &self.summary;
        output.put_slice(region.digest());
        output.put_u64(epochs.start().0);
        output.put_u64(epochs.end().0);
        output.put_u64(sequence_ids.start().0);
        output.put_u64(sequence_ids.end().0);
        output.put_u64(*edits);
        output.put_u64(*bytes);
        let behind = damage.and_then(|damage| damage.before);
        output.put_u64(damage.map_or(0, |damage| damage.offset));
        output.put_u64(behind.map_or(NOTHING_BEHIND, |behind| behind.0));
        output.put_u64(self.section_offset);
        output.put_u64(self.section_bytes);
        output.put_u32(self.section_checksum);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (region, rest) = bytes.split_first_chunk::<16>()?;
        let mut rest = <&[u8; ENTRY_BYTES - 16]>::try_from(rest).ok()?.as_slice();
        Some(Self {
            summary: PartSummary {
                region: EncodedRegionName::from_digest(*region),
                epochs: RegionEpoch(rest.get_u64())..=RegionEpoch(rest.get_u64()),
                sequence_ids: SequenceId(rest.get_u64())..=SequenceId(rest.get_u64()),
                edits: rest.get_u64(),
                bytes: rest.get_u64(),
                damage: match (rest.get_u64(), rest.get_u64()) {
                    (0, _) => None,
                    (offset, NOTHING_BEHIND) => Some(PartDamage { offset, before: None }),
                    (offset, behind) => {
                        Some(PartDamage { offset, before: Some(SequenceId(behind)) })
                    }
                },
            },
            section_offset: rest.get_u64(),
            section_bytes: rest.get_u64(),
            section_checksum: rest.get_u32(),
        })
    }

    /// Reads the region's ranges, still encoded.
    pub(super) async fn read_section(&self, file: &dyn ReadFile) -> Result<Bytes, Unreadable> {
        let part = "section of an index";
        let section = read_part(file, part, self.section_offset, self.section_bytes).await?;
        let (found, computed) = (self.section_checksum, crc32c(&section));
        if found != computed {
            return Err(Unreadable::Damaged(Defect::Checksum { part, found, computed }));
        }
        Ok(section)
    }
}

/// Reads bytes that the file must contain. Their length is checked against that of the file before
/// it is trusted.
async fn read_part(
    file: &dyn ReadFile,
    part: &'static str,
    offset: u64,
    length: u64,
) -> Result<Bytes, Unreadable> {
    let left = file.length().saturating_sub(offset);
    if length > left {
        return Err(Unreadable::Damaged(Defect::CutOff { part, needed: length, left }));
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    Ok(file.read_at(offset, length).await?)
}

// === impl Unreadable ===

impl Unreadable {
    /// Converts this to an error of the index at `path`.
    pub(super) fn into_error(self, path: &Path) -> Error {
        match self {
            Self::Files(error) => error.into(),
            Self::Damaged(defect) => Error::Corrupt { path: path.to_owned(), offset: 0, defect },
        }
    }
}

impl From<Defect> for Unreadable {
    fn from(defect: Defect) -> Self {
        Self::Damaged(defect)
    }
}

impl From<basalt_fs::Error> for Unreadable {
    fn from(error: basalt_fs::Error) -> Self {
        Self::Files(error)
    }
}
