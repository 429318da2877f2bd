//! One round of reconciling a cluster: observe, validate, build, apply, roll, report.

use std::sync::Arc;
use std::time::Duration;

use basalt_api::cluster::BasaltClusterStatus;
use basalt_api::{BasaltCluster, ValidatedCluster};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{Event as Finalizer, finalizer};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio::time::timeout;

use super::apply::ApplyOutcome;
use super::build::{self, Plan};
use super::clean_up::clean_up;
use super::observe::{Observed, observe};
use super::rollout::RolloutStep;
use super::status::StatusInput;
use super::unreadable::Unreadable;
use super::{apply, drain, events, lost_nodes, replace, rollout, status, unreadable, validate};
use crate::context::{Context, WatchedCluster, count_round};
use crate::error::{Error, ResultExt};
use crate::names::{FIELD_MANAGER, FINALIZER};

/// The pause before the next round of a cluster that is being changed.
const SOON: Duration = Duration::from_secs(1);
/// The pause before the next round of a cluster without events.
const LATER: Duration = Duration::from_secs(30);
/// The pause before the next round of a cluster whose objects belong to others.
const AFTER_CONFLICT: Duration = Duration::from_secs(5);
/// The timeout of one round: an API server that does not answer must not block it forever.
const ROUND_MAX: Duration = Duration::from_mins(1);
/// The pause after an error.
const AFTER_ERROR: Duration = Duration::from_secs(3);

/// Brings a cluster one round closer to its desired state.
///
/// # Errors
/// The API server rejected a request or did not answer. The next round tries again.
pub(crate) async fn reconcile(
    seen: Arc<WatchedCluster>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let result = match timeout(ROUND_MAX, round(&seen, &context)).await {
        Ok(result) => result,
        Err(_) => Err(Error::TooSlow(ROUND_MAX)),
    };
    count_round(&context.clusters, result.is_ok());
    result
}

/// Handles a failed round.
pub(crate) fn on_error(cluster: Arc<WatchedCluster>, error: &Error, _: Arc<Context>) -> Action {
    tracing::warn!(cluster = cluster.name_any(), %error, "reconciling failed");
    Action::requeue(AFTER_ERROR)
}

async fn round(seen: &WatchedCluster, context: &Context) -> Result<Action, Error> {
    let (namespace, name) = (seen.namespace().unwrap_or_default(), seen.name_any());
    // The watch may lag behind, so the decision uses the current state.
    let api: Api<WatchedCluster> = Api::namespaced(context.client.clone(), &namespace);
    let found = api.get_opt(&name).await.asked(|| format!("reading cluster {name}"))?;
    let Some(DeserializeGuard(found)) = found else { return Ok(Action::await_change()) };
    let cluster = match found {
        Ok(cluster) => Arc::new(cluster),
        Err(invalid) => return round_of_unreadable(&invalid, context).await,
    };
    let is_new = !cluster.finalizers().iter().any(|known| known == FINALIZER);
    let api: Api<BasaltCluster> = Api::namespaced(context.client.clone(), &namespace);
    let round = finalizer(&api, FINALIZER, cluster, |event| async {
        match event {
            Finalizer::Apply(cluster) => round_of(&cluster, context).await,
            Finalizer::Cleanup(cluster) => clean_up(&cluster, context).await,
        }
    });
    let action = round.await.map_err(|error| match error {
        kube::runtime::finalizer::Error::ApplyFailed(error)
        | kube::runtime::finalizer::Error::CleanupFailed(error) => error,
        other => Error::Finalizer { reason: other.to_string() },
    })?;
    // Setting the finalizer was the only change. The watch that would report it may lag behind.
    Ok(if is_new { Action::requeue(SOON) } else { action })
}

