//! The format of a manifest file.
//!
//! ```text
//! magic "BASALTM1" or "BASALTM2" | crc32c of the rest | protobuf message Manifest
//! ```
//!
//! Format 2 is written only if a file belongs to another region, if only a part of it is read, or
//! if a family was added after its table was created ([`FileEntry::origin`], [`FileEntry::part`],
//! [`Manifest::incarnations`]). A release that does not know this would read too much, or nothing.

use basalt_model::{RegionEpoch, SequenceId, TableName};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::{FamilyIncarnation, FileEntry, Manifest, Origin};
use crate::nonces::{NonceEntry, NonceFileEntry};
use crate::store_file::FilePart;

/// The first bytes of a manifest. The digit that follows is the format's version.
const MAGIC: &[u8; 7] = b"BASALTM";

/// The protobuf messages of the file.
mod pb {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Manifest {
        // Tags 1 and 2 were the epoch and the number, which are the file's name.
        #[prost(message, repeated, tag = "3")]
        pub(super) families: Vec<Family>,
        #[prost(uint64, tag = "4")]
        pub(super) flushed: u64,
        #[prost(uint64, tag = "5")]
        pub(super) highest: u64,
        #[prost(uint64, tag = "6")]
        pub(super) highest_timestamp_ms: u64,
        #[prost(message, repeated, tag = "7")]
        pub(super) nonces: Vec<crate::nonces::NonceMessage>,
        #[prost(message, repeated, tag = "8")]
        pub(super) nonce_files: Vec<NonceFile>,
        #[prost(btree_map = "string, message", tag = "9")]
        pub(super) incarnations: std::collections::BTreeMap<String, Incarnation>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Incarnation {
        #[prost(uint64, tag = "1")]
        pub(super) number: u64,
        #[prost(uint64, tag = "2")]
        pub(super) since: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct NonceFile {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(uint64, tag = "2")]
        pub(super) length: u64,
        #[prost(uint64, tag = "3")]
        pub(super) entries: u64,
        #[prost(uint64, tag = "4")]
        pub(super) oldest_ms: u64,
        #[prost(uint64, tag = "5")]
        pub(super) newest_ms: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Family {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(message, repeated, tag = "2")]
        pub(super) files: Vec<File>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct File {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(uint64, tag = "2")]
        pub(super) length: u64,
        #[prost(uint64, tag = "3")]
        pub(super) highest: u64,
        #[prost(bool, tag = "4")]
        pub(super) major: bool,
        #[prost(message, tag = "5")]
        pub(super) origin: Option<Origin>,
        #[prost(bytes = "bytes", tag = "6")]
        pub(super) start: bytes::Bytes,
        #[prost(bytes = "bytes", tag = "7")]
        pub(super) end: bytes::Bytes,
        #[prost(uint64, optional, tag = "8")]
        pub(super) sequence_id: Option<u64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Origin {
        #[prost(string, tag = "1")]
        pub(super) namespace: String,
        #[prost(string, tag = "2")]
        pub(super) table: String,
        #[prost(string, tag = "3")]
        pub(super) region: String,
    }
}

// === impl Manifest ===

impl Manifest {
    pub(super) fn encode(&self) -> Bytes {
        let message = pb::Manifest {
            families: self.families.iter().map(encode_family).collect(),
            incarnations: self.incarnations.iter().map(encode_incarnation).collect(),
            flushed: self.flushed.0,
            highest: self.highest.0,
            highest_timestamp_ms: self.highest_timestamp_ms,
            nonces: self.nonces.iter().map(Into::into).collect(),
            nonce_files: self.nonce_files.iter().map(encode_nonce_file).collect(),
        }
        .encode_to_vec();
        let mut bytes = BytesMut::with_capacity(MAGIC.len() + 1 + 4 + message.len());
        bytes.put_slice(MAGIC);
        let is_plain = self.incarnations.is_empty()
            && self.families.values().flatten().all(FileEntry::is_plain);
        bytes.put_u8(if is_plain { b'1' } else { b'2' });
        bytes.put_u32(crc32c::crc32c(&message));
        bytes.put_slice(&message);
        bytes.freeze()
    }

