//! YCSB's workloads: how often each row is used, and which operations are performed on it. Pure.
//!
//! The distributions are those of YCSB core with its defaults. Requests to rows are *scrambled
//! zipfian*: a few rows get most requests, and a hash spreads them over the whole table. Keys are
//! `user` followed by the hash of the row's number. A row has ten fields of 100 bytes.

use basalt_runtime::Random;
use bytes::Bytes;

/// A workload of YCSB.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Mix {
    /// Inserts all rows.
    Load,
    /// Half reads, half updates.
    A,
    /// 95 % reads, 5 % updates.
    B,
    /// Reads only.
    C,
    /// 95 % scans of up to 100 rows, 5 % inserts.
    E,
    /// Half reads, half read-modify-writes.
    F,
}

/// One operation; rows are numbers in the order in which they were inserted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Reads all fields of a row.
    Read(u64),
    /// Writes one field of a row.
    Update(u64),
    /// Writes all fields of the next row.
    Insert,
    /// Reads this many rows, starting at a row.
    Scan(u64, u32),
    /// Reads a row, then writes one field of it.
    ReadModifyWrite(u64),
}

/// Numbers from 0, smaller ones more often: YCSB's `ZipfianGenerator`, after Gray et al., "Quickly
/// Generating Billion-Record Synthetic Databases".
#[derive(Clone, Debug)]
pub struct Zipfian {
    items: u64,
    zeta: f64,
    eta: f64,
}

/// Fields of a row.
pub(super) const FIELDS: usize = 10;
/// The length of a field in bytes.
pub(super) const FIELD_BYTES: usize = 100;
const THETA: f64 = 0.99;
const SCAN_ROWS_MAX: u64 = 100;
/// Scrambled zipfian numbers are drawn from this many items, whatever the table's size, as in YCSB.
const SCRAMBLED_ITEMS: u64 = 10_000_000_000;
/// The zeta of [`SCRAMBLED_ITEMS`]; YCSB also has it as a constant.
const SCRAMBLED_ZETA: f64 = 26.469_028_201_783_02;

// === impl Mix ===

impl Mix {
    /// All mixes, in the order in which they run.
    pub const ALL: [Self; 6] = [Self::Load, Self::A, Self::B, Self::C, Self::F, Self::E];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::E => "E",
            Self::F => "F",
        }
    }

    /// The mix with the name `name`.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mix| mix.name().eq_ignore_ascii_case(name))
    }

    /// The next operation on a table that has `rows` rows.
    pub fn next(self, zipfian: &Zipfian, rows: u64, random: &Random) -> Operation {
        let row = || fnv(zipfian.next(random)) % rows.max(1);
        let percent = random.in_range(0..100);
        match self {
            Self::Load => Operation::Insert,
            Self::A if percent < 50 => Operation::Update(row()),
            Self::B if percent < 5 => Operation::Update(row()),
            Self::E if percent < 5 => Operation::Insert,
            Self::E => {
                let length = random.in_range(1..SCAN_ROWS_MAX + 1);
                Operation::Scan(row(), u32::try_from(length).unwrap_or(1))
            }
            Self::F if percent < 50 => Operation::ReadModifyWrite(row()),
            Self::A | Self::B | Self::C | Self::F => Operation::Read(row()),
        }
    }
}

// === impl Zipfian ===

impl Zipfian {
    /// The generator for scrambled zipfian rows.
    pub fn scrambled() -> Self {
        Self::with_zeta(SCRAMBLED_ITEMS, SCRAMBLED_ZETA)
    }

    fn with_zeta(items: u64, zeta: f64) -> Self {
        let zeta_2 = 1.0 + 0.5_f64.powf(THETA);
        let eta = (1.0 - (2.0 / items as f64).powf(1.0 - THETA)) / (1.0 - zeta_2 / zeta);
        Self { items, zeta, eta }
    }

    /// The next number.
    pub fn next(&self, random: &Random) -> u64 {
        let uniform = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let scaled = uniform * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(THETA) {
            return 1;
        }
        let alpha = 1.0 / (1.0 - THETA);
        let number = self.items as f64 * (self.eta * uniform - self.eta + 1.0).powf(alpha);
        (number as u64).min(self.items - 1)
    }
}

/// The key of row `number`: `user` and its hash, in decimal.
pub(super) fn key(number: u64) -> Bytes {
    format!("user{}", fnv(number)).into()
}

/// YCSB's 64-bit hash: FNV, as an absolute value.
fn fnv(number: u64) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for byte in number.to_le_bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(1_099_511_628_211);
    }
    hash.cast_signed().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_few_rows_get_most_requests() {
        let (zipfian, random) = (Zipfian::scrambled(), Random::from_seed(1));
        let mut counts = BTreeMap::new();
        for _ in 0..20_000 {
            let Operation::Read(row) = Mix::C.next(&zipfian, 1000, &random) else {
                panic!("C only reads");
            };
            assert!(row < 1000);
            *counts.entry(row).or_insert(0) += 1;
        }
        let most: u64 = *counts.values().max().unwrap();
        // The first item's share is one in zeta.
        assert!((600..1000).contains(&most), "{most}");
        assert!(counts.len() > 900, "{}", counts.len());
    }

    #[test]
    fn mixes_are_what_ycsb_says() {
        let (zipfian, random) = (Zipfian::scrambled(), Random::from_seed(2));
        let share = |mix: Mix, wanted: fn(&Operation) -> bool| {
            let drawn = (0..10_000).map(|_| mix.next(&zipfian, 100, &random));
            drawn.filter(wanted).count() / 100
        };
        let near = |share: usize, wanted: usize| assert!(share.abs_diff(wanted) <= 2, "{share}");
        near(share(Mix::A, |o| matches!(o, Operation::Update(_))), 50);
        near(share(Mix::B, |o| matches!(o, Operation::Update(_))), 5);
        near(share(Mix::E, |o| matches!(o, Operation::Scan(_, 1..=100))), 95);
        near(share(Mix::F, |o| matches!(o, Operation::ReadModifyWrite(_))), 50);
        near(share(Mix::Load, |o| matches!(o, Operation::Insert)), 100);
    }

    #[test]
    fn zipfian_numbers_stay_below_the_number_of_items() {
        let zeta = (1..=50).map(|i| 1.0 / f64::from(i).powf(THETA)).sum();
        let (zipfian, random) = (Zipfian::with_zeta(50, zeta), Random::from_seed(3));
        let numbers: Vec<_> = (0..5000).map(|_| zipfian.next(&random)).collect();
        assert!(numbers.iter().all(|number| *number < 50));
        let zeros = numbers.iter().filter(|number| **number == 0).count();
        let ones = numbers.iter().filter(|number| **number == 1).count();
        assert!(zeros > ones, "{zeros} {ones}");
    }

    #[test]
    fn keys_are_ycsbs() {
        // The keys that YCSB core writes for its first rows.
        assert_eq!(key(0), "user6284781860667377211");
        assert_eq!(key(1), "user8517097267634966620");
    }
}
