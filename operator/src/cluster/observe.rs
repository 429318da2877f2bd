//! Reads everything that the decisions depend on, at once: the objects of a cluster, its pods, and
//! the reports of its processes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use basalt_api::BasaltCluster;
use basalt_api::cluster::{HdfsStorage, SharedStorage, Storage};
use basalt_api::role_file::{PortName, RoleName};
use basalt_cluster::pb;
use basalt_cluster::pb::master_peer_client::MasterPeerClient;
use basalt_runtime::{Network, grpc};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::apply::is_owned;
use super::build::{coordinator_service_names, pod_monitor};
use super::status::is_true;
use super::unreadable;
use crate::context::{Context, in_namespace};
use crate::error::{Error, ResultExt};
use crate::names::{self, host_port, port};

/// How long a process may take to answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long there may be no active master, in a change of masters, without a report.
const MASTER_CHANGE_MAX: Duration = Duration::from_secs(2);
/// The pause between two checks for the next master, and how long a master may take to answer them.
const MASTER_CHANGE_PAUSE: Duration = Duration::from_millis(100);
const MASTER_CHANGE_ANSWER: Duration = Duration::from_millis(300);
/// The maximum size of an answer of a coordinator member.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// The observed state of one cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// Its pods, by name.
    pub(crate) members: BTreeMap<String, Member>,
    /// The number of pods that each StatefulSet declares.
    pub(crate) replicas: BTreeMap<RoleName, u32>,
    /// The declared size of the coordinator members' claims.
    pub(crate) member_size: Option<String>,
    /// Whether Kubernetes' controllers have seen the current version of every StatefulSet.
    pub(crate) is_settled: bool,
    /// The addresses of the coordinator's Services, in order, up to the first one that is not
    /// assigned yet.
    pub(crate) coordinator_addresses: Vec<IpAddr>,
    /// The uid of the data's claim, or of the ConfigMap with the settings of HDFS, if it exists.
    pub(crate) storage_uid: Option<String>,
    /// Whether the API server knows PodMonitors. Only checked if one is wanted.
    pub(crate) has_pod_monitors: bool,
    /// An older cluster that stores its data in the same place.
    pub(crate) storage_taken_by: Option<String>,
    /// An older cluster whose storage cannot be read. It may be the same place.
    pub(crate) unreadable_before: Option<String>,
    /// The recoveries that the active master knows, newest last.
    pub(crate) recoveries: Vec<pb::RecoveryRecord>,
    /// The settings of the storage that do not fit the failover target, as the active master knows
    /// them.
    pub(crate) storage_deviations: Option<Vec<String>>,
}

/// One pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Member {
    pub(crate) role: Option<RoleName>,
    pub(crate) uid: String,
    pub(crate) address: Option<String>,
    pub(crate) node: Option<String>,
    /// The rack of its node, from the node's label.
    pub(crate) rack: Option<String>,
    /// Whether the kubelet reports that it serves.
    pub(crate) is_ready: bool,
    /// Whether it was asked to terminate.
    pub(crate) is_leaving: bool,
    /// Whether Kubernetes asked it to terminate because its node is lost.
    pub(crate) is_evicted: bool,
    /// When its node started it, by the clock of that node.
    pub(crate) started_ms: u64,
    /// Whether it is the pod that its StatefulSet would create now.
    pub(crate) is_current: bool,
    /// Whether a coordinator member reports that it serves. For other roles the same as `is_ready`.
    pub(crate) serves: bool,
    /// Whether it is the coordinator's leader or the active master.
    pub(crate) leads: bool,
}

// === impl Observed ===

impl Observed {
    /// The number of pods that the StatefulSet of `role` declares. `None` if there is no
    /// StatefulSet.
    pub(crate) fn replicas(&self, role: RoleName) -> Option<u32> {
        self.replicas.get(&role).copied()
    }

    /// The pods of `role`, by name.
    pub(crate) fn of_role(&self, role: RoleName) -> impl Iterator<Item = (&String, &Member)> {
        self.members.iter().filter(move |(_, member)| member.role == Some(role))
    }

    /// The active master's pod.
    pub(crate) fn active_master(&self) -> Option<&str> {
        let mut masters = self.of_role(RoleName::Master);
        masters.find(|(_, member)| member.leads).map(|(name, _)| name.as_str())
    }
}

