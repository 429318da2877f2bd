//! The metrics of a region server, listed in `docs/metrics.md`. Without a recorder, as in tests and
//! in the simulation, they are discarded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Histogram, counter, gauge, histogram};

use crate::block_locality::ServerLocality;
use crate::server::Server;

/// How often the gauges of the server's state are recorded.
const INTERVAL: Duration = Duration::from_secs(1);
/// The frequent methods; all others are counted together.
const METHODS: [&str; 4] = ["Get", "Multi", "Mutate", "Scan"];

/// How long requests take, by method.
pub(crate) struct RequestTimes {
    by_method: BTreeMap<&'static str, Histogram>,
    other: Histogram,
}

// === impl RequestTimes ===

impl Default for RequestTimes {
    fn default() -> Self {
        let times = |method| histogram!("basalt_request_seconds", "method" => method);
        Self {
            by_method: METHODS.into_iter().map(|method| (method, times(method))).collect(),
            other: times("other"),
        }
    }
}

impl RequestTimes {
    /// The histogram of `method`.
    pub(crate) fn of(&self, method: &str) -> &Histogram {
        self.by_method.get(method).unwrap_or(&self.other)
    }
}

/// Counts a request that was answered with an exception.
pub(crate) fn request_failed(exception: &str) {
    counter!("basalt_request_exceptions_total", "exception" => exception.to_owned()).increment(1);
}

/// Counts a file that a flush or a compaction wrote, and its bytes.
pub(crate) fn files_written(by: &'static str, bytes: u64) {
    counter!("basalt_store_file_writes_total", "by" => by).increment(1);
    counter!("basalt_store_file_written_bytes_total", "by" => by).increment(bytes);
}

/// Records what the server holds and has done, until it ends.
pub(crate) async fn report(server: Arc<Server>) {
    loop {
        record(&server);
        tokio::select! {
            biased;
            () = server.abort.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

fn record(server: &Server) {
    let regions = server.regions();
    let sum = |of: fn(&crate::region::Region) -> u64| {
        regions.iter().map(|served| of(&served.region)).sum::<u64>() as f64
    };
    gauge!("basalt_regions").set(regions.len() as f64);
    gauge!("basalt_memstore_bytes").set(sum(crate::region::Region::memstore_bytes));
    gauge!("basalt_store_file_bytes").set(sum(crate::region::Region::store_file_bytes));
    gauge!("basalt_nonces").set(sum(crate::region::Region::nonces));
    gauge!("basalt_nonce_file_bytes").set(sum(crate::region::Region::nonce_file_bytes));
    gauge!("basalt_nonce_filter_bytes").set(sum(crate::region::Region::nonce_filter_bytes));
    record_locality(&server.block_locality.borrow());
    let wal = server.shared.wal.stats();
    counter!("basalt_wal_syncs_total").absolute(wal.batches);
    counter!("basalt_wal_edits_total").absolute(wal.edits);
    counter!("basalt_wal_written_bytes_total").absolute(wal.bytes);
    counter!("basalt_wal_replaced_files_total").absolute(wal.replaced_files);
    gauge!("basalt_wal_sync_seconds_total").set(wal.sync_time.as_secs_f64());
    gauge!("basalt_wal_sync_seconds_max").set(wal.sync_time_max.as_secs_f64());
    gauge!("basalt_wal_queued_bytes").set(wal.queued_bytes as f64);
    gauge!("basalt_wal_files").set(wal.live_files as f64);
    gauge!("basalt_wal_unflushed_bytes").set(wal.unflushed_bytes as f64);
    let cache = server.shared.blocks.statistics();
    counter!("basalt_block_cache_hits_total").absolute(cache.hits);
    counter!("basalt_block_cache_misses_total").absolute(cache.misses);
    gauge!("basalt_block_cache_bytes").set(cache.weight_bytes as f64);
    gauge!("basalt_block_cache_capacity_bytes").set(cache.capacity_bytes as f64);
}

/// Records where the store files are, once the location of any is known.
fn record_locality(places: &ServerLocality) {
    let (own, all) = places.own_and_all_bytes();
    if all == 0 && places.own.is_none() {
        return;
    }
    gauge!("basalt_store_file_local_bytes").set(own as f64);
    gauge!("basalt_store_file_placed_bytes").set(all as f64);
    if all > 0 {
        gauge!("basalt_store_file_locality_ratio").set(own as f64 / all as f64);
    }
}
