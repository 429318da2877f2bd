//! Whether the operations on one row have an order that agrees with every answer.
//!
//! The search visits begins and ends in the order in which they happened. It keeps every state that
//! the row may be in: its value, and which of the operations under way have taken effect (the
//! just-in-time search of G. Lowe, "Testing for linearizability"). Its cost therefore depends on
//! how many operations overlap, not on how many a row has.
//!
//! An operation that was never answered need not take effect before an answer requires it. Of two
//! states that are otherwise equal, the one in which fewer such operations have taken effect allows
//! everything that the other one allows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Entry, Operation};

/// Maximum operations under way at once, unanswered ones included: each is a bit of one number.
const UNDER_WAY_MAX: usize = 128;

/// One possible state of a row at one moment.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Possibility {
    value: i64,
    /// The operations under way that have taken effect, as bits at their places in [`UnderWay`].
    effective: u128,
}

/// The operations that have begun and not ended. Each keeps its place until it ends.
#[derive(Default)]
struct UnderWay(Vec<Option<Begun>>);

/// The operation that began, and its answer if it has one.
#[derive(Clone, Copy)]
struct Begun {
    operation: Operation,
    answer: Option<i64>,
}

/// Returns the first operation, in the order of their ends, whose answer no order explains.
pub(super) fn first_unexplained(entries: &[Entry]) -> Option<usize> {
    let mut under_way = UnderWay::default();
    let mut places = BTreeMap::new();
    let mut possible = BTreeSet::from([Possibility { value: 0, effective: 0 }]);
    for index in events(entries) {
        let Some(entry) = entries.get(index) else { continue };
        let Entry { operation, answer, .. } = *entry;
        match places.get(&index) {
            None => _ = places.insert(index, under_way.begin(Begun { operation, answer })),
            Some(place) => {
                possible = under_way.end(&possible, *place);
                if possible.is_empty() {
                    return Some(index);
                }
            }
        }
    }
    None
}

/// The operations that begin and end, in order: each appears once, and a second time if it ends.
fn events(entries: &[Entry]) -> Vec<usize> {
    let counted = || entries.iter().enumerate().filter(|(_, entry)| !entry.is_void);
    let begins = counted().map(|(index, entry)| (entry.begun, index));
    let ends = counted().filter_map(|(index, entry)| Some((entry.ended?, index)));
    let mut events: Vec<_> = begins.chain(ends).collect();
    events.sort_unstable();
    events.into_iter().map(|(_, index)| index).collect()
}

/// Returns the answer and the new value.
fn apply(operation: Operation, value: i64) -> (i64, i64) {
    match operation {
        Operation::Read => (value, value),
        Operation::Add(amount) => (value.wrapping_add(amount), value.wrapping_add(amount)),
        Operation::Replace(expected, new) if expected == value => (1, new),
        Operation::Replace(..) => (0, value),
        Operation::Append(token) => (appended(value, token), appended(value, token)),
        Operation::Delete => (0, 0),
    }
}

impl Operation {
    /// Whether the answer alone determines the new value.
    fn fixes_value(self, answer: i64) -> bool {
        !matches!(self, Self::Replace(..)) || answer == 1
    }
}

/// The number that represents a row to which `token` was appended; 0 represents a row without a
/// value.
fn appended(value: i64, token: i64) -> i64 {
    // The golden ratio in 64 bits: any odd number that mixes well does.
    const MULTIPLIER: i64 = 0x9E37_79B9_7F4A_7C15_u64 as i64;
    (value.rotate_left(23) ^ token).wrapping_mul(MULTIPLIER).wrapping_add(1)
}

/// The number that represents the list `tokens`.
pub(super) fn of_tokens(tokens: impl IntoIterator<Item = i64>) -> i64 {
    tokens.into_iter().fold(0, appended)
}

// === impl Possibility ===

impl Possibility {
    fn with(self, place: usize, value: i64) -> Self {
        Self { value, effective: self.effective | 1 << place }
    }

    fn has(self, place: usize) -> bool {
        self.effective & 1 << place != 0
    }

    /// Whether `other` has the same value, and every operation that is effective here is effective
    /// there.
    fn allows_all_of(self, other: Self) -> bool {
        self.value == other.value && self.effective & !other.effective == 0
    }
}

// === impl UnderWay ===

impl UnderWay {
    /// # Panics
    /// More operations overlap than one number has bits; [`super::History::is_full`] prevents it.
    fn begin(&mut self, begun: Begun) -> usize {
        let free = self.0.iter().position(Option::is_none);
        let place = free.unwrap_or(self.0.len());
        assert!(place < UNDER_WAY_MAX, "more than {UNDER_WAY_MAX} operations on a row overlap");
        self.0.resize(self.0.len().max(place + 1), None);
        self.0[place] = Some(begun);
        place
    }

    /// The possible states once the operation in `place` has ended, and so has taken effect.
    fn end(&mut self, possible: &BTreeSet<Possibility>, place: usize) -> BTreeSet<Possibility> {
        let mut tried = BTreeSet::new();
        let mut ended = BTreeSet::new();
        let mut pending: Vec<Possibility> = possible.iter().copied().collect();
        while let Some(before) = pending.pop() {
            if !tried.insert(before) {
                continue;
            }
            if before.has(place) {
                let effective = before.effective & !(1 << place);
                ended.insert(Possibility { effective, ..before });
                continue;
            }
            for (other, operation, answer) in self.answered() {
                if !before.has(other) {
                    pending.extend(self.explain(before, other, operation, answer));
                }
            }
        }
        self.0[place] = None;
        ended
    }

    /// The states in which the operation in `place` has just returned its answer, after as few
    /// unanswered operations as possible have taken effect.
    fn explain(
        &self,
        before: Possibility,
        place: usize,
        operation: Operation,
        answer: i64,
    ) -> Vec<Possibility> {
        let mut explained: Vec<Possibility> = Vec::new();
        let mut tried = BTreeSet::from([before]);
        let mut pending = VecDeque::from([before]);
        // Breadth first: states in which fewer operations have taken effect come first.
        while let Some(state) = pending.pop_front() {
            let (given, value) = apply(operation, state.value);
            if given == answer {
                let after = state.with(place, value);
                if !explained.iter().any(|fewer| fewer.allows_all_of(after)) {
                    explained.push(after);
                }
                if operation.fixes_value(answer) {
                    continue;
                }
            }
            for (other, operation) in self.unanswered().filter(|(other, _)| !state.has(*other)) {
                let next = state.with(other, apply(operation, state.value).1);
                if next.value != state.value && tried.insert(next) {
                    pending.push_back(next);
                }
            }
        }
        explained
    }

    fn answered(&self) -> impl Iterator<Item = (usize, Operation, i64)> {
        let begun = self.0.iter().enumerate();
        begun.filter_map(|(place, begun)| {
            let Begun { operation, answer } = (*begun)?;
            Some((place, operation, answer?))
        })
    }

    fn unanswered(&self) -> impl Iterator<Item = (usize, Operation)> {
        let begun = self.0.iter().enumerate();
        begun.filter_map(|(place, begun)| {
            let Begun { operation, answer } = (*begun)?;
            answer.is_none().then_some((place, operation))
        })
    }
}