    pub(super) fn decode(contents: &[u8], epoch: RegionEpoch, number: u64) -> Result<Self, String> {
        let rest = match contents.strip_prefix(MAGIC).and_then(<[u8]>::split_first) {
            Some((b'1' | b'2', rest)) => rest,
            Some((version @ b'3'..=b'9', _)) => {
                let version = char::from(*version);
                return Err(format!("its format is {version}; this release reads 1 and 2"));
            }
            _ => return Err("it does not begin with BASALTM1 or BASALTM2".to_owned()),
        };
        let (crc, message) = rest.split_first_chunk::<4>().ok_or("it is cut off")?;
        let (stored, computed) = (u32::from_be_bytes(*crc), crc32c::crc32c(message));
        if stored != computed {
            return Err(format!("its checksum is {computed:08x}, but {stored:08x} is stored"));
        }
        let message = pb::Manifest::decode(message).map_err(|error| error.to_string())?;
        let nonces = message.nonces.into_iter().map(NonceEntry::try_from);
        let families = message.families.into_iter().map(decode_family);
        Ok(Self {
            epoch,
            number,
            families: families.collect::<Result<_, _>>()?,
            incarnations: message.incarnations.into_iter().map(decode_incarnation).collect(),
            flushed: SequenceId(message.flushed),
            highest: SequenceId(message.highest),
            highest_timestamp_ms: message.highest_timestamp_ms,
            nonce_files: message.nonce_files.into_iter().map(decode_nonce_file).collect(),
            nonces: nonces.collect::<Result<_, _>>().map_err(|error| error.to_string())?,
        })
    }
}

fn encode_incarnation((family, one): (&String, &FamilyIncarnation)) -> (String, pb::Incarnation) {
    (family.clone(), pb::Incarnation { number: one.number, since: one.since.0 })
}

fn decode_incarnation((family, one): (String, pb::Incarnation)) -> (String, FamilyIncarnation) {
    (family, FamilyIncarnation { number: one.number, since: RegionEpoch(one.since) })
}

fn encode_family((name, files): (&String, &Vec<FileEntry>)) -> pb::Family {
    pb::Family { name: name.clone(), files: files.iter().map(encode_file).collect() }
}

fn encode_file(file: &FileEntry) -> pb::File {
    let FileEntry { name, origin, part, length, highest, major } = file.clone();
    let FilePart { start, end, sequence_id } = part;
    let origin = origin.map(|Origin { table, region }| pb::Origin {
        namespace: table.namespace().to_owned(),
        table: table.qualifier().to_owned(),
        region: region.to_string(),
    });
    let sequence_id = sequence_id.map(|id| id.0);
    pb::File { name, length, highest: highest.0, major, origin, start, end, sequence_id }
}

fn decode_family(family: pb::Family) -> Result<(String, Vec<FileEntry>), String> {
    let files = family.files.into_iter().map(decode_file);
    Ok((family.name, files.collect::<Result<_, _>>()?))
}

fn decode_file(file: pb::File) -> Result<FileEntry, String> {
    let pb::File { name, length, highest, major, origin, start, end, sequence_id } = file;
    let origin = origin.map(|origin| {
        let pb::Origin { namespace, table, region } = &origin;
        let table = TableName::new(namespace, table);
        let table = table.map_err(|error| format!("the origin of file {name}: {error}"))?;
        let region = region.parse();
        let region = region.map_err(|error| format!("the origin of file {name}: {error}"))?;
        Ok::<_, String>(Origin { table, region })
    });
    let part = FilePart { start, end, sequence_id: sequence_id.map(SequenceId) };
    let (origin, highest) = (origin.transpose()?, SequenceId(highest));
    Ok(FileEntry { name, origin, part, length, highest, major })
}

fn encode_nonce_file(file: &NonceFileEntry) -> pb::NonceFile {
    let NonceFileEntry { name, length, entries, oldest_ms, newest_ms } = file.clone();
    pb::NonceFile { name, length, entries, oldest_ms, newest_ms }
}

fn decode_nonce_file(file: pb::NonceFile) -> NonceFileEntry {
    let pb::NonceFile { name, length, entries, oldest_ms, newest_ms } = file;
    NonceFileEntry { name, length, entries, oldest_ms, newest_ms }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{manifest, region};
    use super::*;

    #[test]
    fn a_manifest_with_a_part_or_a_file_of_another_region_has_format_2() {
        let (_, table, region) = region();
        let entry = &manifest(1, 0).families["f"][0];
        let origin = || Origin { table: table.clone(), region };
        let part = |start: &'static str, end: &'static str, sequence_id| FilePart {
            start: Bytes::from(start),
            end: Bytes::from(end),
            sequence_id,
        };
        let entries = [
            FileEntry { origin: Some(origin()), ..entry.clone() },
            FileEntry { part: part("a", "", None), ..entry.clone() },
            FileEntry { part: part("", "z", None), ..entry.clone() },
            FileEntry { part: part("", "", Some(SequenceId(0))), ..entry.clone() },
            FileEntry { origin: Some(origin()), part: part("b", "c", None), ..entry.clone() },
        ];
        assert!(manifest(1, 0).encode().starts_with(b"BASALTM1"));
        for entry in entries {
            let mut written = manifest(1, 0);
            written.families.insert("f".to_owned(), vec![entry.clone(), entry]);
            let encoded = written.encode();
            assert!(encoded.starts_with(b"BASALTM2"));
            assert_eq!(Manifest::decode(&encoded, written.epoch, 0).unwrap(), written);
        }
        let incarnation = FamilyIncarnation { number: 3, since: RegionEpoch(9) };
        let incarnations = [("f".to_owned(), incarnation)].into();
        let written = Manifest { incarnations, ..manifest(1, 0) };
        let encoded = written.encode();
        assert!(encoded.starts_with(b"BASALTM2"));
        assert_eq!(Manifest::decode(&encoded, written.epoch, 0).unwrap(), written);
    }

    #[test]
    fn a_later_format_is_named() {
        let mut encoded = manifest(1, 0).encode().to_vec();
        encoded[7] = b'3';
        let reason = Manifest::decode(&encoded, RegionEpoch(1), 0).unwrap_err();
        assert_eq!(reason, "its format is 3; this release reads 1 and 2");
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_noticed() {
        let whole = manifest(3, 1).encode();
        let decode = |contents: &[u8]| Manifest::decode(contents, RegionEpoch(3), 1);
        assert_eq!(decode(&whole).unwrap(), manifest(3, 1));
        for at in 0..whole.len() {
            assert!(decode(&whole[..at]).is_err(), "cut at {at}");
            let mut flipped = whole.to_vec();
            flipped[at] ^= 1;
            assert!(decode(&flipped).is_err(), "flipped at {at}");
        }
    }
}
