//! From a `BasaltCluster` to what runs of it.
//!
//! ```text
//! observe -> validate -> build -> apply -> rollout -> status
//! ```
//!
//! [`observe`] reads all that is decided upon; [`validate`] gives the proof that it can be run, or
//! what is wrong; [`build`] makes every object of it, purely; [`apply`] writes them by server-side
//! apply; [`rollout`] says which pod may be replaced next; [`status`] tells people. Each step does
//! the same when it is done twice, so an operator that dies anywhere is simply followed by another.

pub(crate) mod apply;
mod build;
pub(crate) mod ended;
mod events;
mod lost;
pub(crate) mod observe;
mod pods;
pub(crate) mod reconcile;
pub(crate) mod rollout;
mod status;
mod validate;
