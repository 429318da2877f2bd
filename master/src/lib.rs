//! The master: decides where regions live and runs the durable procedures.
//!
//! The way of a failure reads straight down: `liveness` (a stream ended, or the coordinator has
//! ended a session) → `procedure::recover_server` (detected → fenced → split →
//! assigned → done) → orders to region servers. All state is in the coordinator: a master that
//! takes charge goes on where the last one stopped.
//!
//! Decisions are pure functions of a `view`; a decision is committed on condition of the records
//! it was made on, and of the epoch of the master that makes it (see `epoch_guarded_store`).

// Fuzz targets run decoders alone: what a role does is not compiled for them.
#![cfg_attr(fuzzing, allow(dead_code, unreachable_pub))]

mod balancer;
mod block_locality;
mod bootstrap;
mod client_nodes;
mod config;
mod election;
mod epoch_guarded_store;
mod error;
mod feature_level;
#[cfg(fuzzing)]
pub mod fuzzing;
mod housekeeping;
mod liveness;
mod locks;
mod metrics;
mod orders;
mod peer;
mod procedure;
mod reconcile;
mod regions;
mod rpc;
mod run;
mod served_regions;
mod term;
mod view;
mod views;

pub use config::{BoundAddresses, Config, DeclaredTable, MasterTimers};
pub use election::{ActiveMaster, LeaseGuard, LeaseGuardHandle, LeaseState};
pub use error::{CommitError, Error, StepError};
#[cfg(not(fuzzing))]
pub use run::run;
