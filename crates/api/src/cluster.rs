//! `BasaltCluster`: one database, its roles, and how long a failure may be felt.
//!
//! Only what has no sensible default must be written: the name, and where the data lies. What
//! `#[x_kube]` says here is checked by the API server; [`crate::validate()`] checks the same and
//! what a schema cannot say.

#![expect(unreachable_pub, reason = "KubeSchema repeats each type inside a function")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timespan;
use crate::common::{DeletionPolicy, MemberStorage, NotYet, PodTemplate, Resources};
use crate::timers::{TARGET_DEFAULT, TimerOverrides};

/// A Basalt cluster.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "basalt.db",
    version = "v1alpha1",
    kind = "BasaltCluster",
    plural = "basaltclusters",
    namespaced,
    shortname = "bc",
    shortname = "basalt",
    category = "basalt",
    status = "BasaltClusterStatus",
    scale(
        spec_replicas_path = ".spec.regionServers.replicas",
        status_replicas_path = ".status.regionServers",
        label_selector_path = ".status.regionServerSelector"
    ),
    derive = "PartialEq",
    doc = "A Basalt cluster: an HBase-style database that recovers from failures in seconds.",
    validation = Rule::new("self.metadata.name.size() <= 40")
        .message("metadata.name is at most 40 characters: names of pods are made from it"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.readyMembers",
        description = "Ready members of all declared ones"),
    printcolumn(name = "Active Master", type_ = "string", json_path = ".status.activeMaster"),
    printcolumn(name = "Last Recovery", type_ = "string", json_path = ".status.lastRecovery",
        description = "How long the last recovery took"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.failover.target",
        priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BasaltClusterSpec {
    /// How long a failure may be felt.
    #[serde(default)]
    pub failover: Failover,
    /// The members that hold the cluster's state.
    #[serde(default)]
    #[x_kube(validation = Rule::new("has(self.external) == has(oldSelf.external)")
        .message("spec.coordinator.external cannot be added or removed: the kind of coordinator is \
                  immutable"))]
    pub coordinator: Coordinator,
    /// The masters: one is active, the others wait.
    #[serde(default)]
    pub masters: Masters,
    /// The servers that hold regions.
    #[serde(default)]
    pub region_servers: RegionServers,
    /// Where the data lies.
    #[x_kube(validation = Rule::new("has(self.shared) != has(self.hdfs)")
        .message("spec.storage takes exactly one of shared and hdfs"))]
    #[x_kube(validation = Rule::new("has(self.shared) == has(oldSelf.shared)")
        .message("spec.storage cannot change between shared and hdfs: the kind of storage is \
                  immutable"))]
    pub storage: Storage,
    /// Where replicas are kept apart.
    #[serde(default)]
    pub placement: Placement,
    /// The image of all pods.
    #[serde(default)]
    pub image: Image,
    /// What happens to the data when this resource is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Whether the operator leaves everything as it is.
    #[serde(default)]
    pub paused: bool,
    /// What is logged.
    #[serde(default)]
    pub logging: Logging,
    /// How metrics are collected.
    #[serde(default)]
    pub metrics: Metrics,
    /// Encryption between processes. Does not work yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("false").message("spec.tls does not work yet"))]
    pub tls: Option<NotYet>,
    /// Who may do what. Does not work yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("false").message("spec.access does not work yet"))]
    pub access: Option<NotYet>,
}

/// The promise, and timers that are not to be derived from it.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    /// The longest write outage of a region after one server is lost silently, with at most 64 MB
    /// of WAL to replay. From 1s to 10m.
    #[serde(default = "target_default")]
    #[x_kube(validation = Rule::new(
        "duration(self) >= duration('1s') && duration(self) <= duration('10m')")
        .message("spec.failover.target must be from 1s to 10m"))]
    pub target: Timespan,
    /// Single timers. Each must keep the inequalities of docs/timers.md.
    #[serde(default)]
    pub overrides: TimerOverrides,
}

