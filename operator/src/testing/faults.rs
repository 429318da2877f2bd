//! Faults between the operator and the API server.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Notify;

use super::api_server::Key;

/// Kills the operator at its `write`-th write, counted from 1.
#[derive(Clone)]
pub(crate) struct Kill {
    pub(crate) write: usize,
    /// Whether the API server executes that write. The operator does not learn it.
    pub(crate) is_written: bool,
    /// Notified at the time of the kill.
    pub(crate) now: Arc<Notify>,
}

/// The API server answers with `code` to the next `times` requests of `method` whose path contains
/// `path`.
#[derive(Clone, Debug)]
pub(crate) struct Rejection {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) code: u16,
    pub(crate) times: usize,
}

/// All active faults.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) kill: Option<Kill>,
    pub(super) rejections: Vec<Rejection>,
    /// Whether watches return nothing and do not end.
    pub(super) are_watches_frozen: bool,
    pub(super) stale: Option<Stale>,
}

/// Lists of `plurals` show these objects with their resource version. Reads of single objects do
/// not, because they are quorum reads.
pub(super) struct Stale {
    pub(super) version: u64,
    pub(super) plurals: Vec<&'static str>,
    pub(super) objects: Vec<(Key, Value)>,
}

/// A request that was made, for tests.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Value,
    pub(crate) code: u16,
}

impl Faults {
    /// The code with which a request is rejected, or `None`.
    pub(super) fn rejects(&mut self, method: &str, path: &str) -> Option<u16> {
        let hit = self.rejections.iter_mut().find(|rejection| {
            rejection.times > 0 && rejection.method == method && path.contains(rejection.path)
        })?;
        hit.times -= 1;
        Some(hit.code)
    }
}
