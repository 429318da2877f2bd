//! A client that scans, and looks whether rows are whole.

use std::time::Duration;

use basalt_client::{Scan, Table};
use basalt_runtime::Random;

use super::{OPERATION_TIMEOUT, Workload};

/// The pause between two scans.
const PACE_MS: std::ops::Range<u64> = 50..300;
/// How many rows a scan reads, in how many calls.
const ROWS_MAX: u32 = 60;
const ROWS_PER_CALL: u32 = 20;

/// Scans until the load is over.
pub(super) async fn scan(workload: &Workload, table: Table, random: Random) {
    while !workload.is_over() {
        let region = random.in_range(0..u64::from(workload.config.regions));
        let scan = Scan {
            rows_max: Some(ROWS_MAX),
            rows_per_call: ROWS_PER_CALL,
            ..Scan::range(format!("{region:02}-"), format!("{region:02}."))
        };
        let mut scanner = table.scan(scan);
        // That it cannot be read now proves nothing.
        if let Ok(Ok(rows)) = tokio::time::timeout(OPERATION_TIMEOUT, scanner.rows()).await {
            for row in &rows {
                workload.check_row(row);
            }
        }
        drop(scanner);
        let pace = Duration::from_millis(random.in_range(PACE_MS));
        tokio::time::sleep(pace).await;
    }
}
