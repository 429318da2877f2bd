//! What can go wrong between the operator and what it talks to.

/// Why a step was not done. The step is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or did not answer.
    #[error("{what}: {source}")]
    Kubernetes {
        /// What was asked of it.
        what: String,
        /// Its answer.
        source: Box<kube::Error>,
    },
    /// The database refused, or did not answer.
    #[error("{what}: {source}")]
    Database {
        /// What was asked of it.
        what: String,
        /// Its answer.
        source: Box<basalt_client::Error>,
    },
    /// The finalizer was not set or removed.
    #[error("finalizer: {reason}")]
    Finalizer {
        /// Why.
        reason: String,
    },
    /// One round took too long: something does not answer.
    #[error("not finished within {}: something does not answer", basalt_api::Timespan::from(*.0))]
    TooSlow(std::time::Duration),
    /// An object cannot be written as JSON.
    #[error("an object cannot be serialized: {0}")]
    Unwritable(#[from] serde_json::Error),
    /// The operator runs, but must not: another one holds the Lease.
    #[error("the Lease {lease} was lost to {holder:?}")]
    Deposed {
        /// Its name.
        lease: String,
        /// Who holds it.
        holder: String,
    },
    /// A port cannot be listened on.
    #[error(transparent)]
    Listen(#[from] std::io::Error),
}

/// Gives an error of the API server its place.
pub(crate) trait ResultExt<T> {
    /// `what` was asked of the API server.
    fn asked(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

// === impl ResultExt ===

impl<T> ResultExt<T> for Result<T, kube::Error> {
    fn asked(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Kubernetes { what: what(), source: Box::new(source) })
    }
}
