//! multi: several writes, all or none.

use basalt_zk::proto::{ErrorCode, MultiOp, MultiRequest, Xid};

use crate::request::write::Reply;
use crate::request::{Client, check, create, delete, set_data};
use crate::tree::Operation;

pub(super) async fn multi(client: &Client, xid: Xid, request: MultiRequest) {
    let with_stat = request.ops.iter().map(|op| matches!(op, MultiOp::Create2(_))).collect();
    let operations: Result<Vec<_>, _> = request.ops.into_iter().map(operation).collect();
    match operations {
        Ok(operations) => client.write(xid, operations, Reply::Multi { with_stat }).await,
        Err(error) => client.refuse(xid, error).await,
    }
}

fn operation(op: MultiOp) -> Result<Operation, ErrorCode> {
    match op {
        MultiOp::Create(request) | MultiOp::Create2(request) => create::operation(request),
        MultiOp::CreateContainer(_) | MultiOp::CreateTtl(_) => Err(ErrorCode::Unimplemented),
        MultiOp::Delete(request) => Ok(delete::operation(request)),
        MultiOp::SetData(request) => Ok(set_data::operation(request)),
        MultiOp::Check(request) => Ok(check::operation(request)),
        MultiOp::GetChildren(_) | MultiOp::GetData(_) => Err(ErrorCode::BadArguments),
    }
}
