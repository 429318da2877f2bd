//! A client that competes with others for the same rows. Its increments, conditional writes,
//! appends, deletes, batches, gets and scans are all recorded in the history.
//!
//! Each prefix has two kinds of rows: counters, and lists to which numbers are appended. A list
//! grows to kilobytes, so the answers to appends have many different lengths.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use basalt_client::{
    Action, Append, CheckAndMutate, Comparison, Delete, Get, Increment, Outcome, Put, RowMutation,
    RowResult, Scan, Table,
};
use basalt_runtime::Random;
use bytes::Bytes;
use futures::future::BoxFuture;

use super::{History, Operation, OperationId, order};

/// State that all contenders of a history share.
#[derive(Clone, Debug)]
pub struct Contest {
    /// Where all operations are recorded.
    pub history: Arc<History>,
    /// The prefixes of the rows, one for each region.
    pub prefixes: Vec<String>,
    /// The family that is written.
    pub family: String,
    /// The column that is written.
    pub qualifier: Bytes,
    /// The timeout of reads and of attempts that are not repeated.
    pub attempt_timeout: Duration,
}

/// A competing client; see the module.
#[derive(Debug)]
pub struct Contender {
    contest: Arc<Contest>,
    table: Table,
    random: Random,
    /// The last value seen in each counter.
    last: BTreeMap<Bytes, i64>,
    /// The rows in use, by prefix: rows with lower numbers are full.
    current: Vec<Current>,
}

/// The numbers of the rows of one prefix that are in use.
#[derive(Clone, Copy, Debug, Default)]
struct Current {
    counter: u64,
    list: u64,
}

/// The weight of each kind of operation, out of [`CHOICES`].
const ADDS: u64 = 7;
const REPLACES: u64 = 5;
const APPENDS: u64 = 4;
const DELETES: u64 = 1;
const BATCHES: u64 = 2;
const SCANS: u64 = 2;
const LIST_READS: u64 = 2;
const COUNTER_READS: u64 = 4;
const CHOICES: u64 =
    ADDS + REPLACES + APPENDS + DELETES + BATCHES + SCANS + LIST_READS + COUNTER_READS;
/// The values that replace a counter.
const NEW_VALUES: std::ops::Range<u64> = 1_000..1_000_000;
/// Maximum rows in a batch. With several regions, a batch may span two or more.
const BATCH_ROWS_MAX: usize = 4;
/// How many rows one call of a scan reads.
const SCAN_ROWS_PER_CALL: u32 = 2;
/// Bytes of a number in a list.
const TOKEN_BYTES: usize = 8;

/// The two kinds of rows: counters sort before lists.
const COUNTER: &str = "c";
const LIST: &str = "l";

// === impl Contender ===

impl Contender {
    /// A contender that has done nothing yet. Each needs its own connection, and thus its own
    /// nonces.
    pub fn new(contest: &Arc<Contest>, table: Table, random: Random) -> Self {
        let current = vec![Current::default(); contest.prefixes.len()];
        Self { contest: Arc::clone(contest), table, random, last: BTreeMap::new(), current }
    }

