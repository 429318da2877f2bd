//! One round over one cluster: observe, validate, build, apply, roll, tell.

use std::sync::Arc;
use std::time::Duration;

use basalt_api::cluster::BasaltClusterStatus;
use basalt_api::common::DeletionPolicy;
use basalt_api::{BasaltCluster, ValidatedCluster};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{Event as Finalizer, finalizer};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::build::{self, Plan};
use super::observe::{Observed, observe};
use super::rollout::Step;
use super::status::Facts;
use super::{apply, events, lost, pods, rollout, status, validate};
use crate::context::Context;
use crate::error::{Asked, Error};
use crate::names::{FIELD_MANAGER, FINALIZER};

/// The pause before a cluster is looked at again that is on its way.
const SOON: Duration = Duration::from_secs(1);
/// The pause before a cluster is looked at again of which nothing was heard.
const LATER: Duration = Duration::from_secs(30);
/// The pause after an error.
const AFTER_ERROR: Duration = Duration::from_secs(3);

/// Brings `cluster` one round closer to what it should be.
///
/// # Errors
/// The API server refused or did not answer; the next round tries again.
pub(crate) async fn reconcile(
    cluster: Arc<BasaltCluster>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let namespace = cluster.namespace().unwrap_or_default();
    let api: Api<BasaltCluster> = Api::namespaced(context.client.clone(), &namespace);
    let round = finalizer(&api, FINALIZER, cluster, |event| async {
        match event {
            Finalizer::Apply(cluster) => round(&cluster, &context).await,
            Finalizer::Cleanup(cluster) => clean_up(&cluster, &context).await,
        }
    });
    round.await.map_err(|error| match error {
        kube::runtime::finalizer::Error::ApplyFailed(error)
        | kube::runtime::finalizer::Error::CleanupFailed(error) => error,
        other => Error::Finalizer { reason: other.to_string() },
    })
}

/// What is done when a round failed.
pub(crate) fn on_error(cluster: Arc<BasaltCluster>, error: &Error, _: Arc<Context>) -> Action {
    tracing::warn!(cluster = cluster.name_any(), %error, "this round failed");
    Action::requeue(AFTER_ERROR)
}

async fn round(cluster: &BasaltCluster, context: &Context) -> Result<Action, Error> {
    let observed = observe(context, cluster).await?;
    let before = cluster.status.clone().unwrap_or_default();
    let name = cluster.name_any();
    let facts = Facts {
        name: &name,
        observed: &observed,
        generation: cluster.metadata.generation,
        before: &before,
        now: now(context),
    };
    if cluster.spec.paused {
        return tell(cluster, context, &before, status::of_paused(&facts)).await;
    }
    match validate::validate(cluster, &observed) {
        Err(problems) => {
            tell(cluster, context, &before, status::of_invalid(&facts, &problems)).await
        }
        Ok(validated) => {
            let step = act(cluster, context, &validated, &observed).await?;
            tell(cluster, context, &before, status::of_running(&facts, &validated, &step)).await
        }
    }
}