/// Observes `cluster`.
///
/// # Errors
/// The API server did not answer. Processes that do not answer are no error, but an observation.
pub(crate) async fn observe(context: &Context, cluster: &BasaltCluster) -> Result<Observed, Error> {
    let client = &context.client;
    let namespace = cluster.namespace().unwrap_or_default();
    let name = cluster.name_any();
    let ours = ListParams::default().labels(&format!(
        "{},{}={name}",
        names::PODS_SELECTOR,
        names::INSTANCE_LABEL
    ));
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
    let mut sets = sets.list(&ours).await.asked(|| "listing StatefulSets".to_owned())?.items;
    let mut pods = pods.list(&ours).await.asked(|| "listing pods".to_owned())?.items;
    let services = services.list(&ours).await.asked(|| "listing Services".to_owned())?.items;
    // Anyone can write labels. Only the owner of the set and the owner of the pod count.
    let uid = cluster.uid().unwrap_or_default();
    sets.retain(|set| is_owned(&set.metadata, &uid));
    pods.retain(|pod| {
        sets.iter().filter_map(ResourceExt::uid).any(|set| is_owned(&pod.metadata, &set))
    });
    let siblings = in_namespace(&context.clusters, &namespace);
    let mut salvaged = Vec::new();
    if sets.is_empty() {
        // A new cluster must not use the storage of another cluster, even one whose resource cannot
        // be read.
        for invalid in siblings.values().filter_map(|sibling| sibling.0.as_ref().err()) {
            salvaged.push(unreadable::read(invalid, context).await?.cluster);
        }
    }
    let readable = siblings.values().filter_map(|sibling| sibling.0.as_ref().ok());
    let others: Vec<&BasaltCluster> = readable.chain(&salvaged).collect();
    let storage_uid = storage_uid(client, &namespace, &cluster.spec.storage).await?;
    let has_pod_monitors = cluster.spec.metrics.pod_monitor
        && kube::discovery::pinned_kind(client, &pod_monitor::kind()).await.is_ok();
    let mut observed = Observed {
        has_pod_monitors,
        members: pods.iter().map(|pod| (pod.name_any(), member(pod, &sets))).collect(),
        replicas: sets.iter().filter_map(replicas_of).collect(),
        member_size: sets.iter().find_map(member_size),
        is_settled: sets.len() == names::ROLES.len() && sets.iter().all(is_settled),
        coordinator_addresses: addresses(cluster, &services),
        storage_uid,
        storage_taken_by: taken_by(cluster, &others),
        unreadable_before: unreadable_before(cluster, &salvaged),
        recoveries: Vec::new(),
        storage_deviations: None,
    };
    for member in observed.members.values_mut() {
        let node = member.node.as_deref();
        member.rack =
            node.and_then(|node| context.nodes.rack(node, &cluster.spec.placement.rack_label));
    }
    let network = &context.seams.network;
    ask_members(network, &mut observed, &names::ROLES, ANSWER_TIMEOUT).await;
    if is_true(&cluster.status.clone().unwrap_or_default(), "Available") {
        let next_master = async {
            while observed.active_master().is_none() {
                sleep(MASTER_CHANGE_PAUSE).await;
                // A master that is gone may not answer at all. The other masters must not wait for
                // it.
                ask_members(network, &mut observed, &[RoleName::Master], MASTER_CHANGE_ANSWER)
                    .await;
            }
        };
        // If none becomes active in time, that is an observation.
        let _ = timeout(MASTER_CHANGE_MAX, next_master).await;
    }
    Ok(observed)
}

/// The uid of the object that `storage` names, if it exists.
async fn storage_uid(
    client: &Client,
    namespace: &str,
    storage: &Storage,
) -> Result<Option<String>, Error> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    Ok(match (&storage.shared, &storage.hdfs) {
        (Some(SharedStorage { claim }), _) => {
            let found = claims.get_metadata_opt(claim).await;
            found.asked(|| format!("reading claim {claim}"))?.and_then(|found| found.uid())
        }
        (None, Some(HdfsStorage { config_map, .. })) => {
            let found = config_maps.get_metadata_opt(config_map).await;
            let found = found.asked(|| format!("reading ConfigMap {config_map}"))?;
            found.and_then(|found| found.uid())
        }
        (None, None) => None,
    })
}

fn replicas_of(set: &StatefulSet) -> Option<(RoleName, u32)> {
    let role = role_of(set.labels().get(names::COMPONENT_LABEL)?)?;
    Some((role, u32::try_from(set.spec.as_ref()?.replicas?).ok()?))
}

