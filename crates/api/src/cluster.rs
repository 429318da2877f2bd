//! `BasaltCluster`: one database, its roles, and its failover target.
//!
//! Only fields without a sensible default must be written: the name, and where the data is stored.
//! The API server checks the `#[x_kube]` rules in this file. [`crate::validate()`] checks the same,
//! and also what a schema cannot express.

#![expect(unreachable_pub, reason = "KubeSchema repeats each type inside a function")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timespan;
use crate::common::{DeletionPolicy, MemberStorage, NotYet, PodTemplate, Resources};
use crate::timers::{TARGET_DEFAULT, TimerOverrides};

/// The desired state of a Basalt cluster.
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
        .message("metadata.name must be at most 40 characters: pod names are derived from it"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.readyMembers",
        description = "Ready members out of all declared members"),
    printcolumn(name = "Active Master", type_ = "string", json_path = ".status.activeMaster"),
    printcolumn(name = "Last Recovery", type_ = "string", json_path = ".status.lastRecovery",
        description = "Duration of the last recovery"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.failover.target",
        priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BasaltClusterSpec {
    /// Maximum write unavailability after a failure.
    #[serde(default)]
    pub failover: Failover,
    /// The coordinator's members, which store the cluster's state.
    #[serde(default)]
    #[x_kube(validation = Rule::new("has(self.external) == has(oldSelf.external)")
        .message("spec.coordinator.external cannot be added or removed: the kind of coordinator is \
                  immutable"))]
    pub coordinator: Coordinator,
    /// The masters. One is active, the others are on standby.
    #[serde(default)]
    pub masters: Masters,
    /// The region servers, which serve the tables' regions.
    #[serde(default)]
    pub region_servers: RegionServers,
    /// Where the data is stored: exactly one of `shared` and `hdfs`.
    #[x_kube(validation = Rule::new("has(self.shared) != has(self.hdfs)")
        .message("spec.storage must have exactly one of shared and hdfs"))]
    #[x_kube(validation = Rule::new("has(self.shared) == has(oldSelf.shared)")
        .message("spec.storage cannot change between shared and hdfs: the kind of storage is \
                  immutable"))]
    pub storage: Storage,
    /// How the replicas of each role are spread over racks.
    #[serde(default)]
    pub placement: Placement,
    /// The container image of all pods.
    #[serde(default)]
    pub image: Image,
    /// What happens to the data when this resource is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// If true, the operator changes nothing in this cluster.
    #[serde(default)]
    pub paused: bool,
    /// What the processes log.
    #[serde(default)]
    pub logging: Logging,
    /// How metrics are collected.
    #[serde(default)]
    pub metrics: Metrics,
    /// Encryption between processes. Does not work yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("false").message("spec.tls does not work yet"))]
    pub tls: Option<NotYet>,
    /// Access control. Does not work yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("false").message("spec.access does not work yet"))]
    pub access: Option<NotYet>,
}

/// The failover target, and overrides of the timers that are derived from it.
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
    /// Overrides of individual timers. All inequalities in docs/timers.md must still hold.
    #[serde(default)]
    pub overrides: TimerOverrides,
}

/// The coordinator.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Coordinator {
    /// Number of members: 1, 3 or 5. A majority must be alive.
    #[serde(default = "three")]
    #[x_kube(validation = Rule::new("self in [1, 3, 5]")
        .message("spec.coordinator.replicas must be 1, 3 or 5"))]
    pub replicas: u32,
    /// The volume for each member's log.
    #[serde(default)]
    pub storage: MemberStorage,
    /// An existing ZooKeeper to use instead of Basalt's own members. Does not work yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalCoordinator>,
    /// Resources of the containers. Used on Kubernetes only.
    #[serde(default)]
    pub resources: Resources,
    /// Settings of the role. Does not work yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// A pod template that is merged over the generated one. Used on Kubernetes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

/// An existing ZooKeeper.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalCoordinator {
    /// Its servers, for example `zk-0:2181,zk-1:2181`.
    pub connect: String,
    /// The node under which this cluster stores everything.
    pub znode_parent: String,
}

/// The masters.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Masters {
    /// Number of masters, from 1 to 9. One is active.
    #[serde(default = "two")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 9")
        .message("spec.masters.replicas must be from 1 to 9"))]
    pub replicas: u32,
    /// Resources of the containers. Used on Kubernetes only.
    #[serde(default)]
    pub resources: Resources,
    /// Settings of the role. Does not work yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// A pod template that is merged over the generated one. Used on Kubernetes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

/// The region servers.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RegionServers {
    /// Number of region servers, from 1 to 1000.
    #[serde(default = "three")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 1000")
        .message("spec.regionServers.replicas must be from 1 to 1000"))]
    pub replicas: u32,
    /// Maximum number of region servers that a rollout replaces at a time, all in one rack. From 1
    /// to 100. Used on Kubernetes only.
    #[serde(default = "one")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 100")
        .message("spec.regionServers.maxUnavailable must be from 1 to 100"))]
    pub max_unavailable: u32,
    /// Resources of the containers. Used on Kubernetes only.
    #[serde(default)]
    pub resources: Resources,
    /// Settings of the region servers, by name. docs/operations.md lists them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// A pod template that is merged over the generated one. Used on Kubernetes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

