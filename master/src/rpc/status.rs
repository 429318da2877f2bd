//! The state of the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_cluster::pb as cluster;
use basalt_hbase_rpc::{Call, Exception, Reply, pb, schema, znode};
use basalt_model::{RegionState, ServerName, TableName};
use futures::StreamExt;
use prost::Message;

use super::{Answer, MasterRpc};
use crate::block_locality::ClusterLocality;
use crate::term::Term;
use crate::view::View;

/// The version that clients see: the version of the protocol, then ours.
const VERSION: &str = concat!("2.6.4-basalt-", env!("CARGO_PKG_VERSION"));
/// How many servers' loads are read at once.
const READS_AT_ONCE: usize = 32;
const MEGABYTE: u64 = 1 << 20;

// === impl MasterRpc ===

impl MasterRpc {
    pub(super) async fn status(&self, term: &Arc<Term>, call: &Call) -> Answer {
        match call.method.as_str() {
            "IsMasterRunning" => {
                Ok(Reply::new(&pb::IsMasterRunningResponse { is_master_running: true }))
            }
            "IsMasterInMaintenanceMode" => {
                let in_maintenance_mode = false;
                Ok(Reply::new(&pb::IsInMaintenanceModeResponse { in_maintenance_mode }))
            }
            "getSecurityCapabilities" => {
                use pb::security_capabilities_response::Capability;
                let capabilities = vec![Capability::SimpleAuthentication.into()];
                Ok(Reply::new(&pb::SecurityCapabilitiesResponse { capabilities }))
            }
            "ListDecommissionedRegionServers" => {
                let server_name = term.draining().iter().map(znode::server_to_message).collect();
                Ok(Reply::new(&pb::ListDecommissionedRegionServersResponse { server_name }))
            }
            "GetClusterStatus" => {
                let cluster_status = self.cluster_status(term).await;
                Ok(Reply::new(&pb::GetClusterStatusResponse { cluster_status }))
            }
            method => Err(Exception::unknown_method(method)),
        }
    }

    async fn cluster_status(&self, term: &Arc<Term>) -> pb::ClusterStatus {
        let view = term.views.now();
        let loads = self.loads(&view).await;
        let places = term.places();
        let masters = self.client.get_children(&self.nodes.masters()).await;
        // Without an answer the list of standby masters is empty. The rest of the status is still
        // useful.
        let masters = masters.map(|(names, _)| names).unwrap_or_default();
        let masters = masters.iter().filter_map(|name| name.parse::<ServerName>().ok());
        let standbys = masters.filter(|server| *server != self.server);
        let dead = term.procedure_store.recovering().into_keys();
        let info_port = self.catalog.master().map(|master| master.info_port as i32);
        pb::ClusterStatus {
            hbase_version: Some(pb::HBaseVersionFileContent { version: VERSION.to_owned() }),
            live_servers: live_servers(&view, &loads, &places, term.clock.wall_ms()),
            dead_servers: dead.map(|server| znode::server_to_message(&server)).collect(),
            regions_in_transition: in_transition(&view),
            cluster_id: Some(pb::ClusterId { cluster_id: self.catalog.cluster_id() }),
            master: Some(znode::server_to_message(&self.server)),
            backup_masters: standbys.map(|server| znode::server_to_message(&server)).collect(),
            balancer_on: Some(!term.facts.lock().balancer_off),
            master_info_port: info_port,
            servers_name: view.servers.keys().map(znode::server_to_message).collect(),
            table_region_states_count: region_counts(&view),
            ..Default::default()
        }
    }

    /// The latest loads that region servers have written. The catalog keeps only their first
    /// records.
    async fn loads(&self, view: &View) -> BTreeMap<ServerName, cluster::ServerLoad> {
        let reads = view.servers.keys().map(|server| async move {
            let (data, _) = self.client.get_data(&self.nodes.server(server)).await.ok()?;
            let load = cluster::ServerRecord::decode(data).ok()?.load?;
            Some((server.clone(), load))
        });
        let reads: Vec<_> = reads.collect();
        let loads = futures::stream::iter(reads).buffered(READS_AT_ONCE);
        loads.filter_map(std::future::ready).collect().await
    }
}

