//! The headers of requests and replies, and the numbers in them.

use std::fmt;

use bytes::BytesMut;

use super::codec::record;
use super::{Decode, DecodeError, Decoder, Encode, ErrorCode};

/// A client's number for one of its requests; the reply repeats it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xid(pub i32);

/// The number of a transaction. It rises with every change of the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zxid(pub i64);

record! {
    /// The header of every request but the first.
    RequestHeader {
        /// The request's number.
        xid: Xid,
        /// The wire code of an [`super::OpCode`]; a newer client may send an unknown one.
        op: i32,
    }
}

/// The header of every reply but the first, and of every event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The request's number, or [`Xid::EVENT`].
    pub xid: Xid,
    /// The write's transaction; for a read, the last one that the server had applied.
    pub zxid: Zxid,
    /// Why the request failed. An error has no body.
    pub error: Option<ErrorCode>,
}

// === impl Xid ===

impl Xid {
    /// The xid of an event, which answers no request.
    pub const EVENT: Self = Self(-1);
    /// The xid of a ping and its answer.
    pub const PING: Self = Self(-2);
    /// The xid of an authentication and its answer.
    pub const AUTH: Self = Self(-4);
    /// The xid of setWatches and setWatches2 and their answers.
    pub const SET_WATCHES: Self = Self(-8);
}

impl Encode for Xid {
    fn encode(&self, output: &mut BytesMut) {
        self.0.encode(output);
    }
}

impl Decode for Xid {
    fn decode(input: &mut Decoder) -> Result<Self, DecodeError> {
        i32::decode(input).map(Self)
    }
}

// === impl Zxid ===

impl Encode for Zxid {
    fn encode(&self, output: &mut BytesMut) {
        self.0.encode(output);
    }
}

impl Decode for Zxid {
    fn decode(input: &mut Decoder) -> Result<Self, DecodeError> {
        i64::decode(input).map(Self)
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x}", self.0)
    }
}

// === impl ReplyHeader ===

impl Encode for ReplyHeader {
    fn encode(&self, output: &mut BytesMut) {
        self.xid.encode(output);
        self.zxid.encode(output);
        ErrorCode::to_wire(self.error).encode(output);
    }
}

impl Decode for ReplyHeader {
    fn decode(input: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(Self {
            xid: Xid::decode(input).map_err(|error| error.within("ReplyHeader.xid"))?,
            zxid: Zxid::decode(input).map_err(|error| error.within("ReplyHeader.zxid"))?,
            error: ErrorCode::from_wire(
                i32::decode(input).map_err(|error| error.within("ReplyHeader.error"))?,
            ),
        })
    }
}
