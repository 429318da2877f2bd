//! What measures a cluster from outside: the probe, the benchmark and their reports.
//!
//! [`outage`] and [`timeline`] are pure: they say what an outage is and whose doing. The [`probe`]
//! makes the requests and checks at the end that nothing acknowledged is missing; what it returns
//! is a [`Measurement`], of which [`report`] tells. [`bench`] is YCSB's workloads.

mod histogram;
mod measurement;
pub mod outage;
pub mod probe;
pub mod report;
pub mod timeline;

pub use histogram::Histogram;
pub use measurement::{Fault, FaultKind, Measurement, Phases, Totals};
