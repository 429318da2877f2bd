//! The writer of one region. It writes a new row each time, in attempts until one is acknowledged.
//! Now and then it reads back or deletes a row.

use std::sync::Arc;
use std::time::Duration;

use basalt_client::{Delete, Get, Outcome, Put, Table};
use basalt_runtime::Random;
use bytes::Bytes;
use tokio::time::Instant;

use super::{ATTEMPT_TIMEOUT, CALM_TIME_MAX, QUALIFIER, Workload, value};
use crate::invariants::Violation;
use crate::plan::{FAMILY, FAMILY_SECOND};

/// The pause after an attempt that failed.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(10);
/// The pause between two writes.
const PACE_MS: std::ops::Range<u64> = 5..35;
/// One of this many rounds deletes a row.
const ROUNDS_PER_DELETE: u64 = 8;
/// Makes rows long enough to fill memstores.
const PADDING: &str = "................................................................";

/// The writer of one region; see the module.
pub(super) struct Writer {
    workload: Arc<Workload>,
    table: Table,
    random: Random,
    pub(super) region: u32,
    next: u64,
    /// Rows whose only attempt was acknowledged: no late attempt can restore them after a delete.
    clean: Vec<Bytes>,
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(workload: &Arc<Workload>, table: Table, random: Random, region: u32) -> Self {
        let workload = Arc::clone(workload);
        Self { workload, table, random, region, next: 0, clean: Vec::new() }
    }

    pub(super) async fn write_until_calm(&mut self) {
        let mut has_recovered = false;
        while !self.workload.is_over() || !has_recovered {
            let was_calm = self.workload.calm_for().is_some();
            if !self.write().await {
                return;
            }
            let has_read = self.read_back().await;
            if was_calm && has_read && !has_recovered {
                has_recovered = true;
                let took = self.workload.calm_for().unwrap_or_default();
                self.workload.seen.lock().recovered.insert(self.region, took);
            }
            if !has_recovered && self.gives_up("answered no read") {
                return;
            }
            if self.random.in_range(0..ROUNDS_PER_DELETE) == 0 && !self.delete().await {
                return;
            }
            let pace = Duration::from_millis(self.random.in_range(PACE_MS));
            tokio::time::sleep(pace).await;
        }
    }

    /// Writes the next row, in as many attempts as necessary. Returns whether it was acknowledged.
    pub(super) async fn write(&mut self) -> bool {
        let row = self.row(self.next);
        let value = Bytes::from(format!("value {}{PADDING}", self.next));
        let put = Put::new(row.clone()).column(FAMILY.as_bytes(), QUALIFIER, &value).column(
            FAMILY_SECOND.as_bytes(),
            QUALIFIER,
            &value,
        );
        let started = Instant::now();
        let mut attempts = 1;
        loop {
            match self.table.try_put(&put, ATTEMPT_TIMEOUT).await {
                Outcome::Acked(()) => break,
                Outcome::Failed(_) => self.workload.seen.lock().failed += 1,
                Outcome::Unknown(_) => self.workload.seen.lock().unknown += 1,
            }
            if self.gives_up("took no write") {
                return false;
            }
            attempts += 1;
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
        self.next += 1;
        let workload = &self.workload;
        let name = String::from_utf8_lossy(&row);
        workload.trace.record(format_args!("client: acknowledged {name}"));
        if attempts == 1 {
            self.clean.push(row.clone());
        }
        workload.writes.acknowledge(row, value);
        workload.count("put");
        let mut seen = workload.seen.lock();
        let outage = seen.outages.entry(self.region).or_default();
        *outage = started.elapsed().max(*outage);
        true
    }

    /// Reads one of the acknowledged rows. Returns whether the read was answered; a failed read
    /// proves nothing at this point.
    async fn read_back(&mut self) -> bool {
        let row = self.row(self.random.in_range(0..self.next.max(1)));
        let outcome = self.table.try_get(&Get::new(row.clone()), ATTEMPT_TIMEOUT).await;
        let Outcome::Acked(found) = outcome else { return false };
        self.workload.count("get");
        self.workload.writes.check_read(&row, value(&found, FAMILY));
        self.workload.check_row(&found);
        true
    }

    /// Deletes a row, in as many operations as necessary. Returns whether that succeeded.
    async fn delete(&mut self) -> bool {
        let count = self.clean.len() as u64;
        if count == 0 {
            return true;
        }
        let place = usize::try_from(self.random.in_range(0..count)).unwrap_or(0);
        let row = self.clean.swap_remove(place);
        self.workload.writes.doubt(&row);
        while self.table.delete(&Delete::new(row.clone())).await.is_err() {
            if self.gives_up("took no delete") {
                return false;
            }
        }
        self.workload.writes.acknowledge_delete(row);
        self.workload.count("delete-row");
        true
    }

    /// Whether the region should have recovered by now. If so, reports a violation.
    fn gives_up(&self, what: &str) -> bool {
        let is_late = self.workload.is_late();
        if is_late {
            let region = self.region;
            let seen = format!("region {region} {what} within {CALM_TIME_MAX:?} of the last fault");
            self.workload.report(Violation::new("regions come back", seen));
        }
        is_late
    }

    pub(super) fn row(&self, number: u64) -> Bytes {
        Bytes::from(format!("{:02}-{number:08}", self.region))
    }
}
