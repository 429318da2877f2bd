//! `BasaltTable`: one table of a cluster, its families, and how it is cut into regions.

#![expect(unreachable_pub, reason = "KubeSchema repeats each type inside a function")]
#![expect(clippy::duplicated_attributes, reason = "columns of the same type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timespan;
use crate::common::{DeletionPolicy, NotYet};
use crate::split::SplitAlgorithm;

/// A table.
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
    /// The cluster it belongs to.
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.clusterRef is immutable"))]
    pub cluster_ref: ClusterRef,
    /// HBase's namespace, not Kubernetes'.
    #[serde(default = "namespace_default")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.namespace is immutable"))]
    pub namespace: String,
    /// Its name in HBase; without one `metadata.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.tableName is immutable"))]
    pub table_name: Option<String>,
    /// Its column families.
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub families: Vec<Family>,
    /// How it is cut into regions when it is made.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.regions is immutable: regions split and merge by themselves"))]
    pub regions: Regions,
    /// How many copies of each region may be read. Only 1 works yet.
    #[serde(default = "one")]
    #[x_kube(validation = Rule::new("self == 1")
        .message("spec.regionReplicas above 1 does not work yet; it must be 1"))]
    pub region_replicas: u16,
    /// What an acknowledged write outlasts. It makes a difference on HDFS only.
    #[serde(default)]
    pub durability: Durability,
    /// What happens to the data when this resource is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Who may do what. Does not work yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("false").message("spec.access does not work yet"))]
    pub access: Option<NotYet>,
}

/// The name of a cluster in the same Kubernetes namespace.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRef {
    /// Its `metadata.name`.
    pub name: String,
}

/// A column family.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Family {
    /// Its name.
    #[schemars(length(min = 1, max = 127))]
    pub name: String,
    /// How many versions of a column are kept.
    #[serde(default = "one_version")]
    #[x_kube(validation = Rule::new("self >= 1")
        .message("versions must be at least 1"))]
    pub versions: u32,
    /// How many versions are kept although their time to live is over.
    #[serde(default)]
    pub min_versions: u32,
    /// How long a version lives, in whole seconds; without one for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_live: Option<Timespan>,
    /// How store-file blocks are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// What the bloom filter of a store file holds.
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

/// What an acknowledged write outlasts, by the names of HBase's `DURABILITY`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Durability {
    /// The death of any machine: it is in the memory of several (`hflush`).
    #[default]
    SyncWal,
    /// A loss of power everywhere, too: it is on the disk of each of them (`hsync`).
    FsyncWal,
}

/// How a table is cut into regions when it is made.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.count) || self.count == 1 || has(self.split)")
    .message("spec.regions.split is needed with more than one region"))]
pub struct Regions {
    /// How many; without it 1, or what `split.keys` make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 10000")
        .message("spec.regions.count must be from 1 to 10000"))]
    pub count: Option<u32>,
    /// Where it is cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
}

/// Where a table is cut: by an algorithm, or at keys.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.algorithm) != has(self.keys)")
    .message("spec.regions.split takes exactly one of algorithm and keys"))]
#[x_kube(validation = Rule::new("!has(self.prefix) || has(self.algorithm)")
    .message("spec.regions.split.prefix goes with algorithm"))]
pub struct Split {
    /// How the space of keys is divided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<SplitAlgorithm>,
    /// What stands before each key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub prefix: Option<String>,
    /// The first keys of all regions but the first, ascending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 9999))]
    pub keys: Option<Vec<String>>,
}

/// What the operator last saw of a table.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BasaltTableStatus {
    /// One word for people: `Creating`, `Ready`, `Degraded`, `Invalid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Progressing`, `Degraded`.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// How many regions there are now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<u32>,
    /// How many of them are served.
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
