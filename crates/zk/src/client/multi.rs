//! The operations of a multi in the form for callers, and their results.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::proto::path;
use crate::proto::{
    Acl, CheckVersionRequest, CreateMode, CreateRequest, DeleteRequest, ErrorCode, GetDataRequest,
    MultiOp, MultiRequest, MultiResponse, MultiResult, SetDataRequest, Stat, VERSION_ANY,
};

/// One write of a multi. A version of `None` means any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Creates a node.
    Create {
        /// Its path.
        path: String,
        /// Its data.
        data: Bytes,
        /// The kind of node.
        mode: CreateMode,
    },
    /// Deletes a node.
    Delete {
        /// Its path.
        path: String,
        /// The version that it must have.
        version: Option<i32>,
    },
    /// Replaces a node's data.
    SetData {
        /// Its path.
        path: String,
        /// The new data.
        data: Bytes,
        /// The version that it must have.
        version: Option<i32>,
    },
    /// Requires that a node exists and has a version.
    Check {
        /// Its path.
        path: String,
        /// The version that it must have.
        version: Option<i32>,
    },
}

/// The result of one operation of a multi.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// The result of [`Op::Create`].
    Create {
        /// The node's path, with the number of a sequential node.
        path: String,
        /// The node's stat.
        stat: Stat,
    },
    /// The result of [`Op::Delete`].
    Delete,
    /// The result of [`Op::SetData`]: the node's stat.
    SetData(Stat),
    /// The result of [`Op::Check`].
    Check,
}

// === impl Op ===

impl Op {
    /// The node.
    pub fn path(&self) -> &str {
        match self {
            Self::Create { path, .. }
            | Self::Delete { path, .. }
            | Self::SetData { path, .. }
            | Self::Check { path, .. } => path,
        }
    }

    fn validate(&self) -> Result<()> {
        match self {
            Self::Create { path, mode, .. } => path::validate_create(path, mode.is_sequential())?,
            _ => path::validate(self.path())?,
        }
        Ok(())
    }

    fn to_wire(&self) -> MultiOp {
        match self {
            Self::Create { path, data, mode } => MultiOp::Create2(CreateRequest {
                path: path.clone(),
                data: Some(data.clone()),
                acl: Acl::open(),
                flags: mode.flags(),
            }),
            Self::Delete { path, version } => MultiOp::Delete(DeleteRequest {
                path: path.clone(),
                version: version.unwrap_or(VERSION_ANY),
            }),
            Self::SetData { path, data, version } => MultiOp::SetData(SetDataRequest {
                path: path.clone(),
                data: Some(data.clone()),
                version: version.unwrap_or(VERSION_ANY),
            }),
            Self::Check { path, version } => MultiOp::Check(CheckVersionRequest {
                path: path.clone(),
                version: version.unwrap_or(VERSION_ANY),
            }),
        }
    }
}

/// The request for `ops`.
pub(super) fn request(ops: &[Op]) -> Result<MultiRequest> {
    ops.iter().try_for_each(Op::validate)?;
    Ok(MultiRequest { ops: ops.iter().map(Op::to_wire).collect() })
}

/// How many nodes one request reads. With records of up to a few KB, the answers stay within a
/// frame.
pub(super) const READS_MAX: usize = 128;

/// The request that reads the nodes at `paths`.
pub(super) fn read_request(paths: &[String]) -> Result<MultiRequest> {
    paths.iter().try_for_each(|path| path::validate(path))?;
    let read =
        |path: &String| MultiOp::GetData(GetDataRequest { path: path.clone(), watch: false });
    Ok(MultiRequest { ops: paths.iter().map(read).collect() })
}

/// The results of reading `paths`.
pub(super) fn read_results(
    paths: &[String],
    response: MultiResponse,
) -> Result<Vec<Option<(Bytes, Stat)>>> {
    let refused = |index: usize, code| {
        let path = paths.get(index).cloned().unwrap_or_default();
        Error::Multi { index, path, code }
    };
    if response.results.len() != paths.len() {
        return Err(refused(response.results.len(), ErrorCode::MarshallingError));
    }
    let results = response.results.into_iter().enumerate().map(|(index, result)| match result {
        MultiResult::GetData(found) => Ok(Some((found.data.unwrap_or_default(), found.stat))),
        MultiResult::Error(Some(ErrorCode::NoNode)) => Ok(None),
        MultiResult::Error(Some(code)) => Err(refused(index, code)),
        _ => Err(refused(index, ErrorCode::MarshallingError)),
    });
    results.collect()
}

/// The results of `ops`, or the operation that made the server reject all of them.
pub(super) fn results(ops: &[Op], response: MultiResponse) -> Result<Vec<OpResult>> {
    let mut results = Vec::with_capacity(ops.len());
    // In a rejected multi, the operations before the rejected one have the error "none".
    for (index, result) in response.results.into_iter().enumerate() {
        match result {
            MultiResult::Create2(created) => {
                results.push(OpResult::Create { path: created.path, stat: created.stat })
            }
            MultiResult::Create(created) => {
                results.push(OpResult::Create { path: created.path, stat: Stat::default() })
            }
            MultiResult::Delete => results.push(OpResult::Delete),
            MultiResult::SetData(written) => results.push(OpResult::SetData(written.stat)),
            MultiResult::Check => results.push(OpResult::Check),
            MultiResult::Error(None) => {}
            MultiResult::Error(Some(code)) => return Err(refused(ops, index, code)),
            MultiResult::GetChildren(_) | MultiResult::GetData(_) => break,
        }
    }
    if results.len() == ops.len() {
        Ok(results)
    } else {
        Err(refused(ops, results.len(), ErrorCode::MarshallingError))
    }
}

fn refused(ops: &[Op], index: usize, code: ErrorCode) -> Error {
    Error::Multi { index, path: ops.get(index).map_or("", Op::path).to_owned(), code }
}
