//! A list that grows while faults are injected into the cluster, like HBase's
//! `IntegrationTestBigLinkedList`.
//!
//! Each node is a row that refers to nodes that were acknowledged before it was written. At the end
//! no reference may point to a missing node (*undefined*); this check does not depend on the
//! writer's memory. No acknowledged node may be missing (*lost*). A node whose write was not
//! answered is unknown: it may exist, and no node refers to it.

use std::sync::Arc;
use std::time::Duration;

use basalt_client::{Connection, Put, Scan, Table};
use basalt_model::TableName;
use basalt_runtime::{Random, Shutdown};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Result;

/// A list that grows while the cluster is under test.
#[derive(Debug)]
pub struct LinkedList {
    list: Arc<List>,
    writers: JoinSet<()>,
    stop: Shutdown,
}

/// The result of reading back all nodes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Audit {
    /// Nodes that were acknowledged.
    pub acked: u64,
    /// Nodes whose write was not acknowledged and may have taken effect.
    pub unknown: u64,
    /// Acknowledged nodes that are missing.
    pub lost: u64,
    /// References to missing nodes.
    pub undefined: u64,
    /// The longest wait for an acknowledgement, apart from outages.
    pub longest_wait: Duration,
    /// The longest wait that overlapped an outage; see [`LinkedList::begin_outage`].
    pub longest_wait_in_outage: Duration,
}

#[derive(Debug)]
struct List {
    family: String,
    /// The first row of each region.
    starts: Vec<Bytes>,
    nodes: Mutex<Nodes>,
}

#[derive(Debug, Default)]
struct Nodes {
    acked: Vec<u64>,
    unknown: u64,
    longest_wait: Duration,
    longest_wait_in_outage: Duration,
    outage: Outage,
}

/// The last period in which no write could be acknowledged.
#[derive(Debug, Default)]
struct Outage {
    is_under_way: bool,
    ended_at: Option<Instant>,
}

/// The number of concurrent writers, each with its own connection.
const WRITERS: usize = 8;
/// How long a writer waits between two nodes.
const PACE: Duration = Duration::from_millis(20);
/// The list is full at this number of nodes.
const NODES_MAX: usize = 8_000_000;
/// Follows the first row of the region in the rows of nodes.
const MARK: &str = "list-";
/// The end of the rows that begin with [`MARK`].
const END: &str = "list.";
/// The node that this writer wrote before, and a node of any writer.
const PREVIOUS: &[u8] = b"previous";
const OTHER: &[u8] = b"other";

// === impl LinkedList ===

impl LinkedList {
    /// Begins a list over all regions of `table`; `connect` opens a new connection.
    ///
    /// # Errors
    /// The regions cannot be found.
    pub async fn begin(
        connect: impl Fn() -> Connection,
        table: &TableName,
        family: &str,
        random: &Random,
    ) -> Result<Self> {
        let regions = connect().admin().regions(table).await?;
        let starts = regions.iter().map(|location| location.region.start_key.clone()).collect();
        let list = Arc::new(List { family: family.to_owned(), starts, nodes: Mutex::default() });
        let stop = Shutdown::new();
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            let random = Random::from_seed(random.next_u64());
            let table = connect().table(table);
            writers.spawn(Arc::clone(&list).write(table, random, stop.clone()));
        }
        Ok(Self { list, writers, stop })
    }

    /// How many nodes have been acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.list.nodes.lock().acked.len()
    }

    /// Begins a period in which no write can be acknowledged, for reasons other than the fault of a
    /// single process. Waits that overlap this period are reported separately.
    pub fn begin_outage(&self) {
        self.list.nodes.lock().outage.is_under_way = true;
    }

    /// Ends the period that [`LinkedList::begin_outage`] began.
    pub fn end_outage(&self) {
        self.list.nodes.lock().outage =
            Outage { is_under_way: false, ended_at: Some(Instant::now()) };
    }

    /// Ends the list and reads back all of it.
    ///
    /// # Errors
    /// The list cannot be read.
    pub async fn finish(mut self, table: &Table) -> Result<Audit> {
        self.stop.cancel();
        while self.writers.join_next().await.is_some() {}
        let (mut present, mut references) = (Vec::new(), Vec::new());
        for start in &self.list.starts {
            let mut scanner = table.scan(Scan::range(row(start, MARK), row(start, END)));
            while let Some(result) = scanner.next().await? {
                present.extend(result.row().and_then(node_of));
                for column in [PREVIOUS, OTHER] {
                    let value = result.value(self.list.family.as_bytes(), column);
                    references.extend(
                        value.and_then(|value| value.try_into().ok()).map(u64::from_be_bytes),
                    );
                }
            }
        }
        let nodes = std::mem::take(&mut *self.list.nodes.lock());
        Ok(audit(&nodes, present, &references))
    }
}

