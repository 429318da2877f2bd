//! What objects and pods are called, and the labels by which they are found.

use std::collections::BTreeMap;

use basalt_api::role_file::{PortName, RoleName};

/// The field manager of everything that the operator writes.
pub(crate) const FIELD_MANAGER: &str = "basalt-operator";
/// Which cluster an object or pod belongs to.
pub(crate) const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
/// Which role a pod has.
pub(crate) const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// All pods of all clusters, and nobody else's.
pub(crate) const PODS_SELECTOR: &str =
    "app.kubernetes.io/name=basalt,app.kubernetes.io/managed-by=basalt-operator";
/// Keeps a cluster or table until the operator has done what its deletion policy says.
pub(crate) const FINALIZER: &str = "basalt.db/deletion-policy";
/// What a pod was configured with; a pod with another value is out of date.
pub(crate) const CONFIG_ANNOTATION: &str = "basalt.db/config-hash";
/// The container of every pod.
pub(crate) const CONTAINER: &str = "basalt";

/// The roles of a cluster, in the order in which they are rolled.
pub(crate) const ROLES: [RoleName; 3] =
    [RoleName::Coordinator, RoleName::Master, RoleName::RegionServer];

/// The port at which the kubelet asks every container.
pub(crate) const HEALTH_PORT: u16 = 8080;

/// The name of what belongs to one role: its StatefulSet, Service, ConfigMap, budget, policy.
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

/// The number of a pod within its role.
pub(crate) fn index(pod: &str) -> Option<u32> {
    pod.rsplit_once('-')?.1.parse().ok()
}

/// A port of a role. Each pod has an address of its own, so all of a role have HBase's defaults.
pub(crate) fn port(role: RoleName, name: PortName) -> u16 {
    let mut ports = PortName::of_role(role).iter();
    ports.find(|(known, _)| *known == name).map_or(0, |(_, port)| *port)
}

/// `host:port`, as a URI has it.
pub(crate) fn host_port(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// The labels of what belongs to a cluster as a whole.
pub(crate) fn cluster_labels(cluster: &str) -> BTreeMap<String, String> {
    let labels = [
        ("app.kubernetes.io/name", "basalt"),
        (INSTANCE_LABEL, cluster),
        ("app.kubernetes.io/managed-by", FIELD_MANAGER),
    ];
    labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The labels of what belongs to a role, and by which its pods are selected.
pub(crate) fn role_labels(cluster: &str, role: RoleName) -> BTreeMap<String, String> {
    let mut labels = cluster_labels(cluster);
    labels.insert(COMPONENT_LABEL.to_owned(), role.to_string());
    labels
}
