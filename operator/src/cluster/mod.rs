//! From a `BasaltCluster` to what runs of it.
//!
//! ```text
//! observe -> validate -> build -> apply -> rollout -> status
//! ```
//!
//! [`observe`] reads all that is decided upon; [`validate`] gives the proof that it can be run, or
//! what is wrong; [`build`] makes every object of it, purely; [`apply`] writes them by server-side
//! apply, and none that is somebody else's; [`rollout`] says which pod may be replaced next, and
//! [`replace`] evicts it; [`status`] reports. Each step does the same when it is done twice, so an
//! operator that dies anywhere is simply followed by another. What cannot even be read is left to
//! [`unreadable`].

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
