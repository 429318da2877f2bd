//! Decoders of client input, for the fuzz targets. Only compiled with `--cfg fuzzing`.

use basalt_hbase_rpc::pb;
use basalt_model::Cell;
use prost::Message;

use crate::filter::RowFilter;
use crate::region::RowRead;
use crate::rpc::fuzzing as rpc;

/// Decodes a request of `ClientService`, selected by `kind`, with `cells` beside it.
pub fn decode_request(kind: u8, message: &[u8], cells: Vec<Cell>) {
    match kind % 4 {
        0 => drop(pb::GetRequest::decode(message).map(|request| rpc::get(&request))),
        1 => drop(pb::ScanRequest::decode(message).map(|request| rpc::scan(&request))),
        2 => drop(pb::MutateRequest::decode(message).map(|request| rpc::mutate(&request, cells))),
        _ => drop(pb::MultiRequest::decode(message).map(|request| rpc::multi(request, cells))),
    }
}

/// Decodes a filter and applies it to rows.
pub fn apply_filter(message: &[u8], rows: &[Vec<Cell>]) {
    let Ok(message) = pb::Filter::decode(message) else {
        return;
    };
    if let Ok((_, Some(mut filter))) = RowFilter::of(Some(&message), RowRead::all(), false) {
        for row in rows {
            let name = row.first().map(Cell::row).unwrap_or_default();
            let _ = filter.filter(name, row.clone());
            let _ = filter.is_done();
        }
    }
}
