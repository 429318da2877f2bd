//! The Kubernetes operator: reconciles `BasaltCluster` and `BasaltTable`.
//!
//! `cluster` makes a cluster run as it is written and says how it is; `table` makes its tables;
//! [`run()`] drives both by kube's controllers, while this process holds the Lease. The resources
//! themselves, their validation, their timers and their definitions for the API server live in
//! `basalt_api`, which `basalt local` shares.
//!
//! The data plane does not need the operator: while it is down, nothing changes but what people
//! write. What it tells the master (that a container has ended) only makes a recovery earlier.

mod cluster;
mod context;
mod error;
mod lease;
mod names;
mod run;
mod table;
#[cfg(test)]
mod testing;

pub use error::Error;
pub use run::{Options, run};
