//! A client that contends for counters with others: increments, conditional writes and reads of the
//! same rows, all of which go into the history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use basalt_client::{
    CheckAndMutate, Comparison, Get, Increment, Outcome, Put, RowMutation, RowResult, Table,
};
use basalt_runtime::Random;
use bytes::Bytes;

use super::{History, Operation};

/// What all contenders of a history do alike.
#[derive(Clone, Debug)]
pub struct Contest {
    /// Where all that they do is noted.
    pub history: Arc<History>,
    /// What the rows begin with, one for each region.
    pub prefixes: Vec<String>,
    /// The family that is written.
    pub family: String,
    /// The column that is written.
    pub qualifier: Bytes,
    /// How long a read may take.
    pub read_timeout: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Contender {
    contest: Arc<Contest>,
    table: Table,
    random: Random,
    /// The number that was seen last in each row.
    last: BTreeMap<Bytes, i64>,
    /// Rows before this one have been filled, by prefix.
    next: Vec<u64>,
}

/// How many of ten operations add, and how many replace; the others read.
const ADDS_OF_TEN: u64 = 4;
const REPLACES_OF_TEN: u64 = 3;
/// What a counter is replaced by.
const NEW_VALUES: std::ops::Range<u64> = 1_000..1_000_000;

// === impl Contender ===

impl Contender {
    /// One that has done nothing yet. Each needs a connection, and so nonces, of its own.
    pub fn new(contest: &Arc<Contest>, table: Table, random: Random) -> Self {
        let next = vec![0; contest.prefixes.len()];
        Self { contest: Arc::clone(contest), table, random, last: BTreeMap::new(), next }
    }

    /// Does one operation.
    pub async fn contend_once(&mut self) {
        let row = self.choose_row();
        match self.random.in_range(0..10) {
            dice if dice < ADDS_OF_TEN => self.add(row).await,
            dice if dice < ADDS_OF_TEN + REPLACES_OF_TEN => self.replace(row).await,
            _ => self.read(row).await,
        }
    }

    /// A row of any region that has room for more.
    fn choose_row(&mut self) -> Bytes {
        let place = self.random.in_range(0..self.next.len().max(1) as u64) as usize;
        let (Some(prefix), Some(next)) =
            (self.contest.prefixes.get(place), self.next.get_mut(place))
        else {
            return Bytes::new();
        };
        loop {
            let row = Bytes::from(format!("{prefix}{next:04}"));
            if !self.contest.history.is_full(&row) {
                return row;
            }
            self.last.remove(&row);
            *next += 1;
        }
    }

    async fn add(&mut self, row: Bytes) {
        let amount = i64::try_from(self.random.in_range(1..10)).unwrap_or(1);
        let id = self.contest.history.begin(&row, Operation::Add(amount));
        let Contest { history, family, qualifier, .. } = &*self.contest;
        let increment = Increment::new(row.clone()).column(family.as_bytes(), qualifier, amount);
        if let Ok(result) = self.table.increment(&increment).await {
            let sum = self.contest.number(&result);
            history.end(&id, sum);
            self.last.insert(row, sum);
        }
    }

    async fn replace(&mut self, row: Bytes) {
        let expected = self.last.get(&row).copied().unwrap_or(0);
        let new = i64::try_from(self.random.in_range(NEW_VALUES)).unwrap_or(1);
        let id = self.contest.history.begin(&row, Operation::Replace(expected, new));
        let Contest { history, family, qualifier, .. } = &*self.contest;
        let value = |number: i64| Bytes::copy_from_slice(&number.to_be_bytes());
        let put = Put::new(row.clone()).column(family.as_bytes(), qualifier, &value(new));
        let check = CheckAndMutate {
            family: Bytes::copy_from_slice(family.as_bytes()),
            qualifier: qualifier.clone(),
            comparison: Comparison::Equal,
            // A counter is absent as long as it is 0: nothing makes it less.
            value: (expected != 0).then(|| value(expected)),
            mutation: RowMutation::Put(put),
        };
        if let Ok(replaced) = self.table.check_and_mutate(&check).await {
            history.end(&id, i64::from(replaced));
            if replaced {
                self.last.insert(row, new);
            }
        }
    }

    async fn read(&mut self, row: Bytes) {
        let history = &self.contest.history;
        let id = history.begin(&row, Operation::Read);
        match self.table.try_get(&Get::new(row.clone()), self.contest.read_timeout).await {
            Outcome::Acked(result) => {
                let found = self.contest.number(&result);
                history.end(&id, found);
                self.last.insert(row, found);
            }
            Outcome::Failed(_) | Outcome::Unknown(_) => history.forget(&id),
        }
    }
}

// === impl Contest ===

impl Contest {
    /// The number in a row, 0 if there is none.
    fn number(&self, row: &RowResult) -> i64 {
        let value = row.value(self.family.as_bytes(), &self.qualifier);
        value.and_then(|value| value.try_into().ok()).map_or(0, i64::from_be_bytes)
    }
}
