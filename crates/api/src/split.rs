//! Splits a new table into regions, as Apache HBase's `RegionSplitter` does.
//!
//! `n` regions have `n - 1` split keys, and the first region begins with the empty key. The key
//! space is divided by integer division, so the last region gets the remainder and is the largest:
//!
//! | algorithm | keys | example for 3 regions |
//! | --- | --- | --- |
//! | HexString | 8 hexadecimal digits, lower case | `55555555` `aaaaaaaa` |
//! | DecimalString | 8 decimal digits | `33333333` `66666666` |
//! | Uniform | 8 bytes | `55` × 8, `aa` × 8 |
//!
//! A prefix is put before each key and has no other effect.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Error;

/// How the key space is divided.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum SplitAlgorithm {
    /// Keys are hexadecimal text, evenly spread: hashes written out.
    HexString,
    /// Keys are any bytes, evenly spread: hashes as they are.
    Uniform,
    /// Keys are decimal text, evenly spread.
    DecimalString,
}

/// The maximum number of regions of a new table.
pub const REGIONS_MAX: u32 = 10_000;

// === impl SplitAlgorithm ===

impl SplitAlgorithm {
    /// The number of keys in the key space.
    fn key_count(self) -> u128 {
        match self {
            Self::HexString => 1 << 32,
            Self::Uniform => 1 << 64,
            Self::DecimalString => 100_000_000,
        }
    }

    fn key(self, position: u64) -> Vec<u8> {
        match self {
            Self::HexString => format!("{position:08x}").into_bytes(),
            Self::Uniform => position.to_be_bytes().to_vec(),
            Self::DecimalString => format!("{position:08}").into_bytes(),
        }
    }
}

/// The keys that split a table into `count` regions, each with the prefix `prefix`.
///
/// # Errors
/// [`Error::BadSplit`] if `count` is not from 1 to [`REGIONS_MAX`].
pub fn split_keys(
    algorithm: SplitAlgorithm,
    count: u32,
    prefix: &str,
) -> Result<Vec<Bytes>, Error> {
    if !(1..=REGIONS_MAX).contains(&count) {
        return Err(Error::BadSplit {
            reason: format!("{count} regions; a table can be created with 1 to {REGIONS_MAX}"),
        });
    }
    let width = algorithm.key_count() / u128::from(count);
    let key_at = |index: u32| {
        let position = u64::try_from(width * u128::from(index)).unwrap_or(u64::MAX);
        let mut key = prefix.as_bytes().to_vec();
        key.extend(algorithm.key(position));
        Bytes::from(key)
    };
    Ok((1..count).map(key_at).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::SplitAlgorithm::*;
    use super::*;

    fn text(algorithm: SplitAlgorithm, count: u32, prefix: &str) -> Vec<String> {
        let keys = split_keys(algorithm, count, prefix).unwrap();
        keys.iter().map(|key| String::from_utf8(key.to_vec()).unwrap()).collect()
    }

    /// The results of `org.apache.hadoop.hbase.util.RegionSplitter`, which its `TestRegionSplitter`
    /// expects.
    #[test]
    fn keys_are_those_of_apache_hbase() {
        assert_eq!(text(HexString, 2, ""), ["80000000"]);
        assert_eq!(text(HexString, 3, ""), ["55555555", "aaaaaaaa"]);
        assert_eq!(text(HexString, 4, ""), ["40000000", "80000000", "c0000000"]);
        assert_eq!(text(DecimalString, 3, ""), ["33333333", "66666666"]);
        assert_eq!(text(DecimalString, 4, ""), ["25000000", "50000000", "75000000"]);
        assert_eq!(split_keys(Uniform, 3, "").unwrap(), [[0x55; 8].as_slice(), &[0xaa; 8]]);
        assert_eq!(split_keys(Uniform, 2, "").unwrap(), [[0x80, 0, 0, 0, 0, 0, 0, 0].as_slice()]);
    }

    #[test]
    fn sixteen_hexadecimal_regions_begin_with_each_digit() {
        let digits: String =
            text(HexString, 16, "").iter().filter_map(|key| key.chars().next()).collect();
        assert_eq!(digits, "123456789abcdef");
    }

    #[test]
    fn a_prefix_stands_before_each_key() {
        let keys = text(DecimalString, 12, "user");
        assert_eq!(keys.len(), 11);
        assert_eq!(keys[0], "user08333333");
        assert_eq!(keys[10], "user91666663");
    }

    #[test]
    fn one_region_has_no_split_key_and_none_is_refused() {
        assert!(split_keys(HexString, 1, "").unwrap().is_empty());
        for count in [0, REGIONS_MAX + 1] {
            let error = split_keys(HexString, count, "").unwrap_err().to_string();
            assert!(error.contains("1 to 10000"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn keys_ascend_and_cut_into_as_many_regions_as_asked(count in 1..=REGIONS_MAX) {
            for algorithm in [HexString, Uniform, DecimalString] {
                let keys = split_keys(algorithm, count, "p").unwrap();
                prop_assert_eq!(keys.len() + 1, count as usize);
                prop_assert!(keys.is_sorted_by(|a, b| a < b));
            }
        }
    }
}