async fn round_of(cluster: &BasaltCluster, context: &Context) -> Result<Action, Error> {
    let observed = observe(context, cluster).await?;
    let before = cluster.status.clone().unwrap_or_default();
    let input = StatusInput { cluster, observed: &observed, before: &before, now: now(context) };
    if cluster.spec.paused {
        return report(&input, context, status::of_paused(&input), None).await;
    }
    let validated = match validate::validate(cluster, &observed) {
        Ok(validated) => validated,
        Err(problems) => {
            return report(&input, context, status::of_invalid(&input, &problems), None).await;
        }
    };
    let (step, failed) = match act(cluster, context, &validated, &observed).await {
        Ok(step) => (step, None),
        Err(error) => {
            // It is unknown which objects were written, so all are read again.
            context.applied.forget(&cluster.uid().unwrap_or_default());
            (RolloutStep::Failed { reason: error.to_string() }, Some(error))
        }
    };
    let pause = match &step {
        RolloutStep::Refused { pause, .. } => Some(*pause),
        RolloutStep::Conflict { .. } => Some(AFTER_CONFLICT),
        _ => None,
    };
    let action =
        report(&input, context, status::running_status(&input, &validated, &step), pause).await?;
    failed.map_or(Ok(action), Err)
}

/// Observes and reports on a cluster that cannot be read, but changes nothing. When it is deleted,
/// the readable part of its deletion policy applies.
async fn round_of_unreadable(invalid: &InvalidObject, context: &Context) -> Result<Action, Error> {
    let Unreadable { cluster, problem } = unreadable::read(invalid, context).await?;
    if cluster.metadata.deletion_timestamp.is_some() {
        let action = clean_up(&cluster, context).await?;
        remove_finalizer(&cluster, context).await?;
        return Ok(action);
    }
    tracing::warn!(
        cluster = cluster.name_any(),
        field = problem.field,
        reason = problem.reason,
        "a BasaltCluster cannot be read: it is left unchanged"
    );
    let observed = observe(context, &cluster).await?;
    let before = cluster.status.clone().unwrap_or_default();
    let input =
        StatusInput { cluster: &cluster, observed: &observed, before: &before, now: now(context) };
    report(&input, context, status::of_invalid(&input, &[problem]), None).await
}

/// Removes the finalizer of a cluster that cannot be read.
async fn remove_finalizer(cluster: &BasaltCluster, context: &Context) -> Result<(), Error> {
    let others = cluster.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER);
    let others: Vec<&String> = others.collect();
    if others.len() == cluster.finalizers().len() {
        return Ok(());
    }
    let namespace = cluster.namespace().unwrap_or_default();
    let api: Api<WatchedCluster> = Api::namespaced(context.client.clone(), &namespace);
    let name = cluster.name_any();
    let patch = json!({ "metadata": {
        "finalizers": others,
        "resourceVersion": cluster.metadata.resource_version,
    }});
    let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.asked(|| format!("removing the finalizer of {name}")).map(drop)
}

/// Applies all objects, and replaces one pod if one may be replaced.
async fn act(
    cluster: &BasaltCluster,
    context: &Context,
    validated: &ValidatedCluster,
    observed: &Observed,
) -> Result<RolloutStep, Error> {
    let namespace = cluster.namespace().unwrap_or_default();
    let uid = cluster.uid().unwrap_or_default();
    let declared = validated.region_servers;
    let regions = drain::report(&context.seams.network, observed, declared).await;
    let for_now = drain::for_now(observed, declared, regions.as_ref());
    let running = ValidatedCluster { region_servers: for_now.region_servers, ..validated.clone() };
    let plan = Plan {
        cluster: &running,
        namespace: &namespace,
        uid: &uid,
        default_tag: &context.default_tag,
        coordinator_addresses: &observed.coordinator_addresses,
    };
    if let Some(step) = write(context, &plan, observed).await? {
        return Ok(step);
    }
    for (pod, uid) in lost_nodes::deletable(observed) {
        replace::delete_by_force(&context.client, &namespace, &pod, &uid).await?;
        tracing::info!(pod, "deleted a pod on a lost node");
        context.publish(&events::taken_away(&pod), &cluster.object_ref(&())).await;
    }
    if let Some(reason) = for_now.waits_for {
        return Ok(RolloutStep::Wait { reason });
    }
    let step = rollout::next(observed, &running);
    let RolloutStep::Replace { pod, uid: pod_uid } = &step else { return Ok(step) };
    let step = replace::replace(context, &namespace, &uid, pod, pod_uid).await?;
    if let RolloutStep::Replace { pod, .. } = &step {
        tracing::info!(pod, "replacing");
        context.publish(&events::replacing(pod), &cluster.object_ref(&())).await;
    }
    Ok(step)
}

