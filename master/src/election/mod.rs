//! Which master is in charge, and since which epoch.
//!
//! However a master is elected, the epoch guards: it is the version of one node, raised in the
//! multi in which the winner takes the seat. [`ephemeral`] elects by an ephemeral node. On
//! Kubernetes a Lease stands before it: [`gate`] lets only its holder campaign, for as long as
//! there is somebody who can tell who that is.

mod ephemeral;
mod gate;

pub(crate) use ephemeral::{Candidate, campaign};
pub use gate::{Gate, GateKeeper, LeaseState, Seat};
