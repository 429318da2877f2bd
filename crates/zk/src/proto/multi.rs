//! Several operations in one request. Writes take effect all or none; reads each have their own
//! result.
//!
//! Each operation is preceded by a header `{type: i32, done: bool, error: i32}`. A last header
//! `{-1, true, -1}` ends the list.

use bytes::BytesMut;

use super::codec::record;
use super::{
    CheckVersionRequest, Create2Response, CreateRequest, CreateResponse, CreateTtlRequest, Decode,
    DecodeError, Decoder, DeleteRequest, Encode, ErrorCode, GetChildrenRequest,
    GetChildrenResponse, GetDataRequest, GetDataResponse, OpCode, Problem, SetDataRequest,
    StatResponse,
};

/// The operations of a multi or a multiRead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MultiRequest {
    /// The operations, in the order in which they take effect.
    pub ops: Vec<MultiOp>,
}

/// One operation of a multi (the first seven) or a multiRead (the last two).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultiOp {
    /// Creates a node. The result is its path.
    Create(CreateRequest),
    /// Creates a node. The result is its path and stat.
    Create2(CreateRequest),
    /// Creates a container.
    CreateContainer(CreateRequest),
    /// Creates a node with a time to live.
    CreateTtl(CreateTtlRequest),
    /// Deletes a node.
    Delete(DeleteRequest),
    /// Replaces a node's data.
    SetData(SetDataRequest),
    /// Requires a version.
    Check(CheckVersionRequest),
    /// Reads the names of a node's children.
    GetChildren(GetChildrenRequest),
    /// Reads a node's data.
    GetData(GetDataRequest),
}

/// The results of a multi or a multiRead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MultiResponse {
    /// One result for each operation.
    pub results: Vec<MultiResult>,
}

/// The result of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultiResult {
    /// The result of [`MultiOp::Create`].
    Create(CreateResponse),
    /// The result of [`MultiOp::Create2`], [`MultiOp::CreateContainer`], [`MultiOp::CreateTtl`].
    Create2(Create2Response),
    /// The result of [`MultiOp::Delete`].
    Delete,
    /// The result of [`MultiOp::SetData`].
    SetData(StatResponse),
    /// The result of [`MultiOp::Check`].
    Check,
    /// The result of [`MultiOp::GetChildren`].
    GetChildren(GetChildrenResponse),
    /// The result of [`MultiOp::GetData`].
    GetData(GetDataResponse),
    /// In a multi that failed: `None` for the operations before the one that failed, and
    /// [`ErrorCode::RuntimeInconsistency`] for those after it. In a multiRead: a read that failed.
    Error(Option<ErrorCode>),
}

record! {
    #[expect(unreachable_pub, reason = "records are public elsewhere")]
    MultiHeader {
        kind: i32,
        done: bool,
        error: i32,
    }
}

/// The type of a result that is an error, and of the header that ends a list.
const ERROR_KIND: i32 = -1;

// === impl MultiHeader ===

impl MultiHeader {
    fn last() -> Self {
        Self { kind: ERROR_KIND, done: true, error: -1 }
    }
}

// === impl MultiRequest ===

impl Encode for MultiRequest {
    fn encode(&self, output: &mut BytesMut) {
        for op in &self.ops {
            MultiHeader { kind: op.op_code().code(), done: false, error: -1 }.encode(output);
            op.encode(output);
        }
        MultiHeader::last().encode(output);
    }
}

impl Decode for MultiRequest {
    fn decode(input: &mut Decoder) -> Result<Self, DecodeError> {
        let mut ops = Vec::new();
        loop {
            let header = MultiHeader::decode(input)?;
            if header.done {
                return Ok(Self { ops });
            }
            ops.push(MultiOp::decode(header.kind, input)?);
        }
    }
}

// === impl MultiOp ===

impl MultiOp {
    /// Which operation this is.
    pub fn op_code(&self) -> OpCode {
        match self {
            Self::Create(_) => OpCode::Create,
            Self::Create2(_) => OpCode::Create2,
            Self::CreateContainer(_) => OpCode::CreateContainer,
            Self::CreateTtl(_) => OpCode::CreateTtl,
            Self::Delete(_) => OpCode::Delete,
            Self::SetData(_) => OpCode::SetData,
            Self::Check(_) => OpCode::Check,
            Self::GetChildren(_) => OpCode::GetChildren,
            Self::GetData(_) => OpCode::GetData,
        }
    }

