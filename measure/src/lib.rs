//! Measures a cluster from outside: the probe, the benchmark and their reports.
//!
//! [`outage`] and [`timeline`] are pure: they define what an outage is and which fault caused it.
//! The [`probe`] makes the requests and checks at the end that no acknowledged write is missing. It
//! returns a [`Measurement`], from which [`report`] makes the reports. [`mod@bench`] runs YCSB's
//! workloads.
//!
//! It works with any cluster that speaks HBase's protocol ([`Target`]), including Apache HBase.

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
