//! A cluster that cannot be read: a newer version wrote it, or the API server accepted an invalid
//! value. Its running processes are left alone. Its status describes the problem and the observed
//! state.

use basalt_api::{BasaltCluster, BasaltClusterSpec, Problem};
use kube::api::{ApiResource, DynamicObject};
use kube::core::error_boundary::InvalidObject;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Error, ResultExt};

/// A cluster with some fields that cannot be read.
pub(super) struct Unreadable {
    /// The cluster, with defaults for these fields.
    pub(super) cluster: BasaltCluster,
    /// The problem.
    pub(super) problem: Problem,
}

/// Reads the readable part of a cluster.
///
/// # Errors
/// The API server rejected the request or did not answer, or the spec cannot be read at all.
pub(super) async fn read(invalid: &InvalidObject, context: &Context) -> Result<Unreadable, Error> {
    let namespace = invalid.metadata.namespace.clone().unwrap_or_default();
    let name = invalid.metadata.name.clone().unwrap_or_default();
    let resource = ApiResource::erase::<BasaltCluster>(&());
    let api: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), &namespace, &resource);
    let raw = api.get(&name).await.asked(|| format!("reading cluster {name}"))?;
    let (field, reason) = basalt_api::load::unreadable_field::<BasaltCluster>(&json!(raw))
        .unwrap_or_else(|| ("spec".to_owned(), invalid.error.clone()));
    let mut cluster = BasaltCluster::new(&name, readable(&raw.data["spec"])?);
    cluster.status = serde_json::from_value(raw.data["status"].clone()).ok();
    cluster.metadata = raw.metadata;
    let problem =
        Problem { resource: format!("BasaltCluster {}", cluster.name_any()), field, reason };
    Ok(Unreadable { cluster, problem })
}

/// A spec with all fields that can be read.
fn readable(raw: &Value) -> Result<BasaltClusterSpec, serde_json::Error> {
    let mut spec = json!({ "storage": {} });
    for (name, value) in raw.as_object().into_iter().flatten() {
        let mut with = spec.clone();
        with[name] = value.clone();
        if serde_json::from_value::<BasaltClusterSpec>(with.clone()).is_ok() {
            spec = with;
        }
    }
    serde_json::from_value(spec)
}

#[test]
fn fields_that_can_be_read_are_kept() {
    let spec = readable(&json!({
        "storage": { "shared": { "claim": "data" } },
        "deletionPolicy": "Delete",
        "masters": { "replicas": "two" },
        "coordinator": { "replicas": 5 },
    }))
    .unwrap();
    assert_eq!(spec.storage.shared.unwrap().claim, "data");
    assert_eq!(spec.deletion_policy, basalt_api::common::DeletionPolicy::Delete);
    assert_eq!((spec.masters.replicas, spec.coordinator.replicas), (2, 5));
    assert!(readable(&Value::Null).is_ok());
}
