//! The positions of one region's records: ascending ranges, encoded as differences.
//!
//! ```text
//! range │ varint bytes since the end of the one before │ varint length │
//! ```
//! A range is one or more complete records. Consecutive records share a range, as long as it stays
//! short enough to be read at once.

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes};

use crate::wal::edit::{RECORD_BYTES_MAX, RECORD_BYTES_MIN, RECORD_PREFIX_BYTES};
use crate::wal::error::Defect;

/// A range of more than one record is at most this long.
const RANGE_BYTES_MAX: u64 = 256 << 10;
/// A range of one record is at most this long.
const RECORD_RANGE_BYTES_MAX: u64 = (RECORD_PREFIX_BYTES + RECORD_BYTES_MAX) as u64;
const RECORD_RANGE_BYTES_MIN: u64 = (RECORD_PREFIX_BYTES + RECORD_BYTES_MIN) as u64;

/// Builds the ranges of one region.
#[derive(Debug, Default)]
pub(super) struct RangesBuilder {
    encoded: Vec<u8>,
    /// Where the last encoded range ended.
    encoded_end: u64,
    /// The range that may still grow.
    open: Range<u64>,
}

/// Reads ranges back.
#[derive(Debug)]
pub(super) struct Ranges {
    encoded: Bytes,
    previous_end: u64,
    /// No range may end after this offset.
    end: u64,
}

// === impl RangesBuilder ===

impl RangesBuilder {
    /// Adds a record, which must come after all records added before.
    pub(super) fn add(&mut self, record: Range<u64>) {
        let together = record.end - self.open.start;
        if record.start == self.open.end && together <= RANGE_BYTES_MAX {
            self.open.end = record.end;
            return;
        }
        self.encode_open();
        self.open = record;
    }

    /// The encoded ranges.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.encode_open();
        self.encoded
    }

    fn encode_open(&mut self) {
        if !self.open.is_empty() {
            put_varint(&mut self.encoded, self.open.start - self.encoded_end);
            put_varint(&mut self.encoded, self.open.end - self.open.start);
            self.encoded_end = self.open.end;
        }
    }
}

// === impl Ranges ===

impl Ranges {
    pub(super) fn new(encoded: Bytes, end: u64) -> Self {
        Self { encoded, previous_end: 0, end }
    }

    /// The next range; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Range<u64>>, Defect> {
        if self.encoded.is_empty() {
            return Ok(None);
        }
        let gap = take_varint(&mut self.encoded)?;
        let length = take_varint(&mut self.encoded)?;
        if !(RECORD_RANGE_BYTES_MIN..=RECORD_RANGE_BYTES_MAX).contains(&length) {
            return Err(Defect::Length {
                part: "range of records",
                found: length,
                min: RECORD_RANGE_BYTES_MIN,
                max: RECORD_RANGE_BYTES_MAX,
            });
        }
        let start = self.previous_end.saturating_add(gap);
        let end = start.saturating_add(length);
        if end > self.end {
            return Err(Defect::Mismatch {
                what: "the end of a range of records, at most that of the log",
                found: end,
                expected: self.end,
            });
        }
        self.previous_end = end;
        Ok(Some(start..end))
    }
}

fn put_varint(output: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        output.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    output.put_u8(number as u8);
}

fn take_varint(input: &mut Bytes) -> Result<u64, Defect> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = input.try_get_u8().map_err(|_| Defect::CutOff {
            part: "range of records",
            needed: 1,
            left: 0,
        })?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Defect::Length { part: "number of a range", found: 11, min: 1, max: 10 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(records: &[Range<u64>]) -> Vec<Range<u64>> {
        let mut builder = RangesBuilder::default();
        for record in records {
            builder.add(record.clone());
        }
        let mut ranges = Ranges::new(builder.finish().into(), u64::MAX);
        std::iter::from_fn(|| ranges.next().unwrap()).collect()
    }

    #[test]
    fn records_that_follow_one_another_share_a_range() {
        let records = [512..612, 612..700, 800..900, 900..1000];
        assert_eq!(round_trip(&records), [512..700, 800..1000]);
    }

    #[test]
    fn a_range_stays_short_enough_to_be_read_at_once() {
        let record = RANGE_BYTES_MAX / 2;
        let records: Vec<_> = (0..5).map(|i| i * record..(i + 1) * record).collect();
        let expected = [0..2 * record, 2 * record..4 * record, 4 * record..5 * record];
        assert_eq!(round_trip(&records), expected);
        let long = 5..5 + 3 * RANGE_BYTES_MAX;
        assert_eq!(round_trip(std::slice::from_ref(&long)), [long]);
    }

    #[test]
    fn a_range_beyond_the_end_is_refused() {
        let mut builder = RangesBuilder::default();
        builder.add(512..700);
        let encoded = Bytes::from(builder.finish());
        assert!(Ranges::new(encoded.clone(), 699).next().is_err());
        assert!(Ranges::new(encoded.slice(..2), 700).next().is_err());
        assert!(Ranges::new(Bytes::from_static(&[0xff; 32]), 700).next().is_err());
    }
}
