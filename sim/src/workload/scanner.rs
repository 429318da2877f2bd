//! A client that scans in both directions, and checks that rows are whole, in order, and not
//! missing.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_client::{RowResult, Scan, Table};
use basalt_runtime::Random;
use bytes::Bytes;

use super::{OPERATION_TIMEOUT, Workload, is_of_writer, value};
use crate::invariants::Violation;
use crate::plan::FAMILY;

/// The pause between two scans.
const PACE_MS: std::ops::Range<u64> = 50..300;
/// The maximum number of rows that a scan reads, and the number of rows per call.
const ROWS_MAX: u32 = 60;
const ROWS_PER_CALL: std::ops::Range<u64> = 1..30;

/// Scans until the load is over.
pub(super) async fn scan(workload: &Workload, table: Table, random: Random) {
    while !workload.is_over() {
        let region = random.in_range(0..u64::from(workload.config.regions));
        let reversed = random.in_range(0..3) == 0;
        let (low, high) = (format!("{region:02}-"), format!("{region:02}."));
        // One of three scans covers two regions: the second scanner follows the first one.
        let low =
            if random.in_range(0..3) == 0 { format!("{:02}-", region.max(1) - 1) } else { low };
        let held = workload.writes.held(low.as_bytes(), high.as_bytes());
        let (start, stop) = if reversed { (high, low) } else { (low, high) };
        let scan = Scan {
            rows_max: Some(ROWS_MAX),
            rows_per_call: random.in_range(ROWS_PER_CALL) as u32,
            reversed,
            ..Scan::range(start, stop)
        };
        let mut scanner = table.scan(scan);
        // A failed read proves nothing at this point.
        if let Ok(Ok(rows)) = tokio::time::timeout(OPERATION_TIMEOUT, scanner.rows()).await {
            workload.count(if reversed { "reversed-scan" } else { "scan" });
            for row in &rows {
                workload.check_row(row);
            }
            check_order(workload, &rows, reversed);
            let found: BTreeMap<Bytes, Option<Bytes>> = rows.iter().filter_map(found).collect();
            let is_full = rows.len() >= ROWS_MAX as usize;
            let last = rows.last().and_then(RowResult::row).filter(|_| is_full);
            let held = match last {
                Some(last) => held.without_rest(last, reversed),
                None => held,
            };
            workload.writes.check_scan(&held, &found);
        }
        drop(scanner);
        let pace = Duration::from_millis(random.in_range(PACE_MS));
        tokio::time::sleep(pace).await;
    }
}

fn check_order(workload: &Workload, rows: &[RowResult], reversed: bool) {
    let keys = || rows.iter().filter_map(RowResult::row);
    let in_order = match reversed {
        true => keys().is_sorted_by(|before, after| before > after),
        false => keys().is_sorted_by(|before, after| before < after),
    };
    if !in_order {
        let keys: Vec<_> = keys().map(String::from_utf8_lossy).collect();
        let seen = format!("reversed: {reversed}, rows {}", keys.join(" "));
        workload.report(Violation::new("scans give each row once and in order", seen));
    }
}

/// The value that a scan found in a row of a writer.
fn found(row: &RowResult) -> Option<(Bytes, Option<Bytes>)> {
    let key = row.row().filter(|key| is_of_writer(key))?;
    Some((Bytes::copy_from_slice(key), value(row, FAMILY).map(Bytes::copy_from_slice)))
}
