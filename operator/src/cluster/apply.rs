//! Server-side apply: the operator owns the fields that it writes, and writes only to objects that
//! the cluster owns.
//!
//! An object with a name that the cluster needs may be somebody else's. So each object is looked at
//! before it is written for the first time: one that exists and has no owner reference to this
//! very cluster, by uid, is a conflict, and then nothing is written. One that is the cluster's is
//! written with its uid, which the API server compares; one that is missing is written without
//! force, so that it is not taken from somebody who made it in between.

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

/// What came of applying the objects of a cluster.
pub(super) enum ApplyOutcome {
    /// All are written.
    Written {
        /// Whether Kubernetes' controllers have seen all of them as they are now: until then what
        /// is said of the pods is about the objects before.
        is_seen: bool,
        /// The objects as they are now.
        versions: BTreeMap<ObjectName, Version>,
    },
    /// These exist and are not the cluster's: nothing was written.
    Conflicts(Vec<String>),
}

/// Applies `objects` in order for the cluster with the uid `owner`. `known` are the uids of those
/// that were found to be its own.
///
/// # Errors
/// The API server refused one; those behind it are left for the next time.
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

/// Deletes the PodMonitor `name`, if there is one and the cluster with the uid `owner` owns it.
///
/// # Errors
/// The API server refused.
pub(super) async fn delete_pod_monitor(
    client: &Client,
    namespace: &str,
    owner: &str,
    name: &str,
) -> Result<(), Error> {
    let resource = ApiResource::from_gvk(&pod_monitor::kind());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let found = match api.get_metadata_opt(name).await {
        // Its kind may be missing as well.
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

/// Every kind that is built, but for the PodMonitor, which need not exist.
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

/// Whose an object is that is not the cluster's, and what to do.
fn conflict(object: &Object, found: &ObjectMeta) -> String {
    let what = format!("{} {}", object.kind(), object.name());
    let mut owners = found.owner_references.iter().flatten();
    match owners.find(|owner| owner.controller == Some(true)) {
        // Of an earlier cluster of this name: the garbage collector is on it.
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