/// Where the data is stored: exactly one of its fields.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// A folder that all region servers and masters share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedStorage>,
    /// A folder in HDFS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hdfs: Option<HdfsStorage>,
}

/// A shared folder.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedStorage {
    /// Name of the PersistentVolumeClaim. `basalt local` creates a folder of this name instead.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.storage.shared.claim is immutable"))]
    pub claim: String,
}

/// A folder in HDFS.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HdfsStorage {
    /// The name service, as in `dfs.nameservices`, or the `host:port` of a single NameNode.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.storage.hdfs.nameservice is immutable"))]
    pub nameservice: String,
    /// Name of the ConfigMap with core-site.xml and hdfs-site.xml. `basalt local` reads these files
    /// from the folder given by `--hdfs-conf` instead.
    pub config_map: String,
    /// The folder in which this cluster stores everything. No other cluster may use it.
    #[x_kube(validation = Rule::new("self.startsWith('/') && self.size() > 1 && \
                                             !self.endsWith('/')")
        .message("spec.storage.hdfs.root must be an absolute path such as /basalt/demo"))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.storage.hdfs.root is immutable"))]
    pub root: String,
}

/// How the replicas of each role are spread over racks.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// The node label that contains the name of the rack.
    #[serde(default = "zone_label")]
    pub rack_label: String,
    /// The racks that `basalt local` simulates. Servers are assigned to them in turn.
    #[serde(default = "local_racks")]
    pub local_racks: Vec<String>,
}

/// An image.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Registry and name of the image.
    #[serde(default = "image_repository")]
    pub repository: String,
    /// Tag of the image. Defaults to the operator's tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// When the image is pulled.
    #[serde(default)]
    pub pull_policy: PullPolicy,
    /// Names of the pull secrets for the registry.
    #[serde(default)]
    pub pull_secrets: Vec<String>,
}

/// When an image is pulled.
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

/// What the processes log.
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
    /// Whether to create a PodMonitor for the Prometheus operator. Used on Kubernetes only.
    #[serde(default)]
    pub pod_monitor: bool,
}

/// The state of a Basalt cluster as the operator last observed it.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BasaltClusterStatus {
    /// Summary in one word: `Starting`, `Ready`, `Recovering`, `Updating`, `Degraded`, `Conflict`,
    /// `Paused`, `Invalid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Available`, `Progressing`, `Degraded`, `Conflict`, `Apart`, `StorageTuned`.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Ready members out of all declared members, for example `8/8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_members: Option<String>,
    /// Number of region server pods, for `kubectl scale` and autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_servers: Option<u32>,
    /// Label selector of the region server pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_server_selector: Option<String>,
    /// The active master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_master: Option<String>,
    /// Duration of the last recovery, for example `420ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_recovery: Option<String>,
    /// The last recoveries, newest first.
    #[serde(default)]
    pub recoveries: Vec<Recovery>,
    /// The timers that are derived from the failover target, and the worst case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<FailoverStatus>,
    /// The shared claim that this cluster has used. `deletionPolicy: Delete` deletes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_claim: Option<DataClaim>,
}

/// A claim that is in use.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DataClaim {
    /// Name of the claim.
    pub name: String,
    /// UID of the claim. Another claim of the same name has a different one.
    pub uid: String,
}

/// What is derived from `spec.failover`.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailoverStatus {
    /// The failover target.
    pub target: String,
    /// Sum of the worst-case phases.
    pub worst_case: String,
    /// Duration of each phase in the worst case.
    #[serde(default)]
    pub phases: BTreeMap<String, String>,
    /// All timers.
    #[serde(default)]
    pub timers: BTreeMap<String, String>,
}

/// One recovery of a region server's regions.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// The lost server, as `host,port,startcode`.
    pub server: String,
    /// When the master learnt of the failure, in RFC 3339 format.
    pub at: String,
    /// How the master learnt of it, for example `session expired`.
    #[serde(default)]
    pub cause: String,
    /// Number of regions that the server had.
    pub regions: u32,
    /// Size of the WAL to replay, in bytes.
    pub wal_bytes: u64,
    /// From `at` until the server was declared dead, in milliseconds.
    pub detect_ms: u64,
    /// From the end of `detectMs` until the server was fenced, in milliseconds.
    pub fence_ms: u64,
    /// From the end of `fenceMs` until its WAL was split, in milliseconds.
    pub split_ms: u64,
    /// From the end of `splitMs` until its regions were assigned, in milliseconds.
    pub assign_ms: u64,
    /// From the end of `assignMs` until all its regions were open, in milliseconds.
    pub replay_ms: u64,
    /// Sum of all phases, in milliseconds.
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