/// Applies everything, and replaces one pod if one may be replaced.
async fn act(
    cluster: &BasaltCluster,
    context: &Context,
    validated: &ValidatedCluster,
    observed: &Observed,
) -> Result<Step, Error> {
    let namespace = cluster.namespace().unwrap_or_default();
    let uid = cluster.uid().unwrap_or_default();
    let declared = validated.region_servers;
    let regions = pods::tell(&context.seams.network, observed, declared).await;
    let for_now = pods::for_now(observed, declared, regions.as_ref());
    let running = ValidatedCluster { region_servers: for_now.region_servers, ..validated.clone() };
    let plan = Plan {
        cluster: &running,
        namespace: &namespace,
        uid: &uid,
        default_tag: &context.default_tag,
        coordinator_addresses: &observed.coordinator_addresses,
    };
    let services = build::services(&plan);
    if observed.coordinator_addresses.len() != validated.coordinators as usize {
        apply::apply(&context.client, &namespace, &services).await?;
        return Ok(Step::Wait { reason: "Services have no addresses yet".to_owned() });
    }
    let objects = [services, build::objects(&plan)].concat();
    let fingerprint = build::fingerprint(&objects);
    if !(observed.is_settled && context.applied.is_fresh(&uid, &fingerprint)) {
        let is_seen = apply::apply(&context.client, &namespace, &objects).await?;
        if !validated.spec.metrics.pod_monitor {
            apply::delete_pod_monitor(&context.client, &namespace, &validated.name).await?;
        }
        context.applied.note(&uid, fingerprint);
        if !is_seen {
            return Ok(Step::Wait { reason: "the StatefulSets have just been written".to_owned() });
        }
    }
    for (pod, uid) in lost::harmless(observed) {
        let by_force = DeleteParams::default().grace_period(0);
        delete(context, &namespace, &pod, &uid, by_force).await?;
        tracing::info!(pod, "on a lost node, and harmless: taken away");
        context.publish(&events::taken_away(&pod), &cluster.object_ref(&())).await;
    }
    if let Some(reason) = for_now.waits_for {
        return Ok(Step::Wait { reason });
    }
    let step = rollout::next(observed, &running);
    if let Step::Replace { pod, uid } = &step {
        delete(context, &namespace, pod, uid, DeleteParams::default()).await?;
        tracing::info!(pod, "replacing");
        context.publish(&events::replacing(pod), &cluster.object_ref(&())).await;
    }
    Ok(step)
}

/// Deletes a pod, and no other that has come in its place. One that is gone already is fine.
async fn delete(
    context: &Context,
    namespace: &str,
    pod: &str,
    uid: &str,
    params: DeleteParams,
) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let only_this = Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() };
    match api.delete(pod, &params.preconditions(only_this)).await {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        deleted => deleted.asked(|| format!("deleting pod {pod}")).map(drop),
    }
}

/// Writes the status if it says something new, and publishes what happened.
async fn tell(
    cluster: &BasaltCluster,
    context: &Context,
    before: &BasaltClusterStatus,
    after: BasaltClusterStatus,
) -> Result<Action, Error> {
    let settled = matches!(after.phase.as_deref(), Some("Ready" | "Paused" | "Invalid"));
    if *before != after {
        for event in events::between(before, &after) {
            context.publish(&event, &cluster.object_ref(&())).await;
        }
        let namespace = cluster.namespace().unwrap_or_default();
        let api: Api<BasaltCluster> = Api::namespaced(context.client.clone(), &namespace);
        let name = cluster.name_any();
        let patch = json!({
            "apiVersion": BasaltCluster::api_version(&()),
            "kind": BasaltCluster::kind(&()),
            "status": after,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patched = api.patch_status(&name, &params, &Patch::Apply(&patch)).await;
        patched.asked(|| format!("writing the status of {name}"))?;
    }
    Ok(Action::requeue(if settled { LATER } else { SOON }))
}

/// Deletes the data if the policy says so. All else goes with the resource that owns it.
async fn clean_up(cluster: &BasaltCluster, context: &Context) -> Result<Action, Error> {
    context.applied.forget(&cluster.uid().unwrap_or_default());
    let namespace = cluster.namespace().unwrap_or_default();
    let shared = cluster.spec.storage.shared.as_ref();
    if let (DeletionPolicy::Delete, Some(shared)) = (cluster.spec.deletion_policy, shared) {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &namespace);
        // It stays until the last pod that has it mounted is gone: Kubernetes sees to that.
        match api.delete(&shared.claim, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            deleted => drop(deleted.asked(|| format!("deleting claim {}", shared.claim))?),
        }
    }
    Ok(Action::await_change())
}

fn now(context: &Context) -> Timestamp {
    let ms = i64::try_from(context.seams.clock.wall_ms()).unwrap_or(i64::MAX);
    // Conditions count whole seconds.
    Timestamp::from_second(ms / 1000).unwrap_or(Timestamp::UNIX_EPOCH)
}
