//! The names of objects and pods, and the labels that select them.

use std::collections::BTreeMap;

use basalt_api::role_file::{PortName, RoleName};

/// The field manager of everything that the operator writes.
pub(crate) const FIELD_MANAGER: &str = "basalt-operator";
/// The cluster that an object or pod belongs to.
pub(crate) const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
/// The role of a pod.
pub(crate) const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// Selects all pods of all clusters, and no others.
pub(crate) const PODS_SELECTOR: &str =
    "app.kubernetes.io/name=basalt,app.kubernetes.io/managed-by=basalt-operator";
/// Keeps a cluster or table until the operator has executed its deletion policy.
pub(crate) const FINALIZER: &str = "basalt.db/deletion-policy";
/// The hash of a pod's configuration. A pod with another value is out of date.
pub(crate) const CONFIG_ANNOTATION: &str = "basalt.db/config-hash";
/// The name of the container in every pod.
pub(crate) const CONTAINER: &str = "basalt";

/// The roles of a cluster, in the order of a rollout.
pub(crate) const ROLES: [RoleName; 3] =
    [RoleName::Coordinator, RoleName::Master, RoleName::RegionServer];

/// The port of every container that the kubelet probes.
pub(crate) const HEALTH_PORT: u16 = 8080;

/// The name of the objects of a role: its StatefulSet, Service, ConfigMap, disruption budget,
/// network policy.
pub(crate) fn of_role(cluster: &str, role: RoleName) -> String {
    format!("{cluster}-{role}")
}

/// The name of the Lease that the masters hold.
pub(crate) fn lease(cluster: &str) -> String {
    of_role(cluster, RoleName::Master)
}

/// The name of one pod.
pub(crate) fn pod(cluster: &str, role: RoleName, index: u32) -> String {
    format!("{cluster}-{role}-{index}")
}

/// The index of a pod within its role.
pub(crate) fn index(pod: &str) -> Option<u32> {
    pod.rsplit_once('-')?.1.parse().ok()
}

/// A port of a role. Each pod has its own address, so all pods of a role use HBase's default ports.
pub(crate) fn port(role: RoleName, name: PortName) -> u16 {
    let mut ports = PortName::of_role(role).iter();
    ports.find(|(known, _)| *known == name).map_or(0, |(_, port)| *port)
}

/// `host:port`, in the form of a URI.
pub(crate) fn host_port(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// The labels of objects that belong to a cluster as a whole.
pub(crate) fn cluster_labels(cluster: &str) -> BTreeMap<String, String> {
    let labels = [
        ("app.kubernetes.io/name", "basalt"),
        (INSTANCE_LABEL, cluster),
        ("app.kubernetes.io/managed-by", FIELD_MANAGER),
    ];
    labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The labels of the objects of a role. They also select its pods.
pub(crate) fn role_labels(cluster: &str, role: RoleName) -> BTreeMap<String, String> {
    let mut labels = cluster_labels(cluster);
    labels.insert(COMPONENT_LABEL.to_owned(), role.to_string());
    labels
}