fn audit(nodes: &Nodes, mut present: Vec<u64>, references: &[u64]) -> Audit {
    present.sort_unstable();
    let missing = |wanted: &[u64]| {
        wanted.iter().filter(|node| present.binary_search(node).is_err()).count() as u64
    };
    Audit {
        acked: nodes.acked.len() as u64,
        unknown: nodes.unknown,
        longest_wait: nodes.longest_wait,
        longest_wait_in_outage: nodes.longest_wait_in_outage,
        lost: missing(&nodes.acked),
        undefined: missing(references),
    }
}

fn row(start: &Bytes, rest: &str) -> Bytes {
    Bytes::from([start, rest.as_bytes()].concat())
}

/// The node that a row holds, from the name of the row.
fn node_of(row: &[u8]) -> Option<u64> {
    let digits = row.len().checked_sub(16).and_then(|at| row.get(at..))?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

// === impl Nodes ===

impl Nodes {
    /// Records that `node` was acknowledged. Its write began at `begun` and took `after`.
    fn acknowledge(&mut self, node: u64, begun: Instant, after: Duration) {
        self.acked.push(node);
        let longest = match self.outage.meets_wait_since(begun) {
            true => &mut self.longest_wait_in_outage,
            false => &mut self.longest_wait,
        };
        *longest = after.max(*longest);
    }
}

// === impl Outage ===

impl Outage {
    /// Whether the outage overlaps a wait that began at `begun` and ends now.
    fn meets_wait_since(&self, begun: Instant) -> bool {
        self.is_under_way || self.ended_at.is_some_and(|ended_at| ended_at >= begun)
    }
}

// === impl List ===

impl List {
    async fn write(self: Arc<Self>, table: Table, random: Random, stop: Shutdown) {
        let mut previous = None;
        while !stop.is_cancelled() && self.nodes.lock().acked.len() < NODES_MAX {
            let node = random.next_u64();
            let put = self.put(node, previous, self.any(&random));
            let begun = Instant::now();
            match table.put(&put).await {
                Ok(()) => {
                    self.nodes.lock().acknowledge(node, begun, begun.elapsed());
                    previous = Some(node);
                }
                Err(error) => {
                    tracing::debug!(node, "a node was not acknowledged: {error}");
                    self.nodes.lock().unknown += 1;
                }
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// A random acknowledged node.
    fn any(&self, random: &Random) -> Option<u64> {
        let nodes = self.nodes.lock();
        let count = nodes.acked.len() as u64;
        (count > 0).then(|| nodes.acked.get(random.in_range(0..count) as usize).copied())?
    }

    fn put(&self, node: u64, previous: Option<u64>, other: Option<u64>) -> Put {
        let region = usize::try_from(node % self.starts.len().max(1) as u64).unwrap_or(0);
        let start = self.starts.get(region).cloned().unwrap_or_default();
        let mut put = Put::new(row(&start, &format!("{MARK}{node:016x}")));
        for (column, reference) in [(PREVIOUS, previous), (OTHER, other)] {
            let value = reference.map_or_else(Vec::new, |node| node.to_be_bytes().to_vec());
            put = put.column(self.family.as_bytes(), column, &value);
        }
        put
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_counted_by_who_misses_it() {
        let longest_wait = Duration::from_millis(3);
        let nodes = Nodes { acked: vec![5, 1, 9], unknown: 1, longest_wait, ..Nodes::default() };
        let none_missing = Audit { acked: 3, unknown: 1, longest_wait, ..Audit::default() };
        assert_eq!(audit(&nodes, vec![1, 5, 7, 9], &[1, 5]), none_missing);
        let without_9 = audit(&nodes, vec![1, 5, 7], &[1, 9, 9]);
        assert_eq!(without_9, Audit { lost: 1, undefined: 2, ..none_missing });
    }

    #[test]
    fn a_wait_that_meets_an_outage_is_reported_apart() {
        let (before, second) = (Instant::now(), Duration::from_secs(1));
        let mut nodes = Nodes::default();
        nodes.acknowledge(1, before, second);
        nodes.outage.is_under_way = true;
        nodes.acknowledge(2, before + second, second * 2);
        nodes.outage = Outage { is_under_way: false, ended_at: Some(before + second * 4) };
        // The first wait began before the outage ended, the second after it.
        nodes.acknowledge(3, before + second * 2, second * 3);
        nodes.acknowledge(4, before + second * 5, second / 2);
        assert_eq!(nodes.longest_wait, second);
        assert_eq!(nodes.longest_wait_in_outage, second * 3);
    }

    #[test]
    fn a_row_names_its_node() {
        let start = Bytes::from("user5");
        assert_eq!(node_of(&row(&start, &format!("{MARK}{:016x}", 77))), Some(77));
        assert_eq!(node_of(b"short"), None);
        assert_eq!(node_of(b"a row without a number in it"), None);
    }
}
