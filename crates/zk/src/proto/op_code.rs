//! The operation codes of requests.

use std::fmt;

macro_rules! op_codes {
    ($( $(#[$attribute:meta])* $name:ident = $code:literal, )*) => {
        /// The operation of a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum OpCode {
            $( $(#[$attribute])* $name, )*
        }

        impl OpCode {
            /// All codes.
            pub const ALL: &[Self] = &[$( Self::$name, )*];

            /// The number of the operation on the wire.
            pub fn code(self) -> i32 {
                match self { $( Self::$name => $code, )* }
            }

            /// The operation of a wire number.
            pub fn from_wire(code: i32) -> Option<Self> {
                match code { $( $code => Some(Self::$name), )* _ => None }
            }
        }

        impl fmt::Display for OpCode {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $( Self::$name => write!(formatter, "{} ({})", stringify!($name), $code), )*
                }
            }
        }
    };
}

op_codes! {
    /// Creates a node. The answer is its path.
    Create = 1,
    /// Deletes a node.
    Delete = 2,
    /// Whether a node exists.
    Exists = 3,
    /// A node's data.
    GetData = 4,
    /// Replaces a node's data.
    SetData = 5,
    /// A node's access list.
    GetAcl = 6,
    /// Replaces a node's access list.
    SetAcl = 7,
    /// The names of a node's children.
    GetChildren = 8,
    /// Waits until this server has everything that the leader had.
    Sync = 9,
    /// Keeps the session alive.
    Ping = 11,
    /// The names of a node's children, and its [`super::Stat`].
    GetChildren2 = 12,
    /// Requires a version of a node, within a multi.
    Check = 13,
    /// Several writes, all or none.
    Multi = 14,
    /// Creates a node. The answer is its path and [`super::Stat`].
    Create2 = 15,
    /// Changes the members of the ensemble.
    Reconfig = 16,
    /// Whether the server has a watch.
    CheckWatches = 17,
    /// Removes a watch.
    RemoveWatches = 18,
    /// Creates a node that is deleted when its last child has been deleted.
    CreateContainer = 19,
    /// Deletes an empty container. Clients never send it.
    DeleteContainer = 20,
    /// Creates a node that is deleted when it has not been modified for a time.
    CreateTtl = 21,
    /// Several reads, each with its own outcome.
    MultiRead = 22,
    /// Adds an identity to the connection.
    Auth = 100,
    /// Sets one-shot watches again after a reconnect.
    SetWatches = 101,
    /// A step of a SASL authentication.
    Sasl = 102,
    /// The ephemeral nodes of this session.
    GetEphemerals = 103,
    /// How many nodes there are below a node.
    GetAllChildrenNumber = 104,
    /// Sets watches of all kinds again after a reconnect.
    SetWatches2 = 105,
    /// Adds a persistent watch.
    AddWatch = 106,
    /// The identities of the connection.
    WhoAmI = 107,
    /// Opens a session. Used only inside servers: no header on the wire has it.
    CreateSession = -10,
    /// Ends the session.
    CloseSession = -11,
}
