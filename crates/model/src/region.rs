//! Regions: ranges of rows of a table.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use bytes::Bytes;
use md5::{Digest, Md5};

use crate::{Error, TableName};

/// The number of a copy of a region; 0 is the primary, which accepts writes.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ReplicaId(pub u16);

/// The MD5 of a region's name; names its folder and its records.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EncodedRegionName([u8; 16]);

/// A range of rows of a table. Its name never changes and is never used again.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RegionInfo {
    /// The table.
    pub table: TableName,
    /// The first row; empty for the first region.
    pub start_key: Bytes,
    /// The first row after the region; empty for the last region.
    pub end_key: Bytes,
    /// When the region was created, in milliseconds since 1970; distinguishes regions of the same
    /// range.
    pub region_id: u64,
    /// The number of this copy.
    pub replica: ReplicaId,
}

/// The state of a region; the names are HBase's.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum RegionState {
    /// No server serves it or is asked to: its table is disabled, or it is new.
    Closed,
    /// Its owner is on record but has not opened it yet.
    Opening,
    /// Its owner serves it.
    Open,
    /// Its owner has been asked to close it.
    Closing,
}

// === impl RegionInfo ===

impl RegionInfo {
    /// The primary region of a range of `table`.
    pub fn primary(table: TableName, start_key: Bytes, end_key: Bytes, region_id: u64) -> Self {
        Self { table, start_key, end_key, region_id, replica: ReplicaId(0) }
    }

    /// Whether `row` belongs to it.
    pub fn contains(&self, row: &[u8]) -> bool {
        row >= &self.start_key[..] && (self.end_key.is_empty() || row < &self.end_key[..])
    }

    /// Its full name: `table,start key,region id[_replica].encoded name.`
    pub fn name(&self) -> Bytes {
        let mut name = self.name_prefix();
        name.extend_from_slice(format!(".{}.", self.encoded_name()).as_bytes());
        name.into()
    }

    /// The MD5 of the name up to, and without, the encoded name.
    pub fn encoded_name(&self) -> EncodedRegionName {
        EncodedRegionName(Md5::digest(self.name_prefix()).into())
    }

    fn name_prefix(&self) -> Vec<u8> {
        let mut prefix = self.table.to_string().into_bytes();
        prefix.push(b',');
        prefix.extend_from_slice(&self.start_key);
        prefix.extend_from_slice(format!(",{}", self.region_id).as_bytes());
        if self.replica.0 > 0 {
            prefix.extend_from_slice(format!("_{:04X}", self.replica.0).as_bytes());
        }
        prefix
    }
}

impl fmt::Display for RegionInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().escape_ascii().fmt(formatter)
    }
}

// === impl EncodedRegionName ===

impl EncodedRegionName {
    /// The digest itself.
    pub fn digest(&self) -> &[u8; 16] {
        &self.0
    }

    /// The name with this digest.
    pub fn from_digest(digest: [u8; 16]) -> Self {
        Self(digest)
    }
}

impl fmt::Display for EncodedRegionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(32);
        for byte in self.0 {
            write!(text, "{byte:02x}")?;
        }
        formatter.pad(&text)
    }
}

impl fmt::Debug for EncodedRegionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for EncodedRegionName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let bad = || Error::BadEncodedRegionName { name: name.to_owned() };
        if name.len() != 32
            || !name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return Err(bad());
        }
        let number = u128::from_str_radix(name, 16).map_err(|_| bad())?;
        Ok(Self(number.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(replica: u16) -> RegionInfo {
        RegionInfo {
            table: "usertable".parse().unwrap(),
            start_key: Bytes::from_static(b"user5"),
            end_key: Bytes::from_static(b"user7"),
            region_id: 1_700_000_000_000,
            replica: ReplicaId(replica),
        }
    }

    #[test]
    fn a_region_is_named_as_hbase_names_it() {
        let encoded = region(0).encoded_name().to_string();
        let name = format!("usertable,user5,1700000000000.{encoded}.");
        assert_eq!(region(0).name(), name.as_bytes());
        assert_eq!(encoded.parse::<EncodedRegionName>().unwrap(), region(0).encoded_name());
        assert!(region(1).name().starts_with(b"usertable,user5,1700000000000_0001."));
        assert_ne!(region(1).encoded_name(), region(0).encoded_name());
    }

    #[test]
    fn the_end_key_is_outside() {
        assert!(region(0).contains(b"user5"));
        assert!(region(0).contains(b"user6999"));
        assert!(!region(0).contains(b"user7"));
        assert!(!region(0).contains(b"user4"));
    }
}
