//! Consensus: openraft with our log, our snapshots and our network. Its type parameters are made
//! concrete once.
//!
//! A client's write waits until its entry is synced on a majority of the disks. The leader and its
//! followers sync at the same time.

#[cfg(test)]
mod crash_consistency;
pub(crate) mod incoming;
pub(crate) mod log;
mod network;
mod runtime;
mod service;
mod snapshot_store;
mod state_machine;
mod terms;
pub(crate) mod types;

pub(crate) use network::{Peers, RaftNetwork};
pub(crate) use runtime::with_random;
pub(crate) use service::{Gate, PeerService};
pub(crate) use snapshot_store::SnapshotStore;
pub use snapshot_store::StoreError;
pub(crate) use state_machine::StateMachine;
pub(crate) use terms::Terms;
pub(crate) use types::Raft;
