//! What must hold whatever was done to the cluster: one file for each.

mod acknowledged_writes;

pub use acknowledged_writes::{AcknowledgedWrites, Violation};