/// The coordinator.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Coordinator {
    /// How many members: 1, 3 or 5. The majority must be alive.
    #[serde(default = "three")]
    #[x_kube(validation = Rule::new("self in [1, 3, 5]")
        .message("spec.coordinator.replicas must be 1, 3 or 5"))]
    pub replicas: u32,
    /// What each member keeps its log on.
    #[serde(default)]
    pub storage: MemberStorage,
    /// A ZooKeeper that is there already, in place of our own members. Does not work yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalCoordinator>,
    /// What the containers may use. Read on Kubernetes only.
    #[serde(default)]
    pub resources: Resources,
    /// Settings of the role. Does not work yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// Merged over the pods that the operator builds. Read on Kubernetes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

/// A ZooKeeper of someone else's.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalCoordinator {
    /// Its servers, as `zk-0:2181,zk-1:2181`.
    pub connect: String,
    /// The node under which this cluster keeps everything.
    pub znode_parent: String,
}

/// The masters.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Masters {
    /// How many: from 1 to 9. One is active.
    #[serde(default = "two")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 9")
        .message("spec.masters.replicas must be from 1 to 9"))]
    pub replicas: u32,
    /// What the containers may use. Read on Kubernetes only.
    #[serde(default)]
    pub resources: Resources,
    /// Settings of the role. Does not work yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// Merged over the pods that the operator builds. Read on Kubernetes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

/// The region servers.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RegionServers {
    /// How many: from 1 to 1000.
    #[serde(default = "three")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 1000")
        .message("spec.regionServers.replicas must be from 1 to 1000"))]
    pub replicas: u32,
    /// How many of them, in one rack, are replaced at a time when they change: from 1 to 100. Read
    /// on Kubernetes only.
    #[serde(default = "one")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 100")
        .message("spec.regionServers.maxUnavailable must be from 1 to 100"))]
    pub max_unavailable: u32,
    /// What the containers may use. Read on Kubernetes only.
    #[serde(default)]
    pub resources: Resources,
    /// Settings of the role. Does not work yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// Merged over the pods that the operator builds. Read on Kubernetes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

/// Where the data lies: one of its fields.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// A folder that all region servers and masters share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedStorage>,
    /// A folder of an HDFS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hdfs: Option<HdfsStorage>,
}

/// A shared folder.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedStorage {
    /// The PersistentVolumeClaim. `basalt local` makes it a folder of this name.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.storage.shared.claim is immutable"))]
    pub claim: String,
}

/// A folder of an HDFS.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HdfsStorage {
    /// The name service, as in `dfs.nameservices`, or the `host:port` of the one NameNode.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.storage.hdfs.nameservice is immutable"))]
    pub nameservice: String,
    /// The ConfigMap that holds core-site.xml and hdfs-site.xml. `basalt local` takes a folder
    /// with these files instead: `--hdfs-conf`.
    pub config_map: String,
    /// The folder under which this cluster, and no other, keeps everything.
    #[x_kube(validation = Rule::new("self.startsWith('/') && self.size() > 1 && \
                                             !self.endsWith('/')")
        .message("spec.storage.hdfs.root must be an absolute path such as /basalt/demo"))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.storage.hdfs.root is immutable"))]
    pub root: String,
}

/// Where replicas are kept apart.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// The label of a node that names its rack.
    #[serde(default = "zone_label")]
    pub rack_label: String,
    /// The racks that `basalt local` pretends to have; servers are dealt to them in turn.
    #[serde(default = "local_racks")]
    pub local_racks: Vec<String>,
}

/// An image.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Registry and name.
    #[serde(default = "image_repository")]
    pub repository: String,
    /// The tag; without one that of the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// When the image is fetched.
    #[serde(default)]
    pub pull_policy: PullPolicy,
    /// Secrets of the registry.
    #[serde(default)]
    pub pull_secrets: Vec<String>,
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum PullPolicy {
    /// Each time that a container starts.
    Always,
    /// When the node has none.
    #[default]
    IfNotPresent,
    /// Never.
    Never,
}

/// What is logged.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Logging {
    /// `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,basalt_master=debug`.
    #[serde(default = "log_level")]
    pub level: String,
}

/// How metrics are collected.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// Whether a PodMonitor of the Prometheus operator is made. Read on Kubernetes only.
    #[serde(default)]
    pub pod_monitor: bool,
}