/// Writes every object that differs from the last written version. Returns the reason to wait, if
/// there is one.
async fn write(
    context: &Context,
    plan: &Plan<'_>,
    observed: &Observed,
) -> Result<Option<RolloutStep>, Error> {
    let services = build::services(plan);
    let have_addresses = observed.coordinator_addresses.len() == plan.cluster.coordinators as usize;
    // Services come first, because the other objects contain their addresses.
    let objects = if have_addresses { [services, build::objects(plan)].concat() } else { services };
    let fingerprint = build::fingerprint(&objects);
    if observed.is_settled && context.applied.is_fresh(plan.uid, &fingerprint) {
        return Ok(None);
    }
    let known = context.applied.uids(plan.uid);
    let applied = apply::apply(&context.client, plan.namespace, plan.uid, &objects, known).await?;
    let (is_seen, versions) = match applied {
        ApplyOutcome::Written { is_seen, versions } => (is_seen, versions),
        ApplyOutcome::Conflicts(conflicts) => {
            return Ok(Some(RolloutStep::Conflict { reason: conflicts.join("; ") }));
        }
    };
    if !have_addresses {
        return Ok(Some(RolloutStep::Wait { reason: "Services have no addresses yet".to_owned() }));
    }
    if !plan.cluster.spec.metrics.pod_monitor {
        let name = &plan.cluster.name;
        apply::delete_pod_monitor(&context.client, plan.namespace, plan.uid, name).await?;
    }
    context.applied.note(plan.uid, fingerprint, versions);
    let reason = "the StatefulSet controller has not seen the latest change yet".to_owned();
    Ok((!is_seen).then_some(RolloutStep::Wait { reason }))
}

/// Writes the status if it has changed, and publishes Events. The next round follows after `pause`,
/// or earlier if the phase requires it.
async fn report(
    input: &StatusInput<'_>,
    context: &Context,
    after: BasaltClusterStatus,
    pause: Option<Duration>,
) -> Result<Action, Error> {
    let StatusInput { cluster, before, .. } = input;
    let settled = matches!(after.phase.as_deref(), Some("Ready" | "Paused" | "Invalid"));
    if **before != after {
        for event in events::between(before, &after) {
            context.publish(&event, &cluster.object_ref(&())).await;
        }
        let namespace = cluster.namespace().unwrap_or_default();
        let api: Api<WatchedCluster> = Api::namespaced(context.client.clone(), &namespace);
        let name = cluster.name_any();
        let patch = json!({
            "apiVersion": BasaltCluster::api_version(&()),
            "kind": BasaltCluster::kind(&()),
            // Not the status of another cluster that has replaced this one.
            "metadata": { "uid": cluster.metadata.uid },
            "status": after,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patched = api.patch_status(&name, &params, &Patch::Apply(&patch)).await;
        patched.asked(|| format!("writing the status of {name}"))?;
    }
    Ok(Action::requeue(pause.unwrap_or(if settled { LATER } else { SOON })))
}

fn now(context: &Context) -> Timestamp {
    let ms = i64::try_from(context.seams.clock.wall_ms()).unwrap_or(i64::MAX);
    // Conditions have a resolution of one second.
    Timestamp::from_second(ms / 1000).unwrap_or(Timestamp::UNIX_EPOCH)
}
