//! Clients that contend for counters: increments, conditional writes and reads of the same rows,
//! all of which go into the history that is checked for linearizability.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use basalt_client::{
    CheckAndMutate, Comparison, Get, Increment, Outcome, Put, RowMutation, RowResult, Table,
};
use basalt_runtime::Random;
use bytes::Bytes;

use super::{ATTEMPT_TIMEOUT, COUNTER_PREFIX, QUALIFIER, Workload, value};
use crate::invariants::Operation;
use crate::plan::FAMILY;

/// The pause between two operations of a client.
const PACE_MS: std::ops::Range<u64> = 5..40;
/// How many of ten operations add, and how many replace; the others read.
const ADDS_OF_TEN: u64 = 4;
const REPLACES_OF_TEN: u64 = 3;
/// What a counter is replaced by.
const NEW_VALUES: std::ops::Range<u64> = 1_000..1_000_000;

/// See the module.
pub(super) struct Contender {
    workload: Arc<Workload>,
    table: Table,
    random: Random,
    /// The number that was seen last in each row.
    last: BTreeMap<Bytes, i64>,
    /// Rows before this one have been filled, by region.
    next: Vec<u64>,
}

// === impl Contender ===

impl Contender {
    pub(super) fn new(workload: &Arc<Workload>, table: Table, random: Random) -> Self {
        let next = vec![0; workload.config.regions as usize];
        Self { workload: Arc::clone(workload), table, random, last: BTreeMap::new(), next }
    }

    pub(super) async fn contend(&mut self) {
        while !self.workload.is_over() {
            let row = self.choose_row();
            match self.random.in_range(0..10) {
                dice if dice < ADDS_OF_TEN => self.add(row).await,
                dice if dice < ADDS_OF_TEN + REPLACES_OF_TEN => self.replace(row).await,
                _ => self.read(row).await,
            }
            let pace = Duration::from_millis(self.random.in_range(PACE_MS));
            tokio::time::sleep(pace).await;
        }
    }

    /// A row of any region that has room for more.
    fn choose_row(&mut self) -> Bytes {
        let region = self.random.in_range(0..u64::from(self.workload.config.regions));
        let Some(next) = self.next.get_mut(usize::try_from(region).unwrap_or(0)) else {
            return Bytes::new();
        };
        loop {
            let row = Bytes::from(format!("{region:02}-{COUNTER_PREFIX}-{next:04}"));
            if !self.workload.history.is_full(&row) {
                return row;
            }
            *next += 1;
        }
    }

    async fn add(&mut self, row: Bytes) {
        let amount = i64::try_from(self.random.in_range(1..10)).unwrap_or(1);
        let id = self.workload.history.begin(&row, Operation::Add(amount));
        let increment = Increment::new(row.clone()).column(FAMILY.as_bytes(), QUALIFIER, amount);
        if let Ok(result) = self.table.increment(&increment).await {
            let sum = number(&result);
            self.workload.history.end(&id, sum);
            self.last.insert(row, sum);
        }
    }

    async fn replace(&mut self, row: Bytes) {
        let expected = self.last.get(&row).copied().unwrap_or(0);
        let new = i64::try_from(self.random.in_range(NEW_VALUES)).unwrap_or(1);
        let id = self.workload.history.begin(&row, Operation::Replace(expected, new));
        let value = |number: i64| Bytes::copy_from_slice(&number.to_be_bytes());
        let put = Put::new(row.clone()).column(FAMILY.as_bytes(), QUALIFIER, &value(new));
        let check = CheckAndMutate {
            family: FAMILY.into(),
            qualifier: QUALIFIER.into(),
            comparison: Comparison::Equal,
            // A counter is absent as long as it is 0: nothing makes it less.
            value: (expected != 0).then(|| value(expected)),
            mutation: RowMutation::Put(put),
        };
        if let Ok(replaced) = self.table.check_and_mutate(&check).await {
            self.workload.history.end(&id, i64::from(replaced));
            if replaced {
                self.last.insert(row, new);
            }
        }
    }

    async fn read(&mut self, row: Bytes) {
        let id = self.workload.history.begin(&row, Operation::Read);
        match self.table.try_get(&Get::new(row.clone()), ATTEMPT_TIMEOUT).await {
            Outcome::Acked(result) => {
                let found = number(&result);
                self.workload.history.end(&id, found);
                self.last.insert(row, found);
            }
            Outcome::Failed(_) | Outcome::Unknown(_) => self.workload.history.forget(&id),
        }
    }
}

/// The number in a row, 0 if there is none.
fn number(row: &RowResult) -> i64 {
    let bytes = value(row, FAMILY).and_then(|value| value.try_into().ok());
    bytes.map_or(0, i64::from_be_bytes)
}
