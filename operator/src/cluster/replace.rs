//! Replaces a pod by evicting it. So disruption budgets apply to the operator as they apply to node
//! drains, and an operator and a node drain never take two members away at once.
//!
//! The decision may be based on old data, because processes were queried in between. So the pod and
//! its StatefulSet are read again, and the eviction names the pod's uid and the version that was
//! read.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions};
use kube::api::{DeleteParams, PostParams};
use kube::core::Status;
use kube::{Api, Client, ResourceExt};

use super::apply::is_owned;
use super::observe::is_settled;
use super::rollout::RolloutStep;
use crate::context::Context;
use crate::error::{Error, ResultExt};

/// Replaces the pod of the cluster with the uid `cluster`, if that is still right. Returns the
/// resulting step.
///
/// # Errors
/// The API server rejected a request or did not answer.
pub(super) async fn replace(
    context: &Context,
    namespace: &str,
    cluster: &str,
    pod: &str,
    uid: &str,
) -> Result<RolloutStep, Error> {
    if let Some(pause) = context.evictions.pause(cluster) {
        let reason = format!("the disruption budget of {pod} does not allow an eviction yet");
        return Ok(RolloutStep::Refused { reason, pause });
    }
    let Some(version) = outdated(&context.client, namespace, cluster, pod, uid).await? else {
        return Ok(RolloutStep::Wait { reason: format!("{pod} has changed in the meantime") });
    };
    let api: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let preconditions =
        Preconditions { uid: Some(uid.to_owned()), resource_version: Some(version) };
    let eviction = Eviction {
        metadata: ObjectMeta {
            name: Some(pod.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        delete_options: Some(DeleteOptions {
            preconditions: Some(preconditions),
            ..DeleteOptions::default()
        }),
    };
    // Not `Api::evict`: it writes `delete_options`, which the API server does not know. The
    // preconditions would be lost.
    let params = PostParams::default();
    match api.create_subresource::<_, Status>("eviction", pod, &params, &eviction).await {
        Ok(_) => {
            context.evictions.forget(cluster);
            Ok(RolloutStep::Replace { pod: pod.to_owned(), uid: uid.to_owned() })
        }
        Err(kube::Error::Api(status)) if status.code == 429 => {
            let pause = context.evictions.refused(cluster);
            let reason = format!("the eviction of {pod} was rejected: {}", status.message);
            tracing::info!(pod, ?pause, reason = status.message, "the eviction was rejected");
            Ok(RolloutStep::Refused { reason, pause })
        }
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
            Ok(RolloutStep::Wait { reason: format!("{pod} has changed in the meantime") })
        }
        Err(error) => Err(error).asked(|| format!("evicting pod {pod}")),
    }
}

/// The version of the pod, if it still exists, was not asked to terminate, and differs from the pod
/// that its StatefulSet would create now.
async fn outdated(
    client: &Client,
    namespace: &str,
    cluster: &str,
    pod: &str,
    uid: &str,
) -> Result<Option<String>, Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
    let Some((set, _)) = pod.rsplit_once('-') else { return Ok(None) };
    let set = sets.get_opt(set).await.asked(|| format!("reading StatefulSet {set}"))?;
    let pod = pods.get_opt(pod).await.asked(|| format!("reading pod {pod}"))?;
    let (Some(set), Some(pod)) = (set, pod) else { return Ok(None) };
    let newest = set.status.as_ref().and_then(|status| status.update_revision.as_deref());
    let own = pod.labels().get("controller-revision-hash").map(String::as_str);
    let is_ours = is_owned(&set.metadata, cluster)
        && set.uid().is_some_and(|set| is_owned(&pod.metadata, &set));
    let is_outdated = is_settled(&set) && newest.is_some() && newest != own;
    let is_same = pod.uid().as_deref() == Some(uid) && pod.metadata.deletion_timestamp.is_none();
    Ok(pod.metadata.resource_version.filter(|_| is_ours && is_outdated && is_same))
}

/// Deletes a pod by force, but no other pod that has replaced it. A pod that is gone is no error.
///
/// # Errors
/// The API server rejected the request or did not answer.
pub(super) async fn delete_by_force(
    client: &Client,
    namespace: &str,
    pod: &str,
    uid: &str,
) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let only_this = kube::api::Preconditions { uid: Some(uid.to_owned()), ..Default::default() };
    let by_force = DeleteParams::default().grace_period(0).preconditions(only_this);
    match api.delete(pod, &by_force).await {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        deleted => deleted.asked(|| format!("deleting pod {pod}")).map(drop),
    }
}