    /// Does one operation.
    pub fn contend_once(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.contend())
    }

    async fn contend(&mut self) {
        let prefix = self.choose_prefix();
        let mut dice = self.random.in_range(0..CHOICES);
        let mut is = |share: u64| {
            let chosen = dice < share;
            dice = if chosen { u64::MAX } else { dice - share.min(dice) };
            chosen
        };
        if is(ADDS) {
            let row = self.counter(prefix);
            self.add(row).await;
        } else if is(REPLACES) {
            let row = self.counter(prefix);
            self.replace(row).await;
        } else if is(APPENDS) {
            let row = self.list(prefix);
            self.append(row).await;
        } else if is(DELETES) {
            let is_list = self.random.in_range(0..2) == 0;
            let row = if is_list { self.list(prefix) } else { self.counter(prefix) };
            self.delete(row).await;
        } else if is(BATCHES) {
            self.batch().await;
        } else if is(SCANS) {
            self.scan(prefix).await;
        } else if is(LIST_READS) {
            let row = self.list(prefix);
            self.read(row).await;
        } else {
            let row = self.counter(prefix);
            self.read(row).await;
        }
    }

    fn choose_prefix(&self) -> usize {
        self.random.in_range(0..self.current.len().max(1) as u64) as usize
    }

    /// The counter of a prefix that has room for more operations.
    fn counter(&mut self, prefix: usize) -> Bytes {
        self.row_with_room(prefix, COUNTER, |current| &mut current.counter)
    }

    /// The list of a prefix that has room for more operations.
    fn list(&mut self, prefix: usize) -> Bytes {
        self.row_with_room(prefix, LIST, |current| &mut current.list)
    }

    fn row_with_room(
        &mut self,
        prefix: usize,
        kind: &str,
        number_of: fn(&mut Current) -> &mut u64,
    ) -> Bytes {
        let Some(number) = self.current.get_mut(prefix).map(number_of) else { return Bytes::new() };
        loop {
            let row = self.contest.row(prefix, kind, *number);
            if !self.contest.history.is_full(&row) {
                return row;
            }
            *number += 1;
        }
    }

    fn amount(&self) -> i64 {
        i64::try_from(self.random.in_range(1..10)).unwrap_or(1)
    }

    fn increment(&self, row: &Bytes, amount: i64) -> Increment {
        let Contest { family, qualifier, .. } = &*self.contest;
        Increment::new(row.clone()).column(family.as_bytes(), qualifier, amount)
    }

    async fn add(&mut self, row: Bytes) {
        let amount = self.amount();
        let id = self.contest.history.begin(&row, Operation::Add(amount));
        if let Ok(result) = self.table.increment(&self.increment(&row, amount)).await {
            let sum = self.contest.number(&result);
            self.contest.history.end(&id, sum);
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
            // A counter of 0 is absent: no operation stores 0 or decreases a counter.
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

    async fn append(&mut self, row: Bytes) {
        let token = self.random.next_u64();
        let id = self.contest.history.begin(&row, Operation::Append(token as i64));
        let Contest { history, family, qualifier, .. } = &*self.contest;
        let bytes = token.to_be_bytes();
        let append = Append::new(row.clone()).column(family.as_bytes(), qualifier, &bytes);
        // If the answer is no longer available, the append was applied; its answer stays unknown.
        if let Ok(result) = self.table.append(&append).await {
            history.end(&id, self.contest.tokens(&result));
        }
    }

    async fn delete(&mut self, row: Bytes) {
        let id = self.contest.history.begin(&row, Operation::Delete);
        let Contest { history, family, qualifier, .. } = &*self.contest;
        let delete = Delete::new(row.clone()).column(family.as_bytes(), qualifier);
        // One attempt only: a delete carries no nonce. If an earlier attempt took effect late, it
        // would remove values that were written after the answered one.
        match self.table.try_delete(&delete, self.contest.attempt_timeout).await {
            Outcome::Acked(()) => {
                history.end(&id, 0);
                self.last.remove(&row);
            }
            Outcome::Failed(_) => history.forget(&id),
            Outcome::Unknown(_) => {}
        }
    }

    /// Increments counters of several regions in one batch. Each increment is an operation of its
    /// own.
    async fn batch(&mut self) {
        let mut rows: BTreeMap<Bytes, i64> = BTreeMap::new();
        for _ in 0..BATCH_ROWS_MAX {
            let row = self.counter(self.choose_prefix());
            rows.insert(row, self.amount());
        }
        let begin = |(row, amount): (&Bytes, &i64)| {
            let id = self.contest.history.begin(row, Operation::Add(*amount));
            (id, Action::Increment(self.increment(row, *amount)))
        };
        let (ids, actions): (Vec<OperationId>, Vec<Action>) = rows.iter().map(begin).unzip();
        let results = self.table.batch(&actions).await;
        for ((id, row), result) in ids.iter().zip(rows.into_keys()).zip(results) {
            if let Ok(result) = result {
                let sum = self.contest.number(&result);
                self.contest.history.end(id, sum);
                self.last.insert(row, sum);
            }
        }
    }

    async fn read(&mut self, row: Bytes) {
        let history = Arc::clone(&self.contest.history);
        let id = history.begin(&row, Operation::Read);
        match self.table.try_get(&Get::new(row.clone()), self.contest.attempt_timeout).await {
            Outcome::Acked(result) => history.end(&id, self.note(&row, &result)),
            Outcome::Failed(_) | Outcome::Unknown(_) => history.forget(&id),
        }
    }

    /// Reads the rows of a prefix that are in use with one scan.
    async fn scan(&mut self, prefix: usize) {
        let rows = [self.counter(prefix), self.list(prefix)];
        let begin = |row: &Bytes| (row.clone(), self.contest.history.begin(row, Operation::Read));
        let reads: Vec<(Bytes, OperationId)> = rows.iter().map(begin).collect();
        let [first, last] = rows;
        let stop = Bytes::from([&last[..], &[0]].concat());
        let scan = Scan { rows_per_call: SCAN_ROWS_PER_CALL, ..Scan::range(first, stop) };
        let mut scanner = self.table.scan(scan);
        let scanned = tokio::time::timeout(self.contest.attempt_timeout, scanner.rows()).await;
        let history = Arc::clone(&self.contest.history);
        let Ok(Ok(scanned)) = scanned else {
            for (_, id) in &reads {
                history.forget(id);
            }
            return;
        };
        for (row, id) in reads {
            let found = scanned.iter().find(|found| found.row() == Some(&row[..]));
            let found = found.map_or(0, |found| self.note(&row, found));
            history.end(&id, found);
        }
    }

    /// Notes the value that was found in `row`.
    fn note(&mut self, row: &Bytes, result: &RowResult) -> i64 {
        if self.contest.is_list(row) {
            return self.contest.tokens(result);
        }
        let number = self.contest.number(result);
        self.last.insert(row.clone(), number);
        number
    }
}

// === impl Contest ===

impl Contest {
    fn row(&self, prefix: usize, kind: &str, number: u64) -> Bytes {
        let prefix = self.prefixes.get(prefix).map_or("", String::as_str);
        Bytes::from(format!("{prefix}{kind}{number:04}"))
    }

    fn is_list(&self, row: &[u8]) -> bool {
        let lists = self.prefixes.iter().map(|prefix| format!("{prefix}{LIST}"));
        lists.into_iter().any(|prefix| row.starts_with(prefix.as_bytes()))
    }

    fn value<'a>(&self, row: &'a RowResult) -> &'a [u8] {
        row.value(self.family.as_bytes(), &self.qualifier).unwrap_or_default()
    }

    /// The number in a row; 0 if there is none.
    fn number(&self, row: &RowResult) -> i64 {
        self.value(row).try_into().map_or(0, i64::from_be_bytes)
    }

    /// The number that represents the list in a row.
    fn tokens(&self, row: &RowResult) -> i64 {
        let tokens = self.value(row).chunks(TOKEN_BYTES);
        order::of_tokens(tokens.map(|token| token.try_into().map_or(-1, i64::from_be_bytes)))
    }
}
