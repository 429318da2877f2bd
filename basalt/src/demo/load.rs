//! Unflushed data that only the logs contain when the fault is injected.

use std::collections::BTreeMap;

use basalt_client::{Action, Connection, Put};
use basalt_model::TableName;

/// The length of a value in bytes.
const VALUE_BYTES: usize = 1024;
/// The number of rows that one call writes.
const BATCH: u64 = 500;
/// The number of concurrent calls.
const CALLS: u64 = 8;

/// Sets the limits so that `mebibytes` per fault stay in memory.
pub(super) fn keep_unflushed(config: &mut BTreeMap<String, String>, mebibytes: u64) {
    let bytes = (mebibytes << 20).saturating_mul(4).clamp(1 << 30, 64 << 30);
    config.insert("hbase.hregion.memstore.flush.size".to_owned(), bytes.to_string());
    config.insert("basalt.regionserver.memstores.bytes".to_owned(), bytes.to_string());
    config.insert("hbase.regionserver.maxlogs".to_owned(), "200".to_owned());
}

/// Writes `mebibytes` in values of 1 KiB, spread over all regions. `round` makes its rows distinct
/// from those of other rounds.
pub(super) async fn write_unflushed(
    connection: &Connection,
    table: &TableName,
    family: &str,
    mebibytes: u64,
    round: u32,
) -> anyhow::Result<()> {
    let regions = connection.admin().regions(table).await?;
    let starts: Vec<_> = regions.iter().map(|location| location.region.start_key.clone()).collect();
    let rows = (mebibytes << 20) / VALUE_BYTES as u64;
    let writer = |worker: u64| {
        let (table, starts) = (connection.table(table), starts.clone());
        let family = family.as_bytes().to_vec();
        async move {
            let mut number = worker * BATCH;
            while number < rows {
                let actions = (number..rows.min(number + BATCH)).map(|row| {
                    let start = &starts[row as usize % starts.len()][..];
                    let key = [start, format!("!load-{round:04}-{row:012}").as_bytes()].concat();
                    // Bytes that cannot be compressed.
                    let value: Vec<u8> = (0..VALUE_BYTES as u64)
                        .map(|at| ((row * 31 + at * 17).wrapping_mul(2_654_435_761) >> 13) as u8)
                        .collect();
                    Action::Put(Put::new(key).column(&family, b"v", &value))
                });
                for result in table.batch(&actions.collect::<Vec<_>>()).await {
                    result?;
                }
                number += BATCH * CALLS;
            }
            Ok::<_, basalt_client::Error>(())
        }
    };
    let writers = (0..CALLS).map(|worker| tokio::spawn(writer(worker)));
    for written in futures::future::join_all(writers).await {
        written??;
    }
    Ok(())
}
