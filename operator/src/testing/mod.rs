//! A Kubernetes in memory, for tests of the whole operator: an API server ([`ApiServer`]), the
//! controllers that the operator relies on ([`controllers`]), and processes that answer as Basalt's
//! do ([`processes`]). Time is tokio's paused clock, so a test of minutes takes milliseconds.
//!
//! It models what the operator's decisions depend on: resource versions, uids, generations,
//! finalizers, owner references and garbage collection, server-side apply with a field manager,
//! preconditions, evictions with disruption budgets, watches with a resume point. It does not
//! model: schemas, defaults, admission, quotas and rights; field ownership inside lists (a list is
//! one field, but for conditions and owner references); several versions of a kind; the scheduler;
//! 410 for a watch that resumes too far back. The real API server in `e2e/kube` remains the judge.

mod api_server;
mod apply;
mod controllers;
mod faults;
mod http;
mod nth_write;
mod processes;
mod scenarios;
mod world;

pub(crate) use api_server::ApiServer;
pub(crate) use faults::{Kill, Rejection};
