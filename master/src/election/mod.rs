//! Which master is in charge, and since which epoch.
//!
//! However a master is elected, the epoch guards: it is the version of one node, raised in the
//! multi in which the winner takes the seat. [`ephemeral`] elects by an ephemeral node; a
//! Kubernetes Lease will stand beside it and raise the epoch in the same way.

mod ephemeral;

pub(crate) use ephemeral::{Candidate, campaign};
