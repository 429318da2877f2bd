//! The file info: named properties of a file.
//!
//! The format is `PBUF`, then a length-delimited `FileInfoProto`. Names that start with `hfile.`
//! belong to the file format, the others to the store.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use super::error::Damage;
use super::fields::i64_from;

const MAGIC: &[u8] = b"PBUF";

pub(super) const LAST_KEY: &str = "hfile.LASTKEY";
pub(super) const AVERAGE_KEY_LENGTH: &str = "hfile.AVG_KEY_LEN";
pub(super) const AVERAGE_VALUE_LENGTH: &str = "hfile.AVG_VALUE_LEN";
pub(super) const CREATED_MS: &str = "hfile.CREATE_TIME_TS";
pub(super) const BIGGEST_CELL_KEY: &str = "hfile.KEY_OF_BIGGEST_CELL";
pub(super) const BIGGEST_CELL_LENGTH: &str = "hfile.LEN_OF_BIGGEST_CELL";
pub(super) const TAGS_LENGTH_MAX: &str = "hfile.MAX_TAGS_LEN";
pub(super) const TAGS_COMPRESSED: &str = "hfile.TAGS_COMPRESSED";
pub(super) const CELL_SEQUENCE_ID_MAX: &str = "MAX_MEMSTORE_TS_KEY";
pub(super) const CELL_VERSION: &str = "KEY_VALUE_VERSION";
pub(super) const DATA_BLOCK_ENCODING: &str = "DATA_BLOCK_ENCODING";
pub(super) const INDEX_BLOCK_ENCODING: &str = "INDEX_BLOCK_ENCODING";
pub(super) const SEQUENCE_ID_MAX: &str = "MAX_SEQ_ID_KEY";
pub(super) const MAJOR_COMPACTION: &str = "MAJOR_COMPACTION_KEY";
pub(super) const TIME_RANGE: &str = "TIMERANGE";
pub(super) const EARLIEST_PUT: &str = "EARLIEST_PUT_TS";
pub(super) const BLOOM_TYPE: &str = "BLOOM_FILTER_TYPE";
pub(super) const LAST_BLOOM_KEY: &str = "LAST_BLOOM_KEY";
pub(super) const DELETE_FAMILY_COUNT: &str = "DELETE_FAMILY_COUNT";

/// The value of [`CELL_VERSION`] if the cells carry sequence ids.
pub(super) const CELL_VERSION_WITH_SEQUENCE_ID: i32 = 1;
/// HBase's encoding of `true`.
const TRUE: u8 = 0xff;

/// The properties of a file by name.
#[derive(Clone, Debug, Default)]
pub(super) struct FileInfo(BTreeMap<Bytes, Bytes>);

/// The timestamps of a file's cells, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TimeRange {
    /// The lowest timestamp. It is 0 if there is a delete of all versions, which reaches down to 0.
    pub min: i64,
    /// The highest timestamp.
    pub max: i64,
}

#[derive(Clone, PartialEq, Message)]
struct FileInfoMessage {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<EntryMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct EntryMessage {
    #[prost(bytes = "bytes", required, tag = "1")]
    name: Bytes,
    #[prost(bytes = "bytes", required, tag = "2")]
    value: Bytes,
}

/// The older encoding of [`TIME_RANGE`] in HBase, which follows `PBUF`.
#[derive(Clone, PartialEq, Message)]
struct TimeRangeMessage {
    #[prost(uint64, optional, tag = "1")]
    from: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    to: Option<u64>,
}

// === impl FileInfo ===

impl FileInfo {
    pub(super) fn parse(payload: &Bytes) -> Result<Self, Damage> {
        const WHAT: &str = "file info";
        if !payload.starts_with(MAGIC) {
            let found = payload.get(..MAGIC.len()).unwrap_or_default();
            return Err(Damage::Magic {
                found: found.escape_ascii().to_string(),
                expected: MAGIC.escape_ascii().to_string(),
            });
        }
        let message = FileInfoMessage::decode_length_delimited(payload.slice(MAGIC.len()..));
        let message =
            message.map_err(|error| Damage::Message { what: WHAT, reason: error.to_string() })?;
        let entries = message.entries.into_iter();
        Ok(Self(entries.map(|entry| (entry.name, entry.value)).collect()))
    }

    pub(super) fn to_payload(&self) -> Vec<u8> {
        let message = FileInfoMessage {
            entries: self
                .0
                .iter()
                .map(|(name, value)| EntryMessage { name: name.clone(), value: value.clone() })
                .collect(),
        };
        let mut payload = MAGIC.to_vec();
        payload.extend(message.encode_length_delimited_to_vec());
        payload
    }

