//! Builds every object of a validated cluster. Pure.
//!
//! Objects are JSON, in the form that users know from manifests. A `podTemplate` is merged over the
//! generated template. The tests read each object back as its Kubernetes type, so that no field
//! name is misspelt, and compare all objects of `examples/cluster.yaml` with a committed file.

mod access;
mod budget;
mod config;
mod merge;
mod network;
mod pod;
pub(crate) mod pod_monitor;
mod service;
mod stateful_set;

use std::net::IpAddr;

use basalt_api::role_file::RoleName;
use basalt_api::{GROUP, VERSION, ValidatedCluster};
use md5::{Digest, Md5};
use serde_json::{Value, json};

use crate::names;

pub(crate) use config::coordinator_service_names;

/// The input for the objects of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Plan<'a> {
    /// The cluster.
    pub(crate) cluster: &'a ValidatedCluster,
    /// Its Kubernetes namespace.
    pub(crate) namespace: &'a str,
    /// The `metadata.uid` of its resource, the owner of the objects.
    pub(crate) uid: &'a str,
    /// The image tag if the cluster names none: the operator's own.
    pub(crate) default_tag: &'a str,
    /// The address of each coordinator member's own Service, in the order of the members. It has
    /// one address per member as soon as the API server has assigned them.
    pub(crate) coordinator_addresses: &'a [IpAddr],
}

/// One object to apply.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Object(pub(crate) Value);

/// The Services, whose addresses the other objects contain. They are applied first.
pub(crate) fn services(plan: &Plan<'_>) -> Vec<Object> {
    service::all(plan)
}

/// All other objects, in the order in which they are applied: the objects that pods need come
/// first.
pub(crate) fn objects(plan: &Plan<'_>) -> Vec<Object> {
    let mut objects = access::all(plan);
    objects.extend(network::policies(plan));
    objects.extend(budget::all(plan));
    objects.extend([config::hbase_site(plan), config::hdfs_site(plan)]);
    for role in names::ROLES {
        let config::RoleConfig { object, hash } = config::config_map(plan, role);
        objects.push(object);
        objects.push(stateful_set::stateful_set(plan, role, &hash));
    }
    if plan.cluster.spec.metrics.pod_monitor {
        objects.push(pod_monitor::pod_monitor(plan));
    }
    objects
}

/// A hash of the objects.
pub(crate) fn fingerprint(objects: &[Object]) -> String {
    let mut digest = Md5::new();
    for object in objects {
        digest.update(object.0.to_string());
    }
    format!("{:x}", digest.finalize())
}

// === impl Object ===

impl Object {
    /// Its kind.
    pub(crate) fn kind(&self) -> &str {
        self.0["kind"].as_str().unwrap_or_default()
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Its kind and name.
    pub(crate) fn object_name(&self) -> (String, String) {
        (self.kind().to_owned(), self.name().to_owned())
    }
}

// === impl Plan ===

impl Plan<'_> {
    /// An object of the whole cluster. `body` contains its fields other than the metadata.
    fn object(&self, api_version: &str, kind: &str, name: &str, body: Value) -> Object {
        self.labelled(api_version, kind, name, body, names::cluster_labels(&self.cluster.name))
    }

    /// An object of one role.
    fn role_object(&self, api_version: &str, kind: &str, role: RoleName, body: Value) -> Object {
        let name = names::of_role(&self.cluster.name, role);
        let labels = names::role_labels(&self.cluster.name, role);
        self.labelled(api_version, kind, &name, body, labels)
    }

    fn labelled(
        &self,
        api_version: &str,
        kind: &str,
        name: &str,
        body: Value,
        labels: std::collections::BTreeMap<String, String>,
    ) -> Object {
        let mut object = json!({
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": labels,
                "ownerReferences": [{
                    "apiVersion": format!("{GROUP}/{VERSION}"),
                    "kind": "BasaltCluster",
                    "name": self.cluster.name,
                    "uid": self.uid,
                    "controller": true,
                    "blockOwnerDeletion": true,
                }],
            },
        });
        merge::merge(&mut object, &body);
        Object(object)
    }

    fn selector(&self, role: RoleName) -> Value {
        json!({ "matchLabels": names::role_labels(&self.cluster.name, role) })
    }
}

#[cfg(test)]
mod tests;
