//! The master: decides where regions are served, and runs the durable procedures.
//!
//! The handling of a failure reads from top to bottom: `liveness` (a stream ended, or the
//! coordinator has ended a session) → `procedure::recover_server` (detected → fenced → split →
//! assigned → done) → orders to region servers. All state is in the coordinator: a new active
//! master continues where the last one stopped.
//!
//! Decisions are pure functions of a `view`. A decision is committed on condition of the records on
//! which it is based, and of the epoch of the master that makes it (see `epoch_guarded_store`).

// Fuzz targets run only decoders, so the rest of the role is not compiled for them.
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
