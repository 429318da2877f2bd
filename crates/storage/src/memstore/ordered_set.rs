//! An ordered set that only grows, optimized for walks over neighbours.
//!
//! It is a B-tree with two kinds of nodes: a standard B-tree above, and long leaves below.
//! Neighbours in a leaf are adjacent in memory, so the processor prefetches what a walk needs next.
//! In a `BTreeSet`, a walk has to wait for one short node after the other.

use std::collections::BTreeMap;
use std::iter;
use std::ops::Bound;

/// The number of entries at which a leaf is split. With longer leaves an insert moves more entries,
/// while a walk gains little.
const LEAF_ENTRIES: usize = 64;

#[derive(Debug)]
pub(super) struct OrderedSet<T> {
    /// The entries below the first key of `leaves`.
    lowest: Vec<T>,
    /// The leaves, by the entry that each began with. The other entries of a leaf are higher, and
    /// below the next key.
    leaves: BTreeMap<T, Vec<T>>,
}

// === impl OrderedSet ===

impl<T: Ord + Clone> OrderedSet<T> {
    /// Adds `entry`; replaces an equal one if there is one.
    pub(super) fn insert(&mut self, entry: T) {
        let leaf = match self.leaves.range_mut(..=&entry).next_back() {
            Some((_, leaf)) => leaf,
            None => &mut self.lowest,
        };
        let at = match leaf.binary_search(&entry) {
            Ok(at) => {
                leaf[at] = entry;
                return;
            }
            Err(at) => at,
        };
        leaf.insert(at, entry);
        if leaf.len() < LEAF_ENTRIES {
            return;
        }
        // Entries that arrive in ascending order leave full leaves behind.
        let kept = if at + 1 == leaf.len() { at } else { leaf.len() / 2 };
        let upper = leaf.split_off(kept);
        if let Some(first) = upper.first().cloned() {
            self.leaves.insert(first, upper);
        }
    }

    /// The entries after `entry` in ascending order; `entry` itself too, if it is present and
    /// `included` is true.
    pub(super) fn ascending(&self, entry: &T, included: bool) -> impl Iterator<Item = &T> + Clone {
        let leaf = self.leaves.range(..=entry).next_back();
        let leaf = leaf.map_or(&self.lowest, |(_, leaf)| leaf);
        let before = leaf.partition_point(|other| other < entry || (other == entry && !included));
        let later = self.leaves.range((Bound::Excluded(entry), Bound::Unbounded));
        leaf.iter().skip(before).chain(later.flat_map(|(_, leaf)| leaf))
    }

    /// The entries before `entry`, or all, in descending order.
    pub(super) fn descending(&self, before: Option<&T>) -> impl Iterator<Item = &T> {
        let highest = before.map_or(Bound::Unbounded, Bound::Included);
        let leaves = self.leaves.range((Bound::Unbounded, highest)).rev().map(|(_, leaf)| leaf);
        let entries = leaves.chain(iter::once(&self.lowest)).flat_map(|leaf| leaf.iter().rev());
        entries.skip_while(move |entry| before.is_some_and(|before| *entry >= before))
    }
}

impl<T> Default for OrderedSet<T> {
    fn default() -> Self {
        Self { lowest: Vec::new(), leaves: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(entries: impl IntoIterator<Item = u32>) -> OrderedSet<u32> {
        let mut set = OrderedSet::default();
        entries.into_iter().for_each(|entry| set.insert(entry));
        set
    }

    #[test]
    fn ascending_entries_fill_their_leaves() {
        let set = set(0..1000);
        assert!(set.leaves.values().rev().skip(1).all(|leaf| leaf.len() == LEAF_ENTRIES - 1));
        assert!(set.ascending(&0, true).copied().eq(0..1000));
    }

    #[test]
    fn descending_entries_do_not_make_a_leaf_each() {
        let set = set((0..1000).rev());
        assert!(set.leaves.len() < 1000 / (LEAF_ENTRIES / 4), "{} leaves", set.leaves.len());
        assert!(set.ascending(&0, true).copied().eq(0..1000));
    }

    proptest! {
        #[test]
        fn it_is_a_set_in_order(
            entries in vec(0..500_u32, 0..2000),
            from in 0..500_u32,
            included in any::<bool>(),
        ) {
            let (set, expected) = (set(entries.clone()), BTreeSet::from_iter(entries));
            let above = match included {
                true => Bound::Included(from),
                false => Bound::Excluded(from),
            };
            let above = expected.range((above, Bound::Unbounded));
            prop_assert!(set.ascending(&from, included).eq(above));
            prop_assert!(set.descending(Some(&from)).eq(expected.range(..from).rev()));
            prop_assert!(set.descending(None).eq(expected.iter().rev()));
        }
    }
}
