//! Reconciles a `BasaltTable` with a table of its cluster, through the master.
//!
//! A missing table is created. An existing one is altered only when its manifest changes. Otherwise
//! it is left as it is, and the condition `Synced` lists how it differs from its declaration. When
//! the resource is deleted, the deletion policy decides whether the table is deleted too.

mod compare;
mod reconcile;
mod status;

pub(crate) use reconcile::{on_error, reconcile};
