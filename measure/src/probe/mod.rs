//! The probe: a write to and a strong read from every region at a fixed pace.

mod attempts;
mod prober;
mod rows;

pub use attempts::{Attempts, Audit};
pub use prober::{Probe, ProbeConfig};
pub use rows::{RegionRows, RunId};
