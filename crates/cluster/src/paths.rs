//! The path of each record in the coordinator, below one parent node (`/basalt` by default).
//!
//! A list of children must fit into one packet of the ZooKeeper protocol. Regions are therefore
//! spread over 256 nodes by the first two digits of their encoded names.

use basalt_model::{EncodedRegionName, ServerName, TableName};

/// The nodes of one cluster. Cheap to clone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Nodes {
    parent: String,
}

/// How many nodes the regions are spread over.
pub const REGION_BUCKETS: u32 = 256;

// === impl Nodes ===

impl Nodes {
    /// The nodes below `parent`, which begins with `/` and does not end with `/`.
    pub fn below(parent: &str) -> Self {
        Self { parent: parent.trim_end_matches('/').to_owned() }
    }

    /// The parent itself.
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// The identity of the cluster: a `ClusterRecord`.
    pub fn cluster(&self) -> String {
        format!("{}/cluster", self.parent)
    }

    /// Which formats and messages the cluster uses: a `FeatureLevelRecord`.
    pub fn feature_level(&self) -> String {
        format!("{}/feature-level", self.parent)
    }

    /// The active master: a `MasterRecord`, ephemeral.
    pub fn master(&self) -> String {
        format!("{}/master", self.parent)
    }

    /// The node whose version is the epoch of the active master. Every write of a master checks it.
    pub fn master_epoch(&self) -> String {
        format!("{}/master-epoch", self.parent)
    }

    /// The live masters.
    pub fn masters(&self) -> String {
        format!("{}/masters", self.parent)
    }

    /// One live master: a `ServerRecord`, ephemeral.
    pub fn standby(&self, server: &ServerName) -> String {
        format!("{}/{server}", self.masters())
    }

    /// The live region servers.
    pub fn servers(&self) -> String {
        format!("{}/servers", self.parent)
    }

    /// One live region server: a `ServerRecord`, ephemeral.
    pub fn server(&self, server: &ServerName) -> String {
        format!("{}/{server}", self.servers())
    }

    /// The tables.
    pub fn tables(&self) -> String {
        format!("{}/tables", self.parent)
    }

    /// One table: a `TableRecord`.
    pub fn table(&self, table: &TableName) -> String {
        format!("{}/{}:{}", self.tables(), table.namespace(), table.qualifier())
    }

    /// The namespaces, each an empty node.
    pub fn namespaces(&self) -> String {
        format!("{}/namespaces", self.parent)
    }

    /// One namespace.
    pub fn namespace(&self, namespace: &str) -> String {
        format!("{}/{namespace}", self.namespaces())
    }

    /// The regions, in buckets.
    pub fn regions(&self) -> String {
        format!("{}/regions", self.parent)
    }

    /// One bucket of regions.
    pub fn region_bucket(&self, bucket: u8) -> String {
        format!("{}/{bucket:02x}", self.regions())
    }

    /// One region: a `RegionRecord`.
    pub fn region(&self, region: EncodedRegionName) -> String {
        format!("{}/{region}", self.region_bucket(region.digest()[0]))
    }

    /// The fenced servers.
    pub fn fenced(&self) -> String {
        format!("{}/fenced", self.parent)
    }

    /// One fenced server: a `FencedRecord`.
    pub fn fenced_server(&self, server: &ServerName) -> String {
        format!("{}/{server}", self.fenced())
    }

    /// The lists of log files.
    pub fn logs(&self) -> String {
        format!("{}/logs", self.parent)
    }

    /// The log files of one region server: a `LogListRecord`.
    pub fn logs_of_server(&self, server: &ServerName) -> String {
        format!("{}/{server}", self.logs())
    }

    /// The servers whose logs have lost bytes.
    pub fn lost_logs(&self) -> String {
        format!("{}/lost-logs", self.parent)
    }

    /// The losses in the logs of one server: a `LostLogsRecord`.
    pub fn lost_logs_of(&self, server: &ServerName) -> String {
        format!("{}/{server}", self.lost_logs())
    }

    /// The procedures of the masters.
    pub fn procedures(&self) -> String {
        format!("{}/procedures", self.parent)
    }

    /// One procedure.
    pub fn procedure(&self, id: u64) -> String {
        format!("{}/{id:020}", self.procedures())
    }

    /// The most recent recoveries.
    pub fn recoveries(&self) -> String {
        format!("{}/recoveries", self.parent)
    }

    /// One recovery: a `RecoveryRecord`.
    pub fn recovery(&self, number: u64) -> String {
        format!("{}/{number:020}", self.recoveries())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_lies_in_the_bucket_of_its_first_byte() {
        let region = EncodedRegionName::from_digest([0xa7; 16]);
        let path = Nodes::below("/basalt").region(region);
        assert_eq!(path, format!("/basalt/regions/a7/{region}"));
    }
}
