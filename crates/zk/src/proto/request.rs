//! Every request that a client may send after the first message.

use bytes::BytesMut;

use super::{
    AddWatchRequest, AuthRequest, CheckVersionRequest, CreateRequest, CreateTtlRequest, Decode,
    DecodeError, Decoder, DeleteRequest, Encode, ExistsRequest, GetAclRequest,
    GetAllChildrenNumberRequest, GetChildrenRequest, GetDataRequest, GetEphemeralsRequest,
    MultiRequest, OpCode, Problem, RemoveWatchesRequest, SetAclRequest, SetDataRequest,
    SetWatches2Request, SetWatchesRequest, SyncRequest,
};

macro_rules! requests {
    (
        $( $(#[$attribute:meta])* $name:ident($record:ty), )*
        ---
        $( $(#[$bare_attribute:meta])* $bare:ident, )*
    ) => {
        /// A request: its operation and its record. SASL, reconfiguration and operations that only
        /// servers use among themselves are not included.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Request {
            $( $(#[$attribute])* $name($record), )*
            $( $(#[$bare_attribute])* $bare, )*
        }

        impl Request {
            /// Which operation this is.
            pub fn op_code(&self) -> OpCode {
                match self {
                    $( Self::$name(_) => OpCode::$name, )*
                    $( Self::$bare => OpCode::$bare, )*
                }
            }

            /// Reads the record that follows a header with operation `code`.
            ///
            /// # Errors
            /// [`Problem::UnknownOp`] if no request has that code. Otherwise see
            /// [`Decode::decode`].
            pub fn decode(code: i32, input: &mut Decoder) -> Result<Self, DecodeError> {
                match OpCode::from_wire(code) {
                    $( Some(OpCode::$name) => <$record>::decode(input).map(Self::$name), )*
                    $( Some(OpCode::$bare) => Ok(Self::$bare), )*
                    _ => Err(DecodeError::of(Problem::UnknownOp { code })
                        .within("RequestHeader.op")),
                }
            }
        }

        /// The record alone, without its header.
        impl Encode for Request {
            fn encode(&self, output: &mut BytesMut) {
                match self {
                    $( Self::$name(record) => record.encode(output), )*
                    $( Self::$bare => {} )*
                }
            }
        }
    };
}

requests! {
    /// Creates a node.
    Create(CreateRequest),
    /// Creates a node. The answer has its stat.
    Create2(CreateRequest),
    /// Creates a container.
    CreateContainer(CreateRequest),
    /// Creates a node with a time to live.
    CreateTtl(CreateTtlRequest),
    /// Deletes a node.
    Delete(DeleteRequest),
    /// Whether a node exists.
    Exists(ExistsRequest),
    /// A node's data.
    GetData(GetDataRequest),
    /// Replaces a node's data.
    SetData(SetDataRequest),
    /// A node's access list.
    GetAcl(GetAclRequest),
    /// Replaces a node's access list.
    SetAcl(SetAclRequest),
    /// The names of a node's children.
    GetChildren(GetChildrenRequest),
    /// The names of a node's children, and its stat.
    GetChildren2(GetChildrenRequest),
    /// Waits until this server has everything that the leader had.
    Sync(SyncRequest),
    /// Requires a version of a node.
    Check(CheckVersionRequest),
    /// Several writes, all or none.
    Multi(MultiRequest),
    /// Several reads.
    MultiRead(MultiRequest),
    /// Sets one-shot watches again.
    SetWatches(SetWatchesRequest),
    /// Sets watches of all kinds again.
    SetWatches2(SetWatches2Request),
    /// Adds a persistent watch.
    AddWatch(AddWatchRequest),
    /// Whether the server has a watch.
    CheckWatches(RemoveWatchesRequest),
    /// Removes a watch.
    RemoveWatches(RemoveWatchesRequest),
    /// The ephemeral nodes of this session.
    GetEphemerals(GetEphemeralsRequest),
    /// How many nodes there are below a node.
    GetAllChildrenNumber(GetAllChildrenNumberRequest),
    /// Adds an identity.
    Auth(AuthRequest),
    ---
    /// The identities of the connection.
    WhoAmI,
    /// Keeps the session alive.
    Ping,
    /// Ends the session.
    CloseSession,
}
