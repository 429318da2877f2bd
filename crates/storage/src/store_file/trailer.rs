//! The trailer: the last 4,096 bytes of a file, which locate the other parts.
//!
//! It consists of a magic, a length-delimited `FileTrailerProto`, zeros, and in the last four bytes
//! the minor and major version of the format. It has no checksum: everything it states is checked
//! against the data found at that place.

use basalt_model::Compression;
use bytes::{BufMut, Bytes};
use prost::Message;

use super::compression::{codec_number, from_codec_number};
use super::error::Damage;
use super::index::LEVELS_MAX;

/// The length of the trailer in bytes.
pub(super) const TRAILER_BYTES: usize = 4096;
/// The maximum length of the load-on-open part, in bytes. No longer one is written or read.
pub(super) const LOAD_ON_OPEN_BYTES_MAX: u64 = 256 << 20;

const MAGIC: &[u8; 8] = b"TRABLK\"$";
const VERSION_MAJOR: u8 = 3;
const VERSION_MINOR_MAX: u8 = 3;
/// The order of cells, by a name that every HBase since 1.0 knows.
const COMPARATOR: &str = "org.apache.hadoop.hbase.KeyValue$KVComparator";
/// Other names of the same order.
const COMPARATORS: [&str; 5] = [
    COMPARATOR,
    "org.apache.hadoop.hbase.KeyValue$KeyComparator",
    "org.apache.hadoop.hbase.CellComparator",
    "org.apache.hadoop.hbase.CellComparatorImpl",
    "org.apache.hadoop.hbase.InnerStoreCellComparator",
];

/// The contents of a trailer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Trailer {
    pub(super) file_info_offset: u64,
    /// The offset of the part that is read when a file is opened. This part ends before the
    /// trailer.
    pub(super) load_on_open_offset: u64,
    pub(super) index_payload_bytes: u64,
    pub(super) uncompressed_bytes: u64,
    pub(super) root_count: usize,
    pub(super) levels: u32,
    pub(super) cell_count: u64,
    /// `None` if the file has no cells.
    pub(super) first_data_offset: Option<u64>,
    pub(super) last_data_offset: Option<u64>,
    pub(super) compression: Compression,
}

/// Why a trailer cannot be used.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum TrailerError {
    Damaged(Damage),
    /// The unsupported feature, the value in the file, and the supported values.
    Unsupported(&'static str, String, &'static str),
}

#[derive(Clone, PartialEq, Message)]
struct TrailerMessage {
    #[prost(uint64, optional, tag = "1")]
    file_info_offset: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    load_on_open_offset: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    index_payload_bytes: Option<u64>,
    #[prost(uint64, optional, tag = "4")]
    uncompressed_bytes: Option<u64>,
    #[prost(uint32, optional, tag = "5")]
    root_count: Option<u32>,
    #[prost(uint32, optional, tag = "6")]
    meta_count: Option<u32>,
    #[prost(uint64, optional, tag = "7")]
    cell_count: Option<u64>,
    #[prost(uint32, optional, tag = "8")]
    levels: Option<u32>,
    #[prost(uint64, optional, tag = "9")]
    first_data_offset: Option<u64>,
    #[prost(uint64, optional, tag = "10")]
    last_data_offset: Option<u64>,
    #[prost(string, optional, tag = "11")]
    comparator: Option<String>,
    #[prost(uint32, optional, tag = "12")]
    codec: Option<u32>,
    #[prost(bytes = "bytes", optional, tag = "13")]
    encryption_key: Option<Bytes>,
}

// === impl Trailer ===

impl Trailer {
    /// Parses the last bytes of a file of `file_length` bytes.
    pub(super) fn parse(bytes: &[u8], file_length: u64) -> Result<Self, TrailerError> {
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(CUT_OFF)?;
        let (rest, version) = rest.split_last_chunk::<4>().ok_or(CUT_OFF)?;
        if magic != MAGIC {
            return Err(TrailerError::Damaged(Damage::Magic {
                found: magic.escape_ascii().to_string(),
                expected: MAGIC.escape_ascii().to_string(),
            }));
        }
        let [minor, _, _, major] = *version;
        if major != VERSION_MAJOR || minor > VERSION_MINOR_MAX || version[1..3] != [0, 0] {
            let found = format!("{major}.{minor}");
            return Err(TrailerError::Unsupported("format version", found, "3.0 to 3.3"));
        }
        let message = TrailerMessage::decode_length_delimited(rest).map_err(|error| {
            TrailerError::Damaged(Damage::Message {
                what: "the trailer",
                reason: error.to_string(),
            })
        })?;
        Self::from_message(message, file_length)
    }

