//! From a `BasaltTable` to a table of its cluster, by way of the master.
//!
//! A table that is missing is made. One that is there is left as it is: where it differs from what
//! is written, the condition `Synced` says in what. When its resource is deleted, the policy says
//! whether the table goes too.

mod compare;
mod reconcile;
mod status;

pub(crate) use reconcile::{on_error, reconcile};
