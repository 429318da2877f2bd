//! Decodes requests as their handlers do, for the fuzz targets.

use basalt_hbase_rpc::pb;
use basalt_model::Cell;

use super::{decode, mutate};
use crate::filter;

pub(crate) fn get(request: &pb::GetRequest) {
    let _ = decode::region_name(&request.region);
    let _ = decode::get(&request.get);
    let _ = request.get.filter.as_ref().map(filter::decode);
}

pub(crate) fn scan(request: &pb::ScanRequest) {
    let _ = request.region.as_ref().map(decode::region_name);
    if let Some(scan) = &request.scan {
        let _ = decode::scan_read(scan);
        let _ = decode::scan_range(scan);
        let _ = scan.filter.as_ref().map(filter::decode);
    }
}

pub(crate) fn mutate(request: &pb::MutateRequest, cells: Vec<Cell>) {
    let _ = decode::region_name(&request.region);
    let _ = decode::mutation(&request.mutation, &mut cells.clone().into_iter());
    if let Some(condition) = &request.condition {
        check(condition, &cells);
    }
}

pub(crate) fn multi(request: pb::MultiRequest, cells: Vec<Cell>) {
    let mut beside = cells.clone().into_iter();
    for region in request.region_action {
        let _ = decode::region_name(&region.region);
        for action in region.action {
            let _ = action.get.as_ref().map(decode::get);
            let _ = action.mutation.map(|mutation| decode::mutation(&mutation, &mut beside));
        }
        if let Some(condition) = &region.condition {
            check(condition, &cells);
        }
    }
}

fn check(condition: &pb::Condition, cells: &[Cell]) {
    if let Ok(condition) = mutate::condition_of(condition) {
        let _ = (condition.holds)(cells);
    }
}
