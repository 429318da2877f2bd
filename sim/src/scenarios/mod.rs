//! What is done to the cluster: one file for each.

mod region_server_crash;

pub use region_server_crash::{Outcome, region_server_crash};
