//! `AdminService`: requests of clients and the shell about the regions of one server.

use std::sync::atomic::Ordering;

use basalt_hbase_rpc::{Call, Exception, ExceptionKind, Reply, pb, schema, znode};

use super::{Purpose, Result, Rpc, request};
use crate::region::Region;
use crate::schedulers;

// === impl Rpc ===

impl Rpc {
    pub(super) async fn admin_service(&self, call: Call) -> Result<Reply> {
        match call.method.as_str() {
            "GetRegionInfo" => self.get_region_info(&call).await,
            "GetOnlineRegion" => {
                let regions = self.server.regions();
                let infos =
                    regions.iter().map(|served| schema::region_to_message(&served.region.info));
                Ok(Reply::new(&pb::GetOnlineRegionResponse { region_info: infos.collect() }))
            }
            "GetServerInfo" => Ok(Reply::new(&pb::GetServerInfoResponse {
                server_info: pb::ServerInfo {
                    server_name: znode::server_to_message(&self.server.name),
                    webui_port: None,
                },
            })),
            "GetRegionLoad" => self.get_region_load(&call),
            "FlushRegion" => self.flush_region(&call).await,
            "CompactRegion" => self.compact_region(&call).await,
            "RollWALWriter" => {
                let rolled = self.server.shared.wal.roll().await;
                // An `IOException`: if a log cannot begin a new file, it continues in the current
                // one.
                rolled.map_err(|error| Exception::new(ExceptionKind::Other, error.to_string()))?;
                Ok(Reply::new(&pb::RollWalWriterResponse::default()))
            }
            method => Err(Exception::unknown_method(method)),
        }
    }

    async fn get_region_info(&self, call: &Call) -> Result<Reply> {
        let request: pb::GetRegionInfoRequest = request(call)?;
        let served = self.region(&request.region, Purpose::Read).await?;
        let region_info = schema::region_to_message(&served.region.info);
        Ok(Reply::new(&pb::GetRegionInfoResponse { region_info, ..Default::default() }))
    }

    /// The sizes of the regions of a table, or of all regions. MapReduce plans its reads with them.
    fn get_region_load(&self, call: &Call) -> Result<Reply> {
        let request: pb::GetRegionLoadRequest = request(call)?;
        let table = request.table_name.as_ref().map(schema::table_name_from_message);
        let table = table.transpose().map_err(Exception::bad_request)?;
        let mut served = self.server.regions();
        served
            .retain(|served| table.as_ref().is_none_or(|table| served.region.info.table == *table));
        let region_loads = served.iter().map(|served| load_of(&served.region)).collect();
        Ok(Reply::new(&pb::GetRegionLoadResponse { region_loads }))
    }

    async fn flush_region(&self, call: &Call) -> Result<Reply> {
        let request: pb::FlushRegionRequest = request(call)?;
        let served = self.region(&request.region, Purpose::Read).await?;
        schedulers::flush(&self.server, &served).await?;
        Ok(Reply::new(&pb::FlushRegionResponse { flushed: Some(true), ..Default::default() }))
    }

    async fn compact_region(&self, call: &Call) -> Result<Reply> {
        let request: pb::CompactRegionRequest = request(call)?;
        let served = self.region(&request.region, Purpose::Read).await?;
        // Clients do not wait for a compaction: they poll its state.
        let (name, is_major) = (served.region.encoded_name, request.major());
        let added = self.server.compactions.add(name, is_major);
        added.map_err(|full| Exception::new(ExceptionKind::RegionTooBusy, full.to_string()))?;
        Ok(Reply::new(&pb::CompactRegionResponse::default()))
    }
}

fn load_of(region: &Region) -> pb::RegionLoad {
    let mebibytes = |bytes: u64| u32::try_from(bytes >> 20).ok();
    let size = region.size();
    pb::RegionLoad {
        region_specifier: pb::RegionSpecifier {
            r#type: pb::region_specifier::RegionSpecifierType::RegionName.into(),
            value: region.info.name(),
        },
        stores: u32::try_from(region.table.families.len()).ok(),
        storefiles: u32::try_from(size.store_files).ok(),
        store_uncompressed_size_mb: mebibytes(size.uncompressed_bytes),
        storefile_size_mb: mebibytes(size.store_file_bytes),
        mem_store_size_mb: mebibytes(size.memstore_bytes),
        // Reads and writes are counted together.
        read_requests_count: Some(region.requests.load(Ordering::Relaxed)),
        ..pb::RegionLoad::default()
    }
}