/// What the operator last saw of a cluster.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BasaltClusterStatus {
    /// One word for people: `Starting`, `Ready`, `Recovering`, `Updating`, `Degraded`, `Conflict`,
    /// `Paused`, `Invalid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Available`, `Progressing`, `Degraded`, `Conflict`, `Apart`, `StorageTuned`.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Ready members of all declared ones, as `8/8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_members: Option<String>,
    /// How many pods of region servers there are: what `kubectl scale` and autoscalers look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_servers: Option<u32>,
    /// The labels by which those are found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_server_selector: Option<String>,
    /// The master in charge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_master: Option<String>,
    /// How long the last recovery took, as `420ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_recovery: Option<String>,
    /// The last recoveries, the newest first.
    #[serde(default)]
    pub recoveries: Vec<Recovery>,
    /// The timers that follow from the promise, and what they add up to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<FailoverStatus>,
    /// The shared claim that this cluster has used: what `deletionPolicy: Delete` deletes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_claim: Option<DataClaim>,
}

/// A claim that is in use.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DataClaim {
    /// Its name.
    pub name: String,
    /// Its uid: another claim of that name is another one.
    pub uid: String,
}

/// What follows from `spec.failover`.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailoverStatus {
    /// The promise.
    pub target: String,
    /// What the phases of the worst case add up to.
    pub worst_case: String,
    /// The phases of the worst case.
    #[serde(default)]
    pub phases: BTreeMap<String, String>,
    /// Every timer.
    #[serde(default)]
    pub timers: BTreeMap<String, String>,
}

/// One recovery of a region server's regions.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// The server that was lost, as `host,port,startcode`.
    pub server: String,
    /// When the master learnt of its death, in RFC 3339.
    pub at: String,
    /// What told the master.
    #[serde(default)]
    pub cause: String,
    /// How many regions it served.
    pub regions: u32,
    /// How much WAL there was to replay, in bytes.
    pub wal_bytes: u64,
    /// From its last sign of life to the commit of its death, in milliseconds.
    pub detect_ms: u64,
    /// Until it was fenced, in milliseconds.
    pub fence_ms: u64,
    /// Until its WAL was split, in milliseconds.
    pub split_ms: u64,
    /// Until its regions were assigned, in milliseconds.
    pub assign_ms: u64,
    /// Until they were replayed, in milliseconds.
    pub replay_ms: u64,
    /// All phases together, in milliseconds.
    pub total_ms: u64,
}

// === defaults ===

impl Default for Failover {
    fn default() -> Self {
        Self { target: TARGET_DEFAULT, overrides: TimerOverrides::default() }
    }
}

impl Default for Coordinator {
    fn default() -> Self {
        Self {
            replicas: three(),
            storage: MemberStorage::default(),
            external: None,
            resources: Resources::default(),
            config: BTreeMap::new(),
            pod_template: None,
        }
    }
}

impl Default for Masters {
    fn default() -> Self {
        Self {
            replicas: two(),
            resources: Resources::default(),
            config: BTreeMap::new(),
            pod_template: None,
        }
    }
}

impl Default for RegionServers {
    fn default() -> Self {
        Self {
            replicas: three(),
            max_unavailable: one(),
            resources: Resources::default(),
            config: BTreeMap::new(),
            pod_template: None,
        }
    }
}

impl Default for Placement {
    fn default() -> Self {
        Self { rack_label: zone_label(), local_racks: local_racks() }
    }
}

impl Default for Image {
    fn default() -> Self {
        Self {
            repository: image_repository(),
            tag: None,
            pull_policy: PullPolicy::default(),
            pull_secrets: Vec::new(),
        }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Self { level: log_level() }
    }
}

fn target_default() -> Timespan {
    TARGET_DEFAULT
}

fn one() -> u32 {
    1
}

fn two() -> u32 {
    2
}

fn three() -> u32 {
    3
}

fn zone_label() -> String {
    "topology.kubernetes.io/zone".to_owned()
}

fn local_racks() -> Vec<String> {
    ["r1", "r2", "r3"].map(str::to_owned).to_vec()
}

fn image_repository() -> String {
    "basalt".to_owned()
}

fn log_level() -> String {
    "info".to_owned()
}
