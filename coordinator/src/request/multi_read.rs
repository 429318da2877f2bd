//! multiRead: several reads of one state, each with its own outcome.

use basalt_zk::proto::{
    ErrorCode, GetChildrenResponse, MultiOp, MultiRequest, MultiResponse, MultiResult, Xid,
};

use crate::request::{Client, get_children, get_data};
use crate::tree::State;

pub(super) async fn multi_read(client: &Client, xid: Xid, request: MultiRequest) {
    client
        .read(xid, |state| {
            let mut results = Vec::new();
            for op in &request.ops {
                results.push(read_one(state, op)?);
            }
            Ok(MultiResponse { results })
        })
        .await;
}

fn read_one(state: &State, op: &MultiOp) -> Result<MultiResult, ErrorCode> {
    let result = match op {
        MultiOp::GetData(request) => get_data::look(state, &request.path).map(MultiResult::GetData),
        MultiOp::GetChildren(request) => get_children::look(state, &request.path)
            .map(|(children, _)| MultiResult::GetChildren(GetChildrenResponse { children })),
        _ => return Err(ErrorCode::BadArguments),
    };
    Ok(result.unwrap_or_else(|error| MultiResult::Error(Some(error))))
}
