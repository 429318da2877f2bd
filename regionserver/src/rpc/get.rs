//! `Get`: one row.

use basalt_hbase_rpc::{Call, Exception, ExceptionKind, Reply, pb};
use basalt_model::Cell;

use super::results::Results;
use super::{Purpose, Result, Rpc, decode, request};
use crate::filter::RowFilter;
use crate::server::Served;

// === impl Rpc ===

impl Rpc {
    pub(super) async fn get(&self, call: Call) -> Result<Reply> {
        let request: pb::GetRequest = request(&call)?;
        let served = self.region(&request.region, Purpose::Read).await?;
        let mut results = Results::of(&call);
        let result = read(&served, &request.get, &mut results).await?;
        let response = pb::GetResponse { result: Some(result) };
        Ok(Reply::with_cells(&response, results.into_cells()))
    }
}

/// Reads one row into `results`.
pub(super) async fn read(
    served: &Served,
    get: &pb::Get,
    results: &mut Results,
) -> Result<pb::Result> {
    if get.closest_row_before() {
        let message = "closest_row_before is only in HBase 1: use a reverse scan instead";
        return Err(Exception::new(ExceptionKind::UnknownProtocol, message));
    }
    let cells = cells(served, get).await?;
    if get.existence_only() {
        return Ok(pb::Result { exists: Some(!cells.is_empty()), ..pb::Result::default() });
    }
    Ok(results.add(cells))
}

pub(super) async fn cells(served: &Served, get: &pb::Get) -> Result<Vec<Cell>> {
    let read = decode::get(get)?;
    let (read, filter) = RowFilter::of(get.filter.as_ref(), read, false)?;
    let cells = served.region.get(&get.row, &read).await?;
    Ok(match filter {
        None => cells,
        Some(mut filter) => filter.filter(&get.row, cells),
    })
}
