//! What can go wrong in communication with HDFS, with the server that answered.

use std::sync::Arc;
use std::time::Duration;

/// The result of an operation on HDFS.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation on HDFS. Cheap to clone, because everyone who waits for a file gets the same
/// error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A server rejected or failed a call.
    #[error("{method} of {server}: {exception}")]
    Remote {
        /// The server, as `host:port`.
        server: Arc<str>,
        /// The method.
        method: &'static str,
        /// The exception that it returned.
        exception: RemoteException,
    },
    /// No answer in time. The server may have performed the operation, or may still perform it.
    #[error("{what} of {server}: no answer within {limit:?}")]
    TimedOut {
        /// The server, as `host:port`.
        server: Arc<str>,
        /// The operation that was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// No connection: refused, unreachable, or not established within the timeout.
    #[error("no connection to {server}: {reason}")]
    Unreachable {
        /// The server, as `host:port`.
        server: Arc<str>,
        /// The reason.
        reason: Arc<str>,
    },
    /// A connection ended while an operation was in progress. The server may have performed it.
    #[error("connection to {server} lost: {reason}")]
    Lost {
        /// The server, as `host:port`.
        server: Arc<str>,
        /// The reason.
        reason: Arc<str>,
    },
    /// A server sent an invalid answer.
    #[error("bad answer from {server}: {defect}")]
    BadAnswer {
        /// The server, as `host:port`.
        server: Arc<str>,
        /// What is wrong with it.
        defect: Defect,
    },
    /// A DataNode rejected an operation on a block.
    #[error("{server} rejected the operation: {status} {message}")]
    Refused {
        /// The DataNode, as `host:port`.
        server: Arc<str>,
        /// The name of the status that it returned.
        status: &'static str,
        /// Its explanation.
        message: Arc<str>,
    },
    /// Every DataNode of a block failed, or there was none to ask.
    #[error("block {block_id}: none of {nodes} DataNodes served it; the last error: {last}")]
    NoReplica {
        /// The block.
        block_id: u64,
        /// How many DataNodes there were.
        nodes: usize,
        /// Why the last one failed.
        last: Arc<Error>,
    },
    /// The NameNode returned fewer DataNodes for a block than required.
    #[error("{path}: {nodes} DataNodes for a new block; at least {nodes_min} are needed")]
    TooFewNodes {
        /// The file.
        path: Arc<str>,
        /// How many there were.
        nodes: usize,
        /// How many there must be.
        nodes_min: usize,
    },
    /// The file was abandoned after an earlier error.
    #[error("{path}: given up: {reason}")]
    GivenUp {
        /// The file.
        path: Arc<str>,
        /// The earlier error.
        reason: Arc<str>,
    },
    /// A file that should be closed is still open.
    #[error("{path}: not closed within {limit:?}")]
    NotClosed {
        /// The file.
        path: Arc<str>,
        /// How long the call waited.
        limit: Duration,
    },
    /// The settings cannot be used.
    #[error("HDFS settings: {reason}")]
    Settings {
        /// What is wrong with them.
        reason: String,
    },
}

/// An exception that a Java server returned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RemoteException {
    /// The class, with its package.
    pub class: Arc<str>,
    /// The message, which often includes a stack trace.
    pub message: Arc<str>,
}

/// What is wrong with bytes that a server sent.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Defect {
    /// A length that is too large, or does not fit the other lengths.
    #[error("{what} of {length} bytes; expected at most {length_max}")]
    Length {
        /// What has this length.
        what: &'static str,
        /// The length, in bytes.
        length: u64,
        /// Its bound, in bytes.
        length_max: u64,
    },
    /// The bytes end in the middle of a value.
    #[error("the bytes end within {what}")]
    CutOff {
        /// Which value.
        what: &'static str,
    },
    /// A message that protocol buffers cannot decode.
    #[error("{what}: {reason}")]
    Message {
        /// Which message.
        what: &'static str,
        /// The decoder's reason.
        reason: String,
    },
    /// A value that is not allowed or was not expected here.
    #[error("{what} is {value}")]
    Value {
        /// What has this value.
        what: &'static str,
        /// The value.
        value: i64,
    },
    /// Data that does not match its checksum.
    #[error("wrong checksum of the chunk at {offset}")]
    Checksum {
        /// Where the chunk begins, in bytes from the beginning of its packet.
        offset: usize,
    },
}

// === impl Error ===

impl Error {
    /// The exception, if a server returned one.
    pub fn exception(&self) -> Option<&RemoteException> {
        match self {
            Self::Remote { exception, .. } => Some(exception),
            _ => None,
        }
    }

    /// Whether a server returned an exception of this class, given without its package.
    pub fn is_exception(&self, class: &str) -> bool {
        self.exception().is_some_and(|exception| exception.is(class))
    }

    /// Whether the same call may succeed later without intervention: the server is unavailable, a
    /// standby, or in safe mode, like a NameNode that has just started.
    pub fn is_passing(&self) -> bool {
        self.is_of_this_server()
            || ["SafeModeException", "RetriableException", "NotReplicatedYetException"]
                .iter()
                .any(|class| self.is_exception(class))
    }

    /// Whether the server could not be reached, or did not answer.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::Unreachable { .. })
    }

    /// Whether another server may be able to do it now.
    pub(crate) fn is_of_this_server(&self) -> bool {
        match self {
            Self::Remote { exception, .. } => {
                exception.is("StandbyException") || exception.is("ObserverRetryOnActiveException")
            }
            Self::Lost { .. } => true,
            _ => self.is_silence(),
        }
    }

    /// Whether it is certain that nothing was done: the server did not receive the request, or
    /// rejected it.
    pub fn is_undone(&self) -> bool {
        matches!(self, Self::Remote { .. } | Self::Unreachable { .. } | Self::Refused { .. })
    }
}

// === impl RemoteException ===

impl RemoteException {
    /// Whether the exception is of this class, given without its package.
    pub fn is(&self, class: &str) -> bool {
        self.class.rsplit(['.', '$']).next() == Some(class)
    }

    /// The message without its stack trace.
    pub fn first_line(&self) -> &str {
        self.message.lines().next().unwrap_or_default()
    }
}

impl std::fmt::Display for RemoteException {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let class = self.class.rsplit('.').next().unwrap_or_default();
        write!(formatter, "{class}: {}", self.first_line())
    }
}
