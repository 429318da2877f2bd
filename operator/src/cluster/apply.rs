//! Server-side apply: the operator owns the fields that it writes, and no others.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};

use super::build::{Object, pod_monitor};
use crate::error::{Asked, Error};
use crate::names::FIELD_MANAGER;

/// Applies `objects` in order. Gives whether Kubernetes' controllers have seen all of them as they
/// are now: until then what is said of the pods is about the objects before.
///
/// # Errors
/// The API server refused one; those behind it are left for the next time.
pub(super) async fn apply(
    client: &Client,
    namespace: &str,
    objects: &[Object],
) -> Result<bool, Error> {
    let params = PatchParams::apply(FIELD_MANAGER).force().validation_strict();
    let mut is_seen = true;
    for object in objects {
        let Some(resource) = resource(object.kind()) else { continue };
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let patched = api.patch(object.name(), &params, &Patch::Apply(&object.0)).await;
        let applied = patched.asked(|| format!("applying {} {}", object.kind(), object.name()))?;
        if object.kind() == "StatefulSet" {
            let seen = applied.data["status"]["observedGeneration"].as_i64();
            is_seen &= seen.is_some() && seen == applied.metadata.generation;
        }
    }
    Ok(is_seen)
}

/// Deletes the PodMonitor `name`, if there is one.
///
/// # Errors
/// The API server refused.
pub(super) async fn delete_pod_monitor(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<(), Error> {
    let resource = ApiResource::from_gvk(&pod_monitor::kind());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    match api.delete(name, &DeleteParams::default()).await {
        // Neither it nor, perhaps, its kind.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        deleted => deleted.asked(|| format!("deleting PodMonitor {name}")).map(drop),
    }
}

fn resource(kind: &str) -> Option<ApiResource> {
    Some(match kind {
        "ConfigMap" => ApiResource::erase::<ConfigMap>(&()),
        "Lease" => ApiResource::erase::<Lease>(&()),
        "NetworkPolicy" => ApiResource::erase::<NetworkPolicy>(&()),
        "PodMonitor" => ApiResource::from_gvk(&pod_monitor::kind()),
        "PodDisruptionBudget" => ApiResource::erase::<PodDisruptionBudget>(&()),
        "Role" => ApiResource::erase::<Role>(&()),
        "RoleBinding" => ApiResource::erase::<RoleBinding>(&()),
        "Service" => ApiResource::erase::<Service>(&()),
        "ServiceAccount" => ApiResource::erase::<ServiceAccount>(&()),
        "StatefulSet" => ApiResource::erase::<StatefulSet>(&()),
        _ => return None,
    })
}
