//! What can go wrong on the way to HDFS, with who answered what.

use std::sync::Arc;
use std::time::Duration;

/// The result of an operation on HDFS.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation on HDFS that failed. Cheap to clone: all who wait for one file hear the same.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A server refused or failed a call.
    #[error("{method} of {server}: {exception}")]
    Remote {
        /// The server, as `host:port`.
        server: Arc<str>,
        /// The method.
        method: &'static str,
        /// What it answered.
        exception: RemoteException,
    },
    /// No answer in time. The server may have done what it was asked, or may do it yet.
    #[error("{what} of {server}: no answer within {limit:?}")]
    TimedOut {
        /// The server, as `host:port`.
        server: Arc<str>,
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// There is no connection: refused, unreachable, or not within its timeout.
    #[error("no connection to {server}: {reason}")]
    Unreachable {
        /// The server, as `host:port`.
        server: Arc<str>,
        /// Why not.
        reason: Arc<str>,
    },
    /// A connection ended while something was under way. The server may have done it.
    #[error("connection to {server} lost: {reason}")]
    Lost {
        /// The server, as `host:port`.
        server: Arc<str>,
        /// What happened to it.
        reason: Arc<str>,
    },
    /// A server answered what is no answer.
    #[error("bad answer from {server}: {defect}")]
    BadAnswer {
        /// The server, as `host:port`.
        server: Arc<str>,
        /// What is wrong with it.
        defect: Defect,
    },
    /// A DataNode refused an operation on a block.
    #[error("{server} rejected the operation: {status} {message}")]
    Refused {
        /// The DataNode, as `host:port`.
        server: Arc<str>,
        /// The status that it gave, by name.
        status: &'static str,
        /// Its explanation.
        message: Arc<str>,
    },
    /// Nobody could be asked or nobody could answer: every DataNode of a block failed.
    #[error("block {block_id}: none of {nodes} DataNodes served it; the last error: {last}")]
    NoReplica {
        /// The block.
        block_id: u64,
        /// How many DataNodes there were.
        nodes: usize,
        /// Why the last one failed.
        last: Arc<Error>,
    },
    /// The NameNode gave fewer DataNodes for a block than there must be.
    #[error("{path}: {nodes} DataNodes for a new block; at least {nodes_min} are needed")]
    TooFewNodes {
        /// The file.
        path: Arc<str>,
        /// How many there were.
        nodes: usize,
        /// How many there must be.
        nodes_min: usize,
    },
    /// The file was given up after an earlier error.
    #[error("{path}: given up: {reason}")]
    GivenUp {
        /// The file.
        path: Arc<str>,
        /// The earlier error.
        reason: Arc<str>,
    },
    /// A file that should be closed is not yet.
    #[error("{path}: not closed within {limit:?}")]
    NotClosed {
        /// The file.
        path: Arc<str>,
        /// How long was waited.
        limit: Duration,
    },
    /// The settings cannot be used.
    #[error("HDFS settings: {reason}")]
    Settings {
        /// What is wrong with them.
        reason: String,
    },
}

/// An exception as a Java server names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RemoteException {
    /// The class, with its package.
    pub class: Arc<str>,
    /// The message, which often holds a stack trace.
    pub message: Arc<str>,
}

/// What is wrong with bytes that a server sent.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Defect {
    /// A length that is too large, or does not fit the other lengths.
    #[error("{what} of {length} bytes; expected at most {length_max}")]
    Length {
        /// Of what.
        what: &'static str,
        /// The length, in bytes.
        length: u64,
        /// Its bound, in bytes.
        length_max: u64,
    },
    /// The bytes end within something.
    #[error("the bytes end within {what}")]
    CutOff {
        /// Within what.
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
        /// Of what.
        what: &'static str,
        /// The value.
        value: i64,
    },
    /// Data that differ from their checksum.
    #[error("wrong checksum of the chunk at {offset}")]
    Checksum {
        /// Where the chunk begins, in bytes from the beginning of its packet.
        offset: usize,
    },
}

// === impl Error ===

impl Error {
    /// The exception, if a server answered one.
    pub fn exception(&self) -> Option<&RemoteException> {
        match self {
            Self::Remote { exception, .. } => Some(exception),
            _ => None,
        }
    }

    /// Whether a server answered an exception of this class, given without its package.
    pub fn is_exception(&self, class: &str) -> bool {
        self.exception().is_some_and(|exception| exception.is(class))
    }

    /// Whether the same call may succeed later, without anybody doing anything: the server is away,
    /// in standby, or in safe mode, as a NameNode that has just started.
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

    /// Whether another server might do it now.
    pub(crate) fn is_of_this_server(&self) -> bool {
        match self {
            Self::Remote { exception, .. } => {
                exception.is("StandbyException") || exception.is("ObserverRetryOnActiveException")
            }
            Self::Lost { .. } => true,
            _ => self.is_silence(),
        }
    }

    /// Whether it is known that the other side has not seen the request or has refused it: nothing
    /// was done.
    pub fn is_undone(&self) -> bool {
        matches!(self, Self::Remote { .. } | Self::Unreachable { .. } | Self::Refused { .. })
    }
}

// === impl RemoteException ===

impl RemoteException {
    /// Whether it is of this class, given without its package.
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
