//! Elects the active master, and assigns its epoch.
//!
//! However a master is elected, the epoch is what protects the data. It is the version of one node,
//! raised in the multi in which the winner becomes active. [`ephemeral`] elects by an ephemeral
//! node. On Kubernetes, [`lease_guard`] lets only the holder of a Lease campaign, while the Lease
//! can be read.

mod ephemeral;
mod lease_guard;

pub(crate) use ephemeral::{Candidate, campaign};
pub use lease_guard::{ActiveMaster, LeaseGuard, LeaseGuardHandle, LeaseState};
