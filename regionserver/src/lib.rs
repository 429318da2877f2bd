//! The region server: serves regions, and splits and replays the logs of dead servers.
//!
//! The path of a write: `rpc` `mutate` → `region/write` → the log → the memstore → acknowledged;
//! later `flush` → store file → manifest. The path of a recovery: `orders` (split, open) →
//! `recovery/split` → `opening` → `region/open` → `recovery/replay` → serving.

// Fuzz targets only run decoders: the rest of the region server is not compiled for them.
#![cfg_attr(fuzzing, allow(dead_code, unreachable_pub))]

mod backoff;
mod block_locality;
mod check;
mod closing;
mod compaction_requests;
mod config;
mod filter;
#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(test)]
mod interleavings;
mod lease;
mod liveness;
mod log_list;
mod master_epoch;
mod metrics;
mod on_record;
mod opening;
mod orders;
mod ownership;
mod record_writer;
mod recovery;
mod region;
mod rpc;
mod run;
mod schedulers;
mod served_report;
mod server;
mod stop;
mod sync;
mod timestamps;
mod transitions;

pub use config::{Addresses, Config, RegionConfig};
pub use run::Error;
#[cfg(not(fuzzing))]
pub use run::run;
