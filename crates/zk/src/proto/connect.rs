//! The first message in each direction, which opens or resumes a session.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::{Decode, DecodeError, Decoder, Encode, Zxid};

/// The length of a session's password.
pub const PASSWORD_BYTES: usize = 16;

/// The identity of a session; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub i64);

/// Opens or resumes a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Always 0.
    pub protocol_version: i32,
    /// The highest transaction that the client has seen. A server that has not seen it must close
    /// the connection.
    pub last_zxid_seen: Zxid,
    /// The session timeout that the client requests.
    pub timeout_ms: i32,
    /// The session to resume, or 0.
    pub session_id: SessionId,
    /// The password of that session.
    pub password: Bytes,
    /// Whether a server without a quorum is acceptable. Absent in messages of clients before 3.4.
    pub read_only: Option<bool>,
}

/// The answer to a [`ConnectRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectResponse {
    /// Always 0.
    pub protocol_version: i32,
    /// The session timeout that the server grants; 0 if the session has expired.
    pub timeout_ms: i32,
    /// The session, or 0 if it has expired.
    pub session_id: SessionId,
    /// The password that the client must send to resume the session.
    pub password: Bytes,
    /// Whether the server has no quorum. Present if and only if the request had the field.
    pub read_only: Option<bool>,
}

// === impl SessionId ===

impl SessionId {
    /// No session.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x}", self.0)
    }
}

impl Encode for SessionId {
    fn encode(&self, output: &mut BytesMut) {
        self.0.encode(output);
    }
}

impl Decode for SessionId {
    fn decode(input: &mut Decoder) -> Result<Self, DecodeError> {
        i64::decode(input).map(Self)
    }
}

// === impl ConnectRequest ===

impl Encode for ConnectRequest {
    fn encode(&self, output: &mut BytesMut) {
        self.protocol_version.encode(output);
        self.last_zxid_seen.encode(output);
        self.timeout_ms.encode(output);
        self.session_id.encode(output);
        self.password.encode(output);
        encode_trailing(self.read_only, output);
    }
}

impl Decode for ConnectRequest {
    fn decode(input: &mut Decoder) -> Result<Self, DecodeError> {
        let within = |error: DecodeError| error.within("ConnectRequest");
        Ok(Self {
            protocol_version: i32::decode(input).map_err(within)?,
            last_zxid_seen: Zxid::decode(input).map_err(within)?,
            timeout_ms: i32::decode(input).map_err(within)?,
            session_id: SessionId::decode(input).map_err(within)?,
            password: Bytes::decode(input).map_err(within)?,
            read_only: decode_trailing(input)?,
        })
    }
}

// === impl ConnectResponse ===

impl ConnectResponse {
    /// The response that the session has expired, or that its password is wrong.
    pub fn expired(read_only: Option<bool>) -> Self {
        Self { password: Bytes::from_static(&[0; PASSWORD_BYTES]), read_only, ..Self::default() }
    }

    /// Whether this response says that the session has expired.
    pub fn is_expired(&self) -> bool {
        self.timeout_ms <= 0
    }
}

impl Encode for ConnectResponse {
    fn encode(&self, output: &mut BytesMut) {
        self.protocol_version.encode(output);
        self.timeout_ms.encode(output);
        self.session_id.encode(output);
        self.password.encode(output);
        encode_trailing(self.read_only, output);
    }
}

impl Decode for ConnectResponse {
    fn decode(input: &mut Decoder) -> Result<Self, DecodeError> {
        let within = |error: DecodeError| error.within("ConnectResponse");
        Ok(Self {
            protocol_version: i32::decode(input).map_err(within)?,
            timeout_ms: i32::decode(input).map_err(within)?,
            session_id: SessionId::decode(input).map_err(within)?,
            password: Bytes::decode(input).map_err(within)?,
            read_only: decode_trailing(input)?,
        })
    }
}

fn encode_trailing(flag: Option<bool>, output: &mut BytesMut) {
    if let Some(flag) = flag {
        flag.encode(output);
    }
}

fn decode_trailing(input: &mut Decoder) -> Result<Option<bool>, DecodeError> {
    if input.is_empty() {
        return Ok(None);
    }
    bool::decode(input).map(Some)
}
