//! The wire format: jute records and frames of the ZooKeeper 3.8/3.9 client protocol, in both
//! directions.
//!
//! A connection carries [`frame`]s. The client's first frame has a [`ConnectRequest`], and the
//! server's first a [`ConnectResponse`]. After that, a frame of the client has a [`RequestHeader`]
//! and the record of its [`OpCode`] ([`Request`] is all of them). A frame of the server has a
//! [`ReplyHeader`] and, unless the header names an error, the reply's record. With [`Xid::EVENT`]
//! it has a [`WatcherEvent`] instead.
//!
//! Decoding never panics and never trusts a length. Like the Java implementation, it ignores bytes
//! after the last field of a record: newer peers may append fields.

mod acl;
mod codec;
mod connect;
mod create_mode;
mod error_code;
pub mod frame;
mod header;
mod multi;
mod node;
mod op_code;
pub mod path;
mod request;
mod session;
mod stat;
mod watch;

pub use acl::{Acl, GetAclRequest, GetAclResponse, Permissions, SetAclRequest};
pub use codec::{Decode, DecodeError, Decoder, Encode, Problem};
pub use connect::{ConnectRequest, ConnectResponse, PASSWORD_BYTES, SessionId};
pub use create_mode::CreateMode;
pub use error_code::ErrorCode;
pub use header::{ReplyHeader, RequestHeader, Xid, Zxid};
pub use multi::{MultiOp, MultiRequest, MultiResponse, MultiResult};
pub use node::{
    CheckVersionRequest, Create2Response, CreateRequest, CreateResponse, CreateTtlRequest,
    DeleteRequest, ExistsRequest, GetAllChildrenNumberRequest, GetAllChildrenNumberResponse,
    GetChildren2Response, GetChildrenRequest, GetChildrenResponse, GetDataRequest, GetDataResponse,
    SetDataRequest, StatResponse, SyncRequest, SyncResponse, VERSION_ANY,
};
pub use op_code::OpCode;
pub use request::Request;
pub use session::{
    AuthRequest, ClientInfo, GetEphemeralsRequest, GetEphemeralsResponse, WhoAmIResponse,
};
pub use stat::Stat;
pub use watch::{
    AddWatchMode, AddWatchRequest, AddWatchResponse, EventType, KeeperState, RemoveWatchesRequest,
    SetWatches2Request, SetWatchesRequest, WatcherEvent, WatcherType,
};

#[cfg(test)]
mod tests;
