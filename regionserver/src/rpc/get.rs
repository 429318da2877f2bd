//! `Get`: one row.

use basalt_hbase_rpc::{Call, Exception, Reply, pb};
use basalt_model::Cell;

use super::results::Results;
use super::{Purpose, Result, Rpc, decode, request};
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
        let message = "closest_row_before is not offered; scan in reverse instead";
        return Err(Exception::bad_request(message));
    }
    let cells = cells(served, get).await?;
    if get.existence_only() {
        return Ok(pb::Result { exists: Some(!cells.is_empty()), ..pb::Result::default() });
    }
    Ok(results.add(cells))
}

pub(super) async fn cells(served: &Served, get: &pb::Get) -> Result<Vec<Cell>> {
    let read = decode::get(get)?;
    let cells = served.region.get(&get.row, &read).await?;
    match &get.filter {
        None => Ok(cells),
        Some(filter) => {
            let mut filter = crate::filter::decode(filter)?;
            Ok(filter.filter_row(&get.row, cells).unwrap_or_default())
        }
    }
}