    pub(super) fn get(&self, name: &str) -> Option<&Bytes> {
        self.0.get(name.as_bytes())
    }

    pub(super) fn i64(&self, name: &str) -> Option<i64> {
        self.get(name).and_then(i64_from)
    }

    pub(super) fn i32(&self, name: &str) -> Option<i32> {
        let bytes = self.get(name)?.as_ref();
        bytes.try_into().ok().map(i32::from_be_bytes)
    }

    pub(super) fn bool(&self, name: &str) -> bool {
        self.get(name).and_then(|value| value.first()).is_some_and(|byte| *byte != 0)
    }

    pub(super) fn time_range(&self) -> Option<TimeRange> {
        let value = self.get(TIME_RANGE)?;
        let (min, max) = match value.strip_prefix(MAGIC) {
            Some(message) => {
                let message = TimeRangeMessage::decode(message).ok()?;
                (message.from? as i64, message.to? as i64)
            }
            None => {
                let (min, max) = value.split_first_chunk::<8>()?;
                let max = max.try_into().ok()?;
                (i64::from_be_bytes(*min), i64::from_be_bytes(max))
            }
        };
        (min <= max).then_some(TimeRange { min, max })
    }

    pub(super) fn put(&mut self, name: &'static str, value: impl Into<Bytes>) {
        self.0.insert(Bytes::from_static(name.as_bytes()), value.into());
    }

    pub(super) fn put_i64(&mut self, name: &'static str, value: i64) {
        self.put(name, value.to_be_bytes().to_vec());
    }

    pub(super) fn put_i32(&mut self, name: &'static str, value: i32) {
        self.put(name, value.to_be_bytes().to_vec());
    }

    pub(super) fn put_bool(&mut self, name: &'static str, value: bool) {
        self.put(name, vec![if value { TRUE } else { 0 }]);
    }

    /// Without a range the file has no cells; then this writes the range that HBase uses for an
    /// empty file.
    pub(super) fn put_time_range(&mut self, range: Option<TimeRange>) {
        let range = range.unwrap_or(TimeRange { min: i64::MAX, max: -1 });
        let value = [range.min.to_be_bytes(), range.max.to_be_bytes()].concat();
        self.put(TIME_RANGE, value);
    }
}

// === impl TimeRange ===

impl TimeRange {
    /// The smallest range that contains `range` and `timestamp`.
    pub(super) fn including(range: Option<Self>, timestamp: i64) -> Option<Self> {
        Some(match range {
            None => Self { min: timestamp, max: timestamp },
            Some(range) => Self { min: range.min.min(timestamp), max: range.max.max(timestamp) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_back_as_they_were_put() {
        let mut info = FileInfo::default();
        info.put_i64(SEQUENCE_ID_MAX, 77);
        info.put_i32(CELL_VERSION, 1);
        info.put_bool(MAJOR_COMPACTION, true);
        info.put_time_range(Some(TimeRange { min: 3, max: 9 }));
        let read = FileInfo::parse(&info.to_payload().into()).unwrap();
        assert_eq!(read.i64(SEQUENCE_ID_MAX), Some(77));
        assert_eq!(read.i32(CELL_VERSION), Some(1));
        assert!(read.bool(MAJOR_COMPACTION));
        assert_eq!(read.time_range(), Some(TimeRange { min: 3, max: 9 }));
        assert_eq!(read.i64(LAST_KEY), None);
    }

    #[test]
    fn the_older_form_of_a_time_range_is_read() {
        let message = TimeRangeMessage { from: Some(3), to: Some(9) };
        let mut info = FileInfo::default();
        info.put(TIME_RANGE, [MAGIC, &message.encode_to_vec()].concat());
        assert_eq!(info.time_range(), Some(TimeRange { min: 3, max: 9 }));
    }

    #[test]
    fn a_file_without_cells_has_no_time_range() {
        let mut info = FileInfo::default();
        info.put_time_range(None);
        assert_eq!(info.time_range(), None);
    }

    #[test]
    fn a_cut_payload_is_refused() {
        let mut info = FileInfo::default();
        info.put_i64(SEQUENCE_ID_MAX, 77);
        let payload = Bytes::from(info.to_payload());
        for length in 0..payload.len() {
            assert!(FileInfo::parse(&payload.slice(..length)).is_err(), "{length}");
        }
    }
}
