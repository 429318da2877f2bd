//! Server-side apply: the operator owns the fields that it writes, and writes only to objects that
//! the cluster owns.
//!
//! An object with a name that the cluster needs may belong to others. So each object is read before
//! it is written for the first time. If it exists and has no owner reference to this cluster, by
//! uid, that is a conflict, and nothing is written. An object of the cluster is written with its
//! uid, which the API server compares. A missing object is written without force, so that the
//! operator takes no fields from another client that creates it in the meantime.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;

use super::applied::{ObjectName, Version};
use super::build::{Object, pod_monitor};
use crate::error::{Error, ResultExt};
use crate::names::FIELD_MANAGER;

/// The result of applying the objects of a cluster.
pub(super) enum ApplyOutcome {
    /// All objects are written.
    Written {
        /// Whether Kubernetes' controllers have seen the current version of every object. Until
        /// then their status of the pods refers to earlier versions.
        is_seen: bool,
        /// The current versions of the objects.
        versions: BTreeMap<ObjectName, Version>,
    },
    /// These objects exist and do not belong to the cluster. Nothing was written.
    Conflicts(Vec<String>),
}

/// Applies `objects` in order for the cluster with the uid `owner`. `known` are the uids of the
/// objects that are known to belong to it.
///
/// # Errors
/// The API server rejected an object. The objects after it are left for the next round.
pub(super) async fn apply(
    client: &Client,
    namespace: &str,
    owner: &str,
    objects: &[Object],
    mut known: BTreeMap<ObjectName, String>,
) -> Result<ApplyOutcome, Error> {
    let mut conflicts = Vec::new();
    for object in objects {
        let name = object.object_name();
        if known.contains_key(&name) {
            continue;
        }
        let Some(api) = api(client, namespace, object.kind()) else { continue };
        let found = api.get_metadata_opt(object.name()).await;
        match found.asked(|| format!("reading {} {}", object.kind(), object.name()))? {
            Some(found) if is_owned(&found.metadata, owner) => {
                known.extend(found.metadata.uid.map(|uid| (name, uid)));
            }
            Some(found) => conflicts.push(conflict(object, &found.metadata)),
            None => {}
        }
    }
    if !conflicts.is_empty() {
        return Ok(ApplyOutcome::Conflicts(conflicts));
    }
    let (mut is_seen, mut versions) = (true, BTreeMap::new());
    for object in objects {
        let Some(api) = api(client, namespace, object.kind()) else { continue };
        let mut params = PatchParams::apply(FIELD_MANAGER).validation_strict();
        let mut body = object.0.clone();
        if let Some(uid) = known.get(&object.object_name()) {
            params = params.force();
            body["metadata"]["uid"] = json!(uid);
        }
        let patched = api.patch(object.name(), &params, &Patch::Apply(&body)).await;
        let applied = patched.asked(|| format!("applying {} {}", object.kind(), object.name()))?;
        if object.kind() == "StatefulSet" {
            let seen = applied.data["status"]["observedGeneration"].as_i64();
            is_seen &= seen.is_some() && seen == applied.metadata.generation;
        }
        versions.insert(object.object_name(), Version::of(&applied.metadata));
    }
    Ok(ApplyOutcome::Written { is_seen, versions })
}

/// Deletes the PodMonitor `name` if it exists and belongs to the cluster with the uid `owner`.
///
/// # Errors
/// The API server rejected the request.
pub(super) async fn delete_pod_monitor(
    client: &Client,
    namespace: &str,
    owner: &str,
    name: &str,
) -> Result<(), Error> {
    let resource = ApiResource::from_gvk(&pod_monitor::kind());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let found = match api.get_metadata_opt(name).await {
        // Its kind may be missing, too.
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        found => found.asked(|| format!("reading PodMonitor {name}"))?,
    };
    let Some(found) = found.filter(|found| is_owned(&found.metadata, owner)) else {
        return Ok(());
    };
    let only_this = Preconditions { uid: found.metadata.uid, ..Preconditions::default() };
    match api.delete(name, &DeleteParams::default().preconditions(only_this)).await {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        deleted => deleted.asked(|| format!("deleting PodMonitor {name}")).map(drop),
    }
}

/// Whether the object with this metadata has the owner with the uid `owner`.
pub(super) fn is_owned(metadata: &ObjectMeta, owner: &str) -> bool {
    metadata.owner_references.iter().flatten().any(|reference| reference.uid == owner)
}

/// Every kind of object that is built, except the PodMonitor, whose kind may be missing.
pub(super) fn kinds() -> Vec<ApiResource> {
    vec![
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<Lease>(&()),
        ApiResource::erase::<NetworkPolicy>(&()),
        ApiResource::erase::<PodDisruptionBudget>(&()),
        ApiResource::erase::<Role>(&()),
        ApiResource::erase::<RoleBinding>(&()),
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<ServiceAccount>(&()),
        ApiResource::erase::<StatefulSet>(&()),
    ]
}

fn api(client: &Client, namespace: &str, kind: &str) -> Option<Api<DynamicObject>> {
    let resource = match kind {
        "PodMonitor" => ApiResource::from_gvk(&pod_monitor::kind()),
        kind => kinds().into_iter().find(|resource| resource.kind == kind)?,
    };
    Some(Api::namespaced_with(client.clone(), namespace, &resource))
}

/// Describes the owner of a conflicting object, and what to do.
fn conflict(object: &Object, found: &ObjectMeta) -> String {
    let what = format!("{} {}", object.kind(), object.name());
    let mut owners = found.owner_references.iter().flatten();
    match owners.find(|owner| owner.controller == Some(true)) {
        // The owner is an earlier cluster of this name. The garbage collector will delete the
        // object.
        Some(owner) if owner.kind == "BasaltCluster" => format!(
            "{what} belongs to BasaltCluster {} with the uid {}: if that cluster was deleted, the \
             object is removed soon",
            owner.name, owner.uid
        ),
        Some(owner) => format!(
            "{what} belongs to {} {}: rename the cluster or that object",
            owner.kind, owner.name
        ),
        None => format!(
            "{what} exists and does not belong to this cluster: rename the cluster or delete the \
             object"
        ),
    }
}