/// The size in the claim template of a StatefulSet. Only the coordinator's StatefulSet has one.
fn member_size(set: &StatefulSet) -> Option<String> {
    let claim = set.spec.as_ref()?.volume_claim_templates.as_ref()?.first()?;
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    Some(requests.get("storage")?.0.clone())
}

fn role_of(component: &str) -> Option<RoleName> {
    names::ROLES.into_iter().find(|role| role.subcommand() == component)
}

fn member(pod: &Pod, sets: &[StatefulSet]) -> Member {
    let status = pod.status.clone().unwrap_or_default();
    let role = pod.labels().get(names::COMPONENT_LABEL).and_then(|component| role_of(component));
    let set = sets.iter().find(|set| {
        set.labels().get(names::COMPONENT_LABEL) == pod.labels().get(names::COMPONENT_LABEL)
    });
    let newest = set.and_then(|set| set.status.as_ref()?.update_revision.as_deref());
    let own = pod.labels().get("controller-revision-hash").map(String::as_str);
    let conditions = status.conditions.unwrap_or_default();
    let is_ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
    Member {
        role,
        uid: pod.uid().unwrap_or_default(),
        address: status.pod_ip,
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        rack: None,
        is_ready,
        is_leaving: pod.metadata.deletion_timestamp.is_some(),
        is_evicted: conditions.iter().any(|condition| {
            condition.type_ == "DisruptionTarget"
                && condition.status == "True"
                && condition.reason.as_deref() == Some("DeletionByTaintManager")
        }),
        started_ms: status
            .start_time
            .and_then(|time| u64::try_from(time.0.as_millisecond()).ok())
            .unwrap_or(u64::MAX),
        is_current: set.is_some_and(is_settled) && newest.is_some() && newest == own,
        serves: is_ready,
        leads: false,
    }
}

/// Whether the StatefulSet controller has seen the current version of the set. If not, the revision
/// in its status belongs to an earlier version.
pub(super) fn is_settled(set: &StatefulSet) -> bool {
    let seen = set.status.as_ref().and_then(|status| status.observed_generation);
    seen.is_some() && seen == set.metadata.generation
}

fn addresses(cluster: &BasaltCluster, services: &[Service]) -> Vec<IpAddr> {
    let wanted = coordinator_service_names(&cluster.name_any(), cluster.spec.coordinator.replicas);
    let address = |name: &String| {
        let service = services.iter().find(|service| service.name_any() == *name)?;
        service.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok()
    };
    wanted.iter().map_while(address).collect()
}

/// The oldest cluster that stores its data in the same place, if it is older than `cluster`.
fn taken_by(cluster: &BasaltCluster, siblings: &[&BasaltCluster]) -> Option<String> {
    let sharing = siblings.iter().filter(|other| {
        place(other).is_some()
            && place(other) == place(cluster)
            && age(&other.metadata) < age(&cluster.metadata)
    });
    sharing.min_by_key(|other| age(&other.metadata)).map(|other| other.name_any())
}

/// A cluster that is older than `cluster` and whose storage is unknown.
fn unreadable_before(cluster: &BasaltCluster, salvaged: &[BasaltCluster]) -> Option<String> {
    let mut older = salvaged.iter().filter(|other| age(&other.metadata) < age(&cluster.metadata));
    older.find(|other| place(other).is_none()).map(ResourceExt::name_any)
}

/// The place where a cluster stores its data.
fn place(cluster: &BasaltCluster) -> Option<(String, String)> {
    let storage = &cluster.spec.storage;
    let claim = storage.shared.as_ref().map(|shared| (shared.claim.clone(), String::new()));
    claim
        .or_else(|| storage.hdfs.as_ref().map(|hdfs| (hdfs.nameservice.clone(), hdfs.root.clone())))
}

/// Orders clusters by age.
fn age(metadata: &ObjectMeta) -> (Option<Timestamp>, Option<&String>) {
    (metadata.creation_timestamp.as_ref().map(|time| time.0), metadata.name.as_ref())
}

// ---- What processes say of themselves -----------------------------------------------------------

