//! Errors of the requests of a [`crate::Client`].

use std::time::Duration;

use crate::proto::path::PathError;
use crate::proto::{DecodeError, ErrorCode, OpCode, SessionId};

/// The result of a request.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The server rejected the request. Nothing has changed.
    #[error("{op} of {path:?}: {code}")]
    Server {
        /// The operation.
        op: OpCode,
        /// The node.
        path: String,
        /// The server's reason.
        code: ErrorCode,
    },
    /// The server rejected one operation of a multi. Nothing has changed.
    #[error("operation {index} of a multi, on {path:?}: {code}")]
    Multi {
        /// The index of the operation, from 0.
        index: usize,
        /// Its node.
        path: String,
        /// The server's reason.
        code: ErrorCode,
    },
    /// The connection was lost while the request was in progress. A write may have taken effect, or
    /// may still do so.
    #[error("{op} of {path:?}: the connection was lost before the answer; the outcome is unknown")]
    ConnectionLoss {
        /// The operation.
        op: OpCode,
        /// The node.
        path: String,
    },
    /// There was no answer in time. A write may have taken effect, or may still do so.
    #[error("{op} of {path:?}: no answer within {waited:?}; the outcome is unknown")]
    Timeout {
        /// The operation.
        op: OpCode,
        /// The node.
        path: String,
        /// How long the client waited.
        waited: Duration,
    },
    /// The session has expired, and its ephemeral nodes are deleted. A new session needs a new
    /// client.
    #[error("session {session_id} has expired")]
    SessionExpired {
        /// The session.
        session_id: SessionId,
    },
    /// The client was closed.
    #[error("session {session_id} was closed by this client")]
    Closed {
        /// The session.
        session_id: SessionId,
    },
    /// The list of servers is empty.
    #[error("no servers were given; at least one host:port is needed")]
    NoServers,
    /// No server has opened a session in time.
    #[error("no session at {servers} within {waited:?}; the last attempt: {last_attempt}")]
    NotConnected {
        /// The servers that were tried, separated by commas.
        servers: String,
        /// How long the client tried.
        waited: Duration,
        /// The outcome of the last attempt.
        last_attempt: String,
    },
    /// The path is not a valid path of a node.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The request is larger than servers accept.
    #[error("{op} of {path:?} takes {bytes} bytes; servers accept {bytes_max}")]
    TooLarge {
        /// The operation.
        op: OpCode,
        /// The node.
        path: String,
        /// The size of the request.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The client holds as many watches as it may.
    #[error("this client already holds the maximum of {watches_max} watches")]
    TooManyWatches {
        /// The limit.
        watches_max: usize,
    },
    /// The server's answer cannot be decoded. A write has taken effect.
    #[error("the answer to {op} of {path:?} cannot be read: {error}")]
    BadReply {
        /// The operation.
        op: OpCode,
        /// The node.
        path: String,
        /// What is wrong with the answer.
        error: DecodeError,
    },
}

// === impl Error ===

impl Error {
    /// The server's reason, if the server rejected the request.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Server { code, .. } | Self::Multi { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the outcome of a write is unknown: it may or may not have taken effect.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::ConnectionLoss { .. } | Self::Timeout { .. })
    }

    /// Whether no request of this client can succeed from now on.
    pub fn is_session_over(&self) -> bool {
        matches!(self, Self::SessionExpired { .. } | Self::Closed { .. })
    }
}
