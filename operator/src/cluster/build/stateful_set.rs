//! The StatefulSets. Pods are started in parallel. Only the operator replaces them (`OnDelete`),
//! because it knows the order.

use basalt_api::common::DeletionPolicy;
use basalt_api::role_file::RoleName;
use serde_json::{Value, json};

use super::{Object, Plan, pod};
use crate::names;

pub(super) fn stateful_set(plan: &Plan<'_>, role: RoleName, config_hash: &str) -> Object {
    let mut spec = json!({
        "replicas": plan.cluster.replicas(role),
        "serviceName": names::of_role(&plan.cluster.name, role),
        "podManagementPolicy": "Parallel",
        "updateStrategy": { "type": "OnDelete" },
        "selector": plan.selector(role),
        "template": pod::template(plan, role, config_hash),
    });
    if role == RoleName::Coordinator {
        spec["volumeClaimTemplates"] = json!([member_claim(plan)]);
        let on_deletion = match plan.cluster.spec.deletion_policy {
            DeletionPolicy::Retain => "Retain",
            DeletionPolicy::Delete => "Delete",
        };
        spec["persistentVolumeClaimRetentionPolicy"] =
            json!({ "whenDeleted": on_deletion, "whenScaled": "Retain" });
    }
    plan.role_object("apps/v1", "StatefulSet", role, json!({ "spec": spec }))
}

fn member_claim(plan: &Plan<'_>) -> Value {
    let storage = &plan.cluster.spec.coordinator.storage;
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": storage.size } },
    });
    if let Some(class) = &storage.storage_class {
        spec["storageClassName"] = json!(class);
    }
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": pod::MEMBER_VOLUME,
            "labels": names::role_labels(&plan.cluster.name, RoleName::Coordinator),
        },
        "spec": spec,
    })
}