    fn encode(&self, output: &mut BytesMut) {
        match self {
            Self::Create(request) | Self::Create2(request) | Self::CreateContainer(request) => {
                request.encode(output);
            }
            Self::CreateTtl(request) => request.encode(output),
            Self::Delete(request) => request.encode(output),
            Self::SetData(request) => request.encode(output),
            Self::Check(request) => request.encode(output),
            Self::GetChildren(request) => request.encode(output),
            Self::GetData(request) => request.encode(output),
        }
    }

    fn decode(code: i32, input: &mut Decoder) -> Result<Self, DecodeError> {
        match OpCode::from_wire(code) {
            Some(OpCode::Create) => CreateRequest::decode(input).map(Self::Create),
            Some(OpCode::Create2) => CreateRequest::decode(input).map(Self::Create2),
            Some(OpCode::CreateContainer) => {
                CreateRequest::decode(input).map(Self::CreateContainer)
            }
            Some(OpCode::CreateTtl) => CreateTtlRequest::decode(input).map(Self::CreateTtl),
            Some(OpCode::Delete) => DeleteRequest::decode(input).map(Self::Delete),
            Some(OpCode::SetData) => SetDataRequest::decode(input).map(Self::SetData),
            Some(OpCode::Check) => CheckVersionRequest::decode(input).map(Self::Check),
            Some(OpCode::GetChildren) => GetChildrenRequest::decode(input).map(Self::GetChildren),
            Some(OpCode::GetData) => GetDataRequest::decode(input).map(Self::GetData),
            _ => Err(unknown_op(code)),
        }
    }
}

// === impl MultiResponse ===

impl Encode for MultiResponse {
    fn encode(&self, output: &mut BytesMut) {
        for result in &self.results {
            result.header().encode(output);
            result.encode(output);
        }
        MultiHeader::last().encode(output);
    }
}

impl Decode for MultiResponse {
    fn decode(input: &mut Decoder) -> Result<Self, DecodeError> {
        let mut results = Vec::new();
        loop {
            let header = MultiHeader::decode(input)?;
            if header.done {
                return Ok(Self { results });
            }
            results.push(MultiResult::decode(header.kind, input)?);
        }
    }
}

// === impl MultiResult ===

impl MultiResult {
    fn header(&self) -> MultiHeader {
        let (kind, error) = match self {
            Self::Create(_) => (OpCode::Create.code(), 0),
            Self::Create2(_) => (OpCode::Create2.code(), 0),
            Self::Delete => (OpCode::Delete.code(), 0),
            Self::SetData(_) => (OpCode::SetData.code(), 0),
            Self::Check => (OpCode::Check.code(), 0),
            Self::GetChildren(_) => (OpCode::GetChildren.code(), 0),
            Self::GetData(_) => (OpCode::GetData.code(), 0),
            Self::Error(error) => (ERROR_KIND, ErrorCode::to_wire(*error)),
        };
        MultiHeader { kind, done: false, error }
    }

    fn encode(&self, output: &mut BytesMut) {
        match self {
            Self::Create(response) => response.encode(output),
            Self::Create2(response) => response.encode(output),
            Self::Delete | Self::Check => {}
            Self::SetData(response) => response.encode(output),
            Self::GetChildren(response) => response.encode(output),
            Self::GetData(response) => response.encode(output),
            Self::Error(error) => ErrorCode::to_wire(*error).encode(output),
        }
    }

    fn decode(code: i32, input: &mut Decoder) -> Result<Self, DecodeError> {
        if code == ERROR_KIND {
            return i32::decode(input).map(|error| Self::Error(ErrorCode::from_wire(error)));
        }
        match OpCode::from_wire(code) {
            Some(OpCode::Create) => CreateResponse::decode(input).map(Self::Create),
            Some(OpCode::Create2) => Create2Response::decode(input).map(Self::Create2),
            Some(OpCode::Delete) => Ok(Self::Delete),
            Some(OpCode::SetData) => StatResponse::decode(input).map(Self::SetData),
            Some(OpCode::Check) => Ok(Self::Check),
            Some(OpCode::GetChildren) => GetChildrenResponse::decode(input).map(Self::GetChildren),
            Some(OpCode::GetData) => GetDataResponse::decode(input).map(Self::GetData),
            _ => Err(unknown_op(code)),
        }
    }
}

fn unknown_op(code: i32) -> DecodeError {
    DecodeError::of(Problem::UnknownMultiOp { code }).within("MultiHeader.kind")
}
