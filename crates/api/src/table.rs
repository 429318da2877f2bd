//! `BasaltTable`: one table of a cluster, its families, and how it is split into regions.

#![expect(unreachable_pub, reason = "KubeSchema repeats each type inside a function")]
#![expect(clippy::duplicated_attributes, reason = "columns of the same type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timespan;
use crate::common::{DeletionPolicy, NotYet};
use crate::split::SplitAlgorithm;

/// The desired state of a table.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "basalt.db",
    version = "v1alpha1",
    kind = "BasaltTable",
    plural = "basalttables",
    namespaced,
    shortname = "bt",
    category = "basalt",
    status = "BasaltTableStatus",
    derive = "PartialEq",
    doc = "A table of a Basalt cluster.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Regions", type_ = "integer", json_path = ".status.regions"),
    printcolumn(name = "Online", type_ = "integer", json_path = ".status.onlineRegions"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("has(self.tableName) == has(oldSelf.tableName)")
    .message("spec.tableName cannot be added or removed: it is immutable"))]
#[serde(rename_all = "camelCase")]
pub struct BasaltTableSpec {
    /// The cluster that the table belongs to.
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.clusterRef is immutable"))]
    pub cluster_ref: ClusterRef,
    /// The HBase namespace, not the Kubernetes namespace.
    #[serde(default = "namespace_default")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.namespace is immutable"))]
    pub namespace: String,
    /// Name of the table in HBase. Defaults to `metadata.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.tableName is immutable"))]
    pub table_name: Option<String>,
    /// The column families of the table.
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub families: Vec<Family>,
    /// How the table is split into regions when it is created.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.regions is immutable: regions split and merge by themselves"))]
    pub regions: Regions,
    /// Number of readable copies of each region. Only 1 works so far.
    #[serde(default = "one")]
    #[x_kube(validation = Rule::new("self == 1")
        .message("spec.regionReplicas above 1 does not work yet; it must be 1"))]
    pub region_replicas: u16,
    /// Which failures an acknowledged write survives. It makes a difference on HDFS only.
    #[serde(default)]
    pub durability: Durability,
    /// What happens to the data when this resource is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Access control. Does not work yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("false").message("spec.access does not work yet"))]
    pub access: Option<NotYet>,
}

/// The name of a cluster in the same Kubernetes namespace.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRef {
    /// The cluster's `metadata.name`.
    pub name: String,
}

/// A column family.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Family {
    /// Name of the family.
    #[schemars(length(min = 1, max = 127))]
    pub name: String,
    /// How many versions of a column are kept.
    #[serde(default = "one_version")]
    #[x_kube(validation = Rule::new("self >= 1")
        .message("versions must be at least 1"))]
    pub versions: u32,
    /// How many versions are kept even after their time to live has expired.
    #[serde(default)]
    pub min_versions: u32,
    /// How long a version is kept, in whole seconds. Without a value it is kept for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_live: Option<Timespan>,
    /// How store-file blocks are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// What the bloom filter of a store file contains.
    #[serde(default)]
    pub bloom: Bloom,
    /// The size at which a store-file block is closed, in bytes before compression.
    #[serde(default = "block_bytes")]
    #[x_kube(validation = Rule::new("self >= 1024 && self <= 16777216")
        .message("blockBytes must be from 1024 to 16777216"))]
    pub block_bytes: u32,
    /// Whether data blocks are kept in the block cache.
    #[serde(default = "yes")]
    pub block_cache: bool,
    /// Whether deleted cells stay readable.
    #[serde(default)]
    pub keep_deleted_cells: KeepDeletedCells,
}

/// How the blocks of a store file are compressed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip.
    Gz,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// What the bloom filter of a store file holds.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bloom {
    /// There is none.
    None,
    /// Rows.
    #[default]
    Row,
    /// Rows with columns.
    RowCol,
}

/// Whether deleted cells stay readable for raw and time-range reads.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum KeepDeletedCells {
    /// They go at the next compaction.
    #[default]
    Never,
    /// They stay until they are too many or too old.
    Always,
    /// They stay until they are too old.
    UntilTimeToLive,
}

/// Which failures an acknowledged write survives, by the names of HBase's `DURABILITY`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Durability {
    /// The death of any machine: it is in the memory of several (`hflush`).
    #[default]
    SyncWal,
    /// A loss of power everywhere, too: it is on the disk of each of them (`hsync`).
    FsyncWal,
}

/// How a table is split into regions when it is created.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.count) || self.count == 1 || has(self.split)")
    .message("spec.regions.split is required with more than one region"))]
pub struct Regions {
    /// Number of regions. Defaults to 1, or to the number that results from `split.keys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 10000")
        .message("spec.regions.count must be from 1 to 10000"))]
    pub count: Option<u32>,
    /// Where the table is split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
}

/// Where a table is split: by an algorithm, or at given keys.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.algorithm) != has(self.keys)")
    .message("spec.regions.split must have exactly one of algorithm and keys"))]
#[x_kube(validation = Rule::new("!has(self.prefix) || has(self.algorithm)")
    .message("spec.regions.split.prefix requires algorithm"))]
pub struct Split {
    /// How the key space is divided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<SplitAlgorithm>,
    /// Prefix of each split key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub prefix: Option<String>,
    /// The start keys of all regions except the first, in ascending order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 9999))]
    pub keys: Option<Vec<String>>,
}

/// The state of a table as the operator last observed it.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BasaltTableStatus {
    /// Summary in one word: `Creating`, `Ready`, `Differs`, `Degraded`, `Invalid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Synced`.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Current number of regions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<u32>,
    /// Number of regions that are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online_regions: Option<u32>,
}

fn namespace_default() -> String {
    "default".to_owned()
}

fn one() -> u16 {
    1
}

fn one_version() -> u32 {
    1
}

fn block_bytes() -> u32 {
    64 << 10
}

fn yes() -> bool {
    true
}
