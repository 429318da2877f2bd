//! Reconciles a `BasaltCluster` with what runs.
//!
//! ```text
//! observe -> validate -> build -> apply -> rollout -> status
//! ```
//!
//! [`observe`] reads everything that the decisions depend on. [`validate`] returns the proof that
//! the cluster can be run, or its problems. [`build`] builds every object of it, purely. [`apply`]
//! writes the objects by server-side apply, and writes no objects of others. [`rollout`] decides
//! which pod may be replaced next, and [`replace`] evicts it. [`status`] reports. Each step is
//! idempotent, so another operator can continue after one that died at any point. [`unreadable`]
//! handles clusters that cannot be read.

mod applied;
mod apply;
mod build;
mod clean_up;
mod drain;
pub(crate) mod drift;
mod events;
mod lost_nodes;
pub(crate) mod observe;
pub(crate) mod reconcile;
mod replace;
pub(crate) mod rollout;
mod status;
pub(crate) mod terminated_containers;
mod unreadable;
mod validate;

pub(crate) use applied::{Applied, Evictions};
