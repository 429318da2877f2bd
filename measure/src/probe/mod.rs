//! The probe: a write and a strong read to every region at a fixed pace.

mod ledger;
mod prober;
mod rows;

pub use ledger::{Audit, Ledger};
pub use prober::{Probe, ProbeConfig};
pub use rows::{RegionRows, RunId};
