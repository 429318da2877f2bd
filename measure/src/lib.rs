//! What measures a cluster from outside: the probe, the benchmark and their reports.
//!
//! [`outage`] and [`timeline`] are pure: they say what an outage is and whose doing. The [`probe`]
//! makes the requests and checks at the end that nothing acknowledged is missing; what it returns
//! is a [`Measurement`], of which [`report`] tells. [`mod@bench`] is YCSB's workloads.
//!
//! It works against anything that speaks HBase's protocol ([`Target`]), Apache HBase included.

pub mod bench;
mod error;
mod histogram;
pub mod history;
pub mod linked_list;
mod measurement;
pub mod outage;
pub mod probe;
mod process;
pub mod report;
pub mod stranger;
mod target;
pub mod timeline;

pub use error::{Error, Result};
pub use histogram::Histogram;
pub use measurement::{Fault, FaultKind, Measurement, Phases, Totals};
pub use process::Usage;
pub use target::{DEFAULT_ROOT, Target, describe, drop_table, ensure_table, wait_online};
