//! What the coordinator records of a cluster, as far as files follow from it.

use std::collections::{BTreeMap, BTreeSet};

use basalt_cluster::{Catalog, Nodes, RegionRecord, TableRecord, pb, records};
use basalt_model::{EncodedRegionName, ServerName, TableName};
use basalt_zk::Client;

use crate::Result;

/// The records of a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records {
    /// The cluster's id.
    pub cluster_id: String,
    /// The tables.
    pub tables: BTreeMap<TableName, TableRecord>,
    /// The regions.
    pub regions: BTreeMap<EncodedRegionName, RegionRecord>,
    /// The live region servers.
    pub servers: BTreeSet<ServerName>,
    /// The WAL files that must exist, of live servers and of those whose logs are still needed.
    pub logs: BTreeMap<ServerName, Vec<pb::ListedLog>>,
    /// The sealed WAL files of fenced servers.
    pub sealed: BTreeMap<ServerName, Vec<pb::SealedLog>>,
    /// The names of WAL files whose loss an operator has accepted.
    pub accepted: BTreeSet<String>,
}

// === impl Records ===

impl Records {
    /// Reads the records as they are now.
    ///
    /// # Errors
    /// The coordinator does not answer, or a record cannot be decoded.
    pub async fn read(client: &Client, nodes: &Nodes, catalog: &Catalog) -> Result<Self> {
        catalog.catch_up().await?;
        let tables = catalog.tables().into_iter();
        let regions = catalog.regions().into_iter();
        let lists: BTreeMap<_, pb::LogListRecord> =
            read_all(client, "log list", &nodes.logs()).await?;
        let fenced: BTreeMap<_, pb::FencedRecord> =
            read_all(client, "fenced", &nodes.fenced()).await?;
        let lost: BTreeMap<ServerName, pb::LostLogsRecord> =
            read_all(client, "lost logs", &nodes.lost_logs()).await?;
        let accepted = lost.into_values().flat_map(|record| record.logs);
        Ok(Self {
            cluster_id: catalog.cluster_id(),
            tables: tables.map(|(name, table)| (name, table.record.clone())).collect(),
            regions: regions.map(|(name, region)| (name, region.record.clone())).collect(),
            servers: catalog.servers().into_keys().collect(),
            logs: lists.into_iter().map(|(server, list)| (server, list.logs)).collect(),
            sealed: fenced.into_iter().map(|(server, record)| (server, record.logs)).collect(),
            accepted: accepted.filter(|log| log.accepted_ms > 0).map(|log| log.name).collect(),
        })
    }

    /// The servers whose logs may be needed: the live ones, those whose sealed logs hold edits that
    /// are not in store files yet, and those that a region names as its owner. An owner that is
    /// dead and not fenced yet is among these.
    pub fn needed_servers(&self) -> BTreeSet<&ServerName> {
        let needed = self.regions.values().flat_map(RegionRecord::servers_of_logs);
        self.servers.iter().chain(needed).collect()
    }
}

/// The records below `parent`, one for each server.
async fn read_all<T: prost::Message + Default>(
    client: &Client,
    kind: &'static str,
    parent: &str,
) -> Result<BTreeMap<ServerName, T>> {
    let (children, _) = client.get_children(parent).await?;
    let servers: Vec<ServerName> = children.iter().filter_map(|name| name.parse().ok()).collect();
    let nodes: Vec<String> = servers.iter().map(|server| format!("{parent}/{server}")).collect();
    let mut all = BTreeMap::new();
    for (server, found) in servers.into_iter().zip(client.get_data_of_all(&nodes).await?) {
        if let Some((data, _)) = found {
            all.insert(server, records::decode(kind, data)?);
        }
    }
    Ok(all)
}
