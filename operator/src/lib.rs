//! The Kubernetes operator: reconciles `BasaltCluster` and `BasaltTable`.
//!
//! `cluster` brings a cluster into its desired state and reports its state. `table` creates its
//! tables. [`run()`] drives both by kube's controllers, while this process holds the Lease. The
//! resources themselves, their validation, their timers and their CRDs are in `basalt_api`, which
//! `basalt local` shares.
//!
//! The data plane does not need the operator: while it is down, nothing changes except for what
//! users write. Its reports to the master (that a container has ended) only make a recovery
//! earlier.

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
