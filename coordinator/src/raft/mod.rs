//! Consensus: openraft with our log, our snapshots and our network, its types made concrete once.
//!
//! What a client's write waits for is the sync of its entry on a majority of the disks; the
//! leader's own sync and those of its followers run at the same time.

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
