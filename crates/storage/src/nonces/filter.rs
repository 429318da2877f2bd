//! A bloom filter that shows without reading a nonce file that a nonce is not in it.
//!
//! With 16 bits and 11 hashes per entry, 1 of 2,000 absent nonces passes.

use bytes::{Bytes, BytesMut};

use crate::wal::Nonce;

/// The bytes of a filter per entry.
const BYTES_PER_ENTRY: u64 = 2;
/// How many bits an entry sets.
const HASHES: u64 = 11;

/// A filter under construction.
#[derive(Debug)]
pub(super) struct FilterBuilder {
    bits: BytesMut,
}

/// A finished filter, as stored in a file.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    bits: Bytes,
}

// === impl FilterBuilder ===

impl FilterBuilder {
    /// A filter for at most `entries` entries.
    pub(super) fn new(entries: u64) -> Self {
        let bytes = filter_bytes(entries) as usize;
        Self { bits: BytesMut::zeroed(bytes) }
    }

    pub(super) fn add(&mut self, nonce: Nonce) {
        for (byte, mask) in places(nonce, self.bits.len()) {
            if let Some(bits) = self.bits.get_mut(byte) {
                *bits |= mask;
            }
        }
    }

    pub(super) fn finish(self) -> Bytes {
        self.bits.freeze()
    }
}

// === impl Filter ===

impl Filter {
    pub(super) fn new(bits: Bytes) -> Self {
        Self { bits }
    }

    /// The length of the filter, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bits.len() as u64
    }

    /// False if `nonce` is certainly not in the file.
    pub(super) fn may_contain(&self, nonce: Nonce) -> bool {
        places(nonce, self.bits.len())
            .all(|(byte, mask)| self.bits.get(byte).is_some_and(|bits| bits & mask != 0))
    }
}

/// The length of a filter for that many entries, in bytes.
pub(super) fn filter_bytes(entries: u64) -> u64 {
    entries.saturating_mul(BYTES_PER_ENTRY).max(8)
}

/// The bits of a nonce, each as a byte and a mask.
fn places(nonce: Nonce, bytes: usize) -> impl Iterator<Item = (usize, u8)> {
    let first = mixed(nonce.nonce ^ mixed(nonce.group));
    let step = mixed(first) | 1;
    let bits = bytes as u128 * 8;
    (0..HASHES).map(move |hash| {
        let hash = first.wrapping_add(hash.wrapping_mul(step));
        let bit = ((u128::from(hash) * bits) >> 64) as usize;
        (bit / 8, 1 << (bit % 8))
    })
}

/// The finalizer of SplitMix64. It is needed because clients may number their nonces consecutively.
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_found_and_little_else() {
        let nonce = |nonce| Nonce { group: 3, nonce };
        let mut builder = FilterBuilder::new(20_000);
        (0..20_000).for_each(|number| builder.add(nonce(number)));
        let filter = Filter::new(builder.finish());
        assert!((0..20_000).all(|number| filter.may_contain(nonce(number))));
        let others = (20_000..220_000).filter(|number| filter.may_contain(nonce(*number)));
        let others = others.count();
        assert!(others < 200, "{others} of 200,000 others");
    }
}
