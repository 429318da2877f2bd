//! The rows and values that a probe writes: each attempt to write has its own row, which names it.
//!
//! A row is never written twice, so no later write can hide the loss of an earlier one. A row
//! begins with the first row of its region, and is therefore in that region and no other.

use bytes::{BufMut, Bytes, BytesMut};

/// The rows of one region in one run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RegionRows {
    prefix: Bytes,
    run: RunId,
}

/// Distinguishes the runs of a probe on the same table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RunId(pub u64);

/// Follows the first row of the region.
const MARK: &str = "!probe-";
/// Digits of a number in a row.
const DIGITS: usize = 10;

// === impl RegionRows ===

impl RegionRows {
    /// Rows in the region from `start` to `end`; an empty key is no bound. Returns `None` if the
    /// region is too narrow for them.
    pub fn new(start: &[u8], end: &[u8], run: RunId) -> Option<Self> {
        // The second mark begins with the lowest byte: it fits wherever any mark of its length
        // does.
        [MARK, "\0probe-"].into_iter().find_map(|mark| {
            let prefix = Bytes::from([start, format!("{mark}{:016x}-", run.0).as_bytes()].concat());
            let rows = Self { prefix, run };
            (end.is_empty() || rows.end().as_ref() <= end).then_some(rows)
        })
    }

    /// The row of attempt `number`. Rows sort in the order of their numbers.
    pub fn row(&self, number: u32) -> Bytes {
        let mut row = BytesMut::with_capacity(self.prefix.len() + DIGITS);
        row.put_slice(&self.prefix);
        row.put_slice(format!("{number:010}").as_bytes());
        row.freeze()
    }

    /// The first possible row.
    pub fn start(&self) -> Bytes {
        self.prefix.clone()
    }

    /// A row after the last possible one.
    pub fn end(&self) -> Bytes {
        // The prefix ends with `-`; `.` is the next character.
        let mut end = BytesMut::from(self.prefix.as_ref());
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        end.freeze()
    }

    /// The number of the attempt that wrote `row`.
    pub fn number(&self, row: &[u8]) -> Option<u32> {
        let digits = row.strip_prefix(self.prefix.as_ref())?;
        let digits = std::str::from_utf8(digits).ok()?;
        (digits.len() == DIGITS).then(|| digits.parse().ok()).flatten()
    }

    /// The value of attempt `number`: the run and the number, padded to `length`.
    pub fn value(&self, number: u32, length: usize) -> Bytes {
        let mut value = BytesMut::with_capacity(length.max(16));
        value.put_u64(self.run.0);
        value.put_u64(u64::from(number));
        let mut state = self.run.0 ^ u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        while value.len() < length {
            // Incompressible: a store that compressed the values would write less and look faster.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let word = (state ^ (state >> 33)).to_be_bytes();
            value.put_slice(&word[..word.len().min(length - value.len())]);
        }
        value.freeze()
    }

    /// Whether `value` is what attempt `number` wrote.
    pub fn is_value(&self, number: u32, value: &[u8]) -> bool {
        self.value(number, value.len()) == value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(start: &str, end: &str) -> Option<RegionRows> {
        RegionRows::new(start.as_bytes(), end.as_bytes(), RunId(7))
    }

    #[test]
    fn rows_lie_in_their_region() {
        for (start, end) in
            [("", ""), ("", "user1"), ("user1", "user15"), ("user9", ""), ("a", "a!")]
        {
            let rows = rows(start, end).unwrap();
            for row in [rows.row(0), rows.row(u32::MAX)] {
                assert!(row.as_ref() >= start.as_bytes());
                assert!(end.is_empty() || row.as_ref() < end.as_bytes(), "{end}");
                assert!(row >= rows.start() && row < rows.end());
            }
        }
        assert_eq!(rows("a", "a\0"), None);
    }

    #[test]
    fn a_row_key_holds_its_number() {
        let rows = rows("user5", "").unwrap();
        assert_eq!(rows.number(&rows.row(123)), Some(123));
        assert!(rows.row(9) < rows.row(10));
        assert_eq!(rows.number(b"user5!probe"), None);
        assert_eq!(rows.number(&[rows.row(1).as_ref(), b"1"].concat()), None);
    }

    #[test]
    fn a_value_is_known_again() {
        let rows = rows("", "").unwrap();
        let value = rows.value(5, 100);
        assert_eq!(value.len(), 100);
        assert!(rows.is_value(5, &value));
        assert!(!rows.is_value(6, &value));
        let mut damaged = value.to_vec();
        damaged[99] ^= 1;
        assert!(!rows.is_value(5, &damaged));
        assert!(!rows.is_value(5, &[]));
    }
}
