//! The error codes of replies.

use std::fmt;

macro_rules! error_codes {
    ($( $(#[$attribute:meta])* $name:ident = $code:literal, )*) => {
        /// Why a request failed, as reported by servers (`KeeperException.Code` in Java).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $( $(#[$attribute])* $name, )*
            /// A code that has no name here.
            Other(i32),
        }

        impl ErrorCode {
            /// All codes that have a name.
            pub const ALL: &[Self] = &[$( Self::$name, )*];

            /// The number of the code on the wire.
            pub fn code(self) -> i32 {
                match self {
                    $( Self::$name => $code, )*
                    Self::Other(code) => code,
                }
            }

            /// The error of a wire number. 0 is success, and therefore `None`.
            pub fn from_wire(code: i32) -> Option<Self> {
                match code {
                    0 => None,
                    $( $code => Some(Self::$name), )*
                    other => Some(Self::Other(other)),
                }
            }
        }

        impl fmt::Display for ErrorCode {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $( Self::$name => write!(formatter, "{} ({})", stringify!($name), $code), )*
                    Self::Other(code) => write!(formatter, "unknown error ({code})"),
                }
            }
        }
    };
}

error_codes! {
    /// The server failed internally.
    SystemError = -1,
    /// The server's state is inconsistent. In a multi: the operation comes after the failed one.
    RuntimeInconsistency = -2,
    /// The stored data is inconsistent.
    DataInconsistency = -3,
    /// The connection was lost: whether the request took effect is unknown.
    ConnectionLoss = -4,
    /// The request could not be decoded, or the reply not encoded.
    MarshallingError = -5,
    /// The server does not know this operation.
    Unimplemented = -6,
    /// There was no answer within the operation's timeout.
    OperationTimeout = -7,
    /// The arguments are not allowed.
    BadArguments = -8,
    /// The session is not known.
    UnknownSession = -12,
    /// A reconfiguration would leave no quorum.
    NewConfigNoQuorum = -13,
    /// Another reconfiguration is in progress.
    ReconfigInProgress = -14,
    /// The boundary between the errors of the server and those of the API.
    ApiError = -100,
    /// The node does not exist.
    NoNode = -101,
    /// Not permitted.
    NoAuth = -102,
    /// The node has another version.
    BadVersion = -103,
    /// An ephemeral node cannot have children.
    NoChildrenForEphemerals = -108,
    /// The node exists already.
    NodeExists = -110,
    /// The node has children.
    NotEmpty = -111,
    /// The session has expired.
    SessionExpired = -112,
    /// The callback is not valid.
    InvalidCallback = -113,
    /// The access list is not valid.
    InvalidAcl = -114,
    /// Authentication failed.
    AuthFailed = -115,
    /// The session has moved to another server.
    SessionMoved = -118,
    /// A write was sent to a read-only server.
    NotReadOnly = -119,
    /// A session that only one server knows cannot own ephemeral nodes.
    EphemeralOnLocalSession = -120,
    /// There is no such watch.
    NoWatcher = -121,
    /// The request took longer than the server allows.
    RequestTimeout = -122,
    /// Reconfiguration is disabled.
    ReconfigDisabled = -123,
    /// The server requires SASL authentication.
    SessionClosedRequireSaslAuth = -124,
    /// A quota would be exceeded.
    QuotaExceeded = -125,
    /// The server was overloaded and did not run the request.
    ThrottledOp = -127,
}

// === impl ErrorCode ===

impl ErrorCode {
    /// The wire number of an outcome: 0 if nothing failed.
    pub fn to_wire(error: Option<Self>) -> i32 {
        error.map_or(0, Self::code)
    }
}