    fn from_message(message: TrailerMessage, file_length: u64) -> Result<Self, TrailerError> {
        let comparator = message.comparator.unwrap_or_default();
        if !COMPARATORS.contains(&comparator.as_str()) {
            let what = "comparator";
            return Err(TrailerError::Unsupported(what, comparator, COMPARATOR));
        }
        if message.encryption_key.is_some() {
            let found = "a key".to_owned();
            return Err(TrailerError::Unsupported("encryption", found, "no encryption"));
        }
        let codec = message.codec.unwrap_or(codec_number(Compression::None));
        let compression = from_codec_number(codec).ok_or_else(|| {
            let supported = "1 (gz), 2 (none), 3 (snappy), 4 (lz4), 6 (zstd)";
            TrailerError::Unsupported("compression codec", codec.to_string(), supported)
        })?;
        let levels = message.levels.unwrap_or_default();
        check("levels of the index", levels.into(), 1, LEVELS_MAX.into())?;
        let load_on_open_offset = message.load_on_open_offset.unwrap_or_default();
        let end = file_length.saturating_sub(TRAILER_BYTES as u64);
        check("offset of the load-on-open part", load_on_open_offset, 0, end)?;
        let file_info_offset = message.file_info_offset.unwrap_or_default();
        check("offset of the file info", file_info_offset, load_on_open_offset, end)?;
        let data_offset = |offset: Option<u64>| offset.filter(|offset| *offset != u64::MAX);
        Ok(Self {
            file_info_offset,
            load_on_open_offset,
            index_payload_bytes: message.index_payload_bytes.unwrap_or_default(),
            uncompressed_bytes: message.uncompressed_bytes.unwrap_or_default(),
            root_count: message.root_count.unwrap_or_default() as usize,
            levels,
            cell_count: message.cell_count.unwrap_or_default(),
            first_data_offset: data_offset(message.first_data_offset),
            last_data_offset: data_offset(message.last_data_offset),
            compression,
        })
    }

    /// The last bytes of the file: the serialized trailer.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let message = TrailerMessage {
            file_info_offset: Some(self.file_info_offset),
            load_on_open_offset: Some(self.load_on_open_offset),
            index_payload_bytes: Some(self.index_payload_bytes),
            uncompressed_bytes: Some(self.uncompressed_bytes),
            root_count: Some(self.root_count as u32),
            meta_count: Some(0),
            cell_count: Some(self.cell_count),
            levels: Some(self.levels),
            first_data_offset: Some(self.first_data_offset.unwrap_or(u64::MAX)),
            last_data_offset: Some(self.last_data_offset.unwrap_or(u64::MAX)),
            comparator: Some(COMPARATOR.to_owned()),
            codec: Some(codec_number(self.compression)),
            encryption_key: None,
        };
        let mut bytes = Vec::with_capacity(TRAILER_BYTES);
        bytes.put_slice(MAGIC);
        bytes.put_slice(&message.encode_length_delimited_to_vec());
        // The message has only fixed strings and numbers: it takes a twentieth of the room.
        bytes.resize(TRAILER_BYTES - 4, 0);
        bytes.put_slice(&[VERSION_MINOR_MAX, 0, 0, VERSION_MAJOR]);
        bytes
    }
}

const CUT_OFF: TrailerError = TrailerError::Damaged(Damage::CutOff { what: "the trailer" });

fn check(what: &'static str, found: u64, min: u64, max: u64) -> Result<(), TrailerError> {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Damage::check(what, signed(found), (signed(min), signed(max))).map_err(TrailerError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAILER: Trailer = Trailer {
        file_info_offset: 9_100,
        load_on_open_offset: 9_000,
        index_payload_bytes: 70,
        uncompressed_bytes: 20_000,
        root_count: 3,
        levels: 2,
        cell_count: 1_000,
        first_data_offset: Some(0),
        last_data_offset: None,
        compression: Compression::Lz4,
    };

    #[test]
    fn a_trailer_reads_as_written() {
        let bytes = TRAILER.to_bytes();
        assert_eq!(bytes.len(), TRAILER_BYTES);
        assert_eq!(Trailer::parse(&bytes, 20_000), Ok(TRAILER));
    }

    #[test]
    fn offsets_outside_the_file_are_refused() {
        let bytes = TRAILER.to_bytes();
        assert!(Trailer::parse(&bytes, 13_095).is_err());
    }

    #[test]
    fn an_encrypted_file_is_named() {
        let message = TrailerMessage {
            comparator: Some(COMPARATOR.to_owned()),
            encryption_key: Some(Bytes::from_static(b"wrapped key")),
            ..TrailerMessage::default()
        };
        let error = Trailer::from_message(message, 20_000).unwrap_err();
        let expected = TrailerError::Unsupported("encryption", "a key".into(), "no encryption");
        assert_eq!(error, expected);
    }

    #[test]
    fn another_version_or_comparator_is_named() {
        let mut bytes = TRAILER.to_bytes();
        bytes[TRAILER_BYTES - 1] = 2;
        let error = Trailer::parse(&bytes, 20_000).unwrap_err();
        let expected = TrailerError::Unsupported("format version", "2.3".into(), "3.0 to 3.3");
        assert_eq!(error, expected);
    }
}
