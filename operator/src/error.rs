//! The errors of requests to the API server and to the database.

/// Why a step failed. The step is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server rejected a request, or did not answer.
    #[error("{what}: {source}")]
    Kubernetes {
        /// The request.
        what: String,
        /// Its answer.
        source: Box<kube::Error>,
    },
    /// The database rejected a request, or did not answer.
    #[error("{what}: {source}")]
    Database {
        /// The request.
        what: String,
        /// Its answer.
        source: Box<basalt_client::Error>,
    },
    /// The finalizer could not be set or removed.
    #[error("finalizer: {reason}")]
    Finalizer {
        /// The reason.
        reason: String,
    },
    /// One round took too long: some server does not answer.
    #[error("not finished within {}: something does not answer", basalt_api::Timespan::from(*.0))]
    TooSlow(std::time::Duration),
    /// An object cannot be written as JSON.
    #[error("an object cannot be serialized: {0}")]
    Unwritable(#[from] serde_json::Error),
    /// The operator must stop: another operator holds the Lease.
    #[error("the Lease {lease} was lost to {holder:?}")]
    Deposed {
        /// Its name.
        lease: String,
        /// The identity of its holder.
        holder: String,
    },
    /// The operator cannot listen on a port.
    #[error(transparent)]
    Listen(#[from] std::io::Error),
}

/// Adds the failed request to an error of the API server.
pub(crate) trait ResultExt<T> {
    /// Names the request `what` in the error.
    fn asked(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

// === impl ResultExt ===

impl<T> ResultExt<T> for Result<T, kube::Error> {
    fn asked(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Kubernetes { what: what(), source: Box::new(source) })
    }
}