fn live_servers(
    view: &View,
    loads: &BTreeMap<ServerName, cluster::ServerLoad>,
    places: &ClusterLocality,
    now_ms: u64,
) -> Vec<pb::LiveServerInfo> {
    let servers = view.servers.iter().map(|(server, record)| {
        let load = loads.get(server).cloned().unwrap_or_default();
        let regions = view.owned_by(server).map(|region| pb::RegionLoad {
            region_specifier: pb::RegionSpecifier {
                r#type: pb::region_specifier::RegionSpecifierType::RegionName.into(),
                value: region.record.info.name(),
            },
            data_locality: places.share(&region.record.encoded_name(), server),
            ..Default::default()
        });
        pb::LiveServerInfo {
            server: znode::server_to_message(server),
            server_load: pb::ServerLoad {
                number_of_requests: Some(load.requests_per_second),
                used_heap_mb: u32::try_from(load.memstore_bytes / MEGABYTE).ok(),
                max_heap_mb: Some(0),
                region_loads: regions.collect(),
                report_end_time: Some(now_ms),
                info_server_port: Some(record.info_port),
                ..Default::default()
            },
        }
    });
    servers.collect()
}

fn in_transition(view: &View) -> Vec<pb::RegionInTransition> {
    let moving = view.regions.values().filter_map(|region| {
        let state = match region.record.state {
            RegionState::Opening => pb::region_state::State::Opening,
            RegionState::Closing => pb::region_state::State::Closing,
            RegionState::Open | RegionState::Closed => return None,
        };
        Some(pb::RegionInTransition {
            spec: pb::RegionSpecifier {
                r#type: pb::region_specifier::RegionSpecifierType::RegionName.into(),
                value: region.record.info.name(),
            },
            region_state: pb::RegionState {
                region_info: schema::region_to_message(&region.record.info),
                state: state.into(),
                stamp: None,
            },
        })
    });
    moving.collect()
}

fn region_counts(view: &View) -> Vec<pb::TableRegionStatesCount> {
    let mut counts: BTreeMap<&TableName, pb::RegionStatesCount> = BTreeMap::new();
    for region in view.regions.values() {
        let count = counts.entry(&region.record.info.table).or_default();
        count.total_regions += 1;
        match region.record.state {
            RegionState::Open => count.open_regions += 1,
            RegionState::Closed => count.closed_regions += 1,
            RegionState::Opening | RegionState::Closing => count.regions_in_transition += 1,
        }
    }
    let counts =
        counts.into_iter().map(|(table, region_states_count)| pb::TableRegionStatesCount {
            table_name: schema::table_name_to_message(table),
            region_states_count,
        });
    counts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_locality::testing::places;
    use crate::view::testing::{record_in, server, view};

    #[test]
    fn regions_are_counted_by_state() {
        let mut view = view(&["a"], 3);
        record_in(view.regions.values_mut().next().unwrap()).state = RegionState::Opening;
        let counts = region_counts(&view);
        assert_eq!(counts.len(), 1);
        assert_eq!(counts[0].region_states_count.open_regions, 2);
        assert_eq!(counts[0].region_states_count.regions_in_transition, 1);
        assert_eq!(in_transition(&view).len(), 1);
    }

    #[test]
    fn the_locality_of_a_region_is_reported_where_it_is_known() {
        let (view, a) = (view(&["a"], 2), server("a"));
        let region = *view.regions.keys().next().unwrap();
        let places = places(std::slice::from_ref(&a), &[(region, &[(&a, 5)])]);
        let servers = live_servers(&view, &BTreeMap::new(), &places, 1);
        let loads = &servers[0].server_load.region_loads;
        let shares: Vec<_> = loads.iter().map(|load| load.data_locality).collect();
        assert_eq!(shares, [Some(1.0), None]);
    }
}
