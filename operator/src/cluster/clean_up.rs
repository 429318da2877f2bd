//! Deletes a cluster's data. Kubernetes deletes the objects that the cluster owns. The claim of its
//! data is deleted only if the policy says so, and only if it is the very claim that this cluster
//! has used.

use basalt_api::BasaltCluster;
use basalt_api::common::DeletionPolicy;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};

use super::events;
use crate::context::{Context, in_namespace};
use crate::error::{Error, ResultExt};

/// Deletes the data if the policy says so.
///
/// # Errors
/// The API server rejected the request or did not answer.
pub(super) async fn clean_up(cluster: &BasaltCluster, context: &Context) -> Result<Action, Error> {
    let uid = cluster.uid().unwrap_or_default();
    context.applied.forget(&uid);
    context.evictions.forget(&uid);
    if cluster.spec.deletion_policy == DeletionPolicy::Retain {
        return Ok(Action::await_change());
    }
    // A cluster that never ran has used no claim.
    let used = cluster.status.as_ref().and_then(|status| status.data_claim.clone());
    let Some(used) = used else { return Ok(Action::await_change()) };
    if let Some(reason) = needed_by(cluster, &used.name, context) {
        tracing::warn!(
            cluster = cluster.name_any(),
            claim = used.name,
            reason,
            "the claim is kept"
        );
        let event = events::claim_kept(&used.name, &reason);
        context.publish(&event, &cluster.object_ref(&())).await;
        return Ok(Action::await_change());
    }
    let namespace = cluster.namespace().unwrap_or_default();
    let api: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &namespace);
    let only_this = Preconditions { uid: Some(used.uid), ..Preconditions::default() };
    // Kubernetes keeps the claim until the last pod that mounts it is gone.
    match api.delete(&used.name, &DeleteParams::default().preconditions(only_this)).await {
        // 409: another claim has this name by now.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
        deleted => drop(deleted.asked(|| format!("deleting claim {}", used.name))?),
    }
    Ok(Action::await_change())
}

/// Another cluster that stores data in the claim, or may do so.
fn needed_by(cluster: &BasaltCluster, claim: &str, context: &Context) -> Option<String> {
    let siblings = in_namespace(&context.clusters, &cluster.namespace().unwrap_or_default());
    let own = cluster.uid();
    let mut others = siblings.iter().filter(|(_, other)| other.meta().uid != own);
    others.find_map(|(name, other)| match &other.0 {
        Ok(other) => {
            let shared = other.spec.storage.shared.as_ref();
            let is_same = shared.is_some_and(|shared| shared.claim == claim);
            is_same.then(|| format!("BasaltCluster {name} uses it, too"))
        }
        Err(_) => Some(format!("BasaltCluster {name} cannot be read, and may use it")),
    })
}