/// Asks the members of `roles`. Each may take `patience` to answer.
async fn ask_members(
    network: &Network,
    observed: &mut Observed,
    roles: &[RoleName],
    patience: Duration,
) {
    let asked = |member: &Member| member.role.is_some_and(|role| roles.contains(&role));
    let members = observed.members.iter().filter(|(_, member)| asked(member));
    let answers = members.map(|(name, member)| {
        let (name, address) = (name.clone(), member.address.clone());
        let role = member.role;
        let ask = async move {
            let address = address?;
            match role? {
                RoleName::Coordinator => {
                    let state = coordinator_state(network, &address).await;
                    let leads = state.as_deref().is_some_and(|s| s != "follower");
                    Some((name, state.is_some(), leads, None))
                }
                RoleName::Master => {
                    let reported = reported_by_master(network, &address).await?;
                    Some((name, true, true, Some(reported)))
                }
                _ => None,
            }
        };
        async move { timeout(patience, ask).await.ok().flatten() }
    });
    let answers: Vec<_> = join_all(answers).await;
    for member in observed.members.values_mut().filter(|member| asked(member)) {
        member.serves = member.is_ready && member.role != Some(RoleName::Coordinator);
    }
    for (name, serves, leads, reported) in answers.into_iter().flatten() {
        if let Some(member) = observed.members.get_mut(&name) {
            member.serves = serves;
            member.leads = leads;
        }
        if let Some(reported) = reported {
            observed.recoveries.extend(reported.recoveries);
            observed.storage_deviations =
                reported.storage_is_known.then_some(reported.storage_deviations);
        }
    }
}

/// The state that a coordinator member reports: `leader`, `follower` or `standalone`. `None` if it
/// does not serve.
async fn coordinator_state(network: &Network, address: &str) -> Option<String> {
    let port = port(RoleName::Coordinator, PortName::Client);
    let mut connection = network.connect(&host_port(address, port)).await.ok()?;
    connection.write_all(b"mntr").await.ok()?;
    let mut answer = String::new();
    connection.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await.ok()?;
    let state = answer.lines().find_map(|line| line.strip_prefix("zk_server_state\t"));
    state.map(|state| state.trim().to_owned())
}

/// The recoveries and the storage deviations that the master at `address` knows. `None` if it is
/// not active.
async fn reported_by_master(network: &Network, address: &str) -> Option<pb::RecoveriesReply> {
    let mut client = master(network, address)?;
    let reply = client.recoveries(pb::RecoveriesRequest {}).await;
    Some(reply.ok()?.into_inner())
}

/// A client of the master at `address`.
pub(crate) fn master(
    network: &Network,
    address: &str,
) -> Option<MasterPeerClient<tonic::transport::Channel>> {
    let address = host_port(address, port(RoleName::Master, PortName::Peer));
    grpc::channel(network, &address, ANSWER_TIMEOUT).ok().map(MasterPeerClient::new)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn cluster(name: &str, claim: &str, born_s: i64) -> BasaltCluster {
        let text = include_str!("../../../examples/minimal.yaml");
        let manifests = basalt_api::Manifests::from_yaml("m", text).unwrap();
        let mut cluster = manifests.clusters[0].clone();
        cluster.metadata.name = Some(name.to_owned());
        cluster.metadata.creation_timestamp = Some(Time(Timestamp::from_second(born_s).unwrap()));
        cluster.spec.storage.shared.as_mut().unwrap().claim = claim.to_owned();
        cluster
    }

    #[test]
    fn the_older_of_two_clusters_has_the_claim() {
        let (old, young) = (cluster("old", "data", 1), cluster("young", "data", 2));
        let other = cluster("other", "elsewhere", 0);
        let all = [&young, &old, &other];
        assert_eq!(taken_by(&young, &all).as_deref(), Some("old"));
        assert_eq!(taken_by(&old, &all), None);
        assert_eq!(taken_by(&other, &all), None);
        assert_eq!(unreadable_before(&young, std::slice::from_ref(&old)), None);
        let mut nowhere = old.clone();
        nowhere.spec.storage.shared = None;
        assert_eq!(unreadable_before(&young, &[nowhere.clone()]).as_deref(), Some("old"));
        assert_eq!(unreadable_before(&nowhere, &[young]), None);
    }

    #[test]
    fn addresses_are_those_of_the_members_in_order_and_none_without_the_first() {
        let cluster = cluster("demo", "data", 1);
        let service = |index: u32, ip: &str| {
            serde_json::from_value::<Service>(serde_json::json!({
                "metadata": { "name": format!("demo-coordinator-{index}") },
                "spec": { "clusterIP": ip },
            }))
            .unwrap()
        };
        let all = [service(2, "10.0.0.3"), service(0, "10.0.0.1"), service(1, "10.0.0.2")];
        let found: Vec<String> =
            addresses(&cluster, &all).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert!(addresses(&cluster, &all[..1]).is_empty());
    }
}
