//! The status of a cluster, computed from what was observed. Pure. Every condition is computed
//! again in every phase, even if nothing is changed.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_api::cluster::{
    BasaltClusterStatus, DataClaim, FailoverStatus, HdfsStorage, Recovery, SharedStorage, Storage,
};
use basalt_api::role_file::RoleName;
use basalt_api::{BasaltCluster, Problem, Timers, Timespan, ValidatedCluster};
use basalt_cluster::pb;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::observe::{Member, Observed};
use super::rollout::RolloutStep;
use crate::names;

/// The maximum number of recoveries in a status.
const RECOVERIES_MAX: usize = 10;

/// The reason of `Available` for a cluster that has never served. A cluster that has served and is
/// down has a different reason.
const NEVER_SERVED: &str = "NeverServed";

/// The input for a status.
pub(super) struct StatusInput<'a> {
    pub(super) cluster: &'a BasaltCluster,
    pub(super) observed: &'a Observed,
    pub(super) before: &'a BasaltClusterStatus,
    pub(super) now: Timestamp,
}

/// One condition, before it is known since when it holds.
struct Finding {
    kind: &'static str,
    /// Whether it holds, if that is known.
    holds: Option<bool>,
    reason: &'static str,
    message: String,
}

/// The state of a cluster, independent of what is done about it.
struct Health {
    /// The number of declared members, and the number of ready ones.
    declared: usize,
    ready: usize,
    /// Whether every member exists and is ready.
    all_ready: bool,
    /// Why the cluster does not serve.
    missing: Option<String>,
    /// The missing storage of a cluster that serves but could not start again.
    storage_gone: Option<String>,
    /// Whether it serves or has served.
    has_served: bool,
}

/// The status of a cluster that is in its desired state, or is being brought into it.
pub(super) fn running_status(
    input: &StatusInput<'_>,
    cluster: &ValidatedCluster,
    step: &RolloutStep,
) -> BasaltClusterStatus {
    let observed = input.observed;
    let health = Health::of(input, names::ROLES.map(|role| cluster.replicas(role)));
    let is_available = health.missing.is_none();
    let is_recovering = observed.recoveries.iter().any(|recovery| !recovery.done);
    // From the change of the manifest until the desired state is reached.
    let is_new = input.before.observed_generation != input.cluster.metadata.generation
        || input.before.phase.as_deref() == Some("Updating");
    let is_rolling =
        observed.members.values().any(|member| !member.is_current) || (is_new && !health.all_ready);
    let failed = match step {
        RolloutStep::Failed { reason } => Some(reason.clone()),
        _ => None,
    };
    let degraded = health.degraded(is_rolling).or_else(|| failed.filter(|_| health.has_served));
    let is_ready = is_available && health.all_ready && step == &RolloutStep::Done;
    let phase = if matches!(step, RolloutStep::Conflict { .. }) {
        "Conflict"
    } else if is_recovering {
        "Recovering"
    } else if is_ready {
        "Ready"
    } else if degraded.is_some() {
        "Degraded"
    } else if is_available {
        "Updating"
    } else {
        "Starting"
    };
    let findings = [
        health.available(),
        Finding {
            kind: "Ready",
            holds: Some(is_ready),
            reason: if health.all_ready { "AllMembersReady" } else { "MembersNotReady" },
            message: health.ready_members(),
        },
        progressing(step),
        health.degraded_finding(degraded),
        conflict(step),
        placement(observed),
        storage_tuned(input),
    ];
    BasaltClusterStatus {
        phase: Some(phase.to_owned()),
        conditions: conditions(input, findings),
        failover: Some(failover(&cluster.timers)),
        data_claim: data_claim(input),
        ..always(input, &health)
    }
}

/// The status of a cluster that cannot be run as it is declared. Its running processes are left
/// alone.
pub(super) fn of_invalid(input: &StatusInput<'_>, problems: &[Problem]) -> BasaltClusterStatus {
    let health = Health::of(input, running(input));
    let lines: Vec<String> =
        problems.iter().map(|problem| format!("{}: {}", problem.field, problem.reason)).collect();
    let problems = lines.join("; ");
    let finding = |kind, holds, message: String| Finding {
        kind,
        holds: Some(holds),
        reason: "Invalid",
        message,
    };
    let degraded = match health.degraded(false) {
        Some(degraded) => format!("{problems}; {degraded}"),
        None => problems.clone(),
    };
    let findings = [
        health.available(),
        finding("Ready", false, problems.clone()),
        finding("Degraded", true, degraded),
        finding("Progressing", false, problems),
        not_looked_for("Invalid"),
        placement(input.observed),
        storage_tuned(input),
    ];
    BasaltClusterStatus {
        phase: Some("Invalid".to_owned()),
        conditions: conditions(input, findings),
        ..always(input, &health)
    }
}

/// The status of a paused cluster.
pub(super) fn of_paused(input: &StatusInput<'_>) -> BasaltClusterStatus {
    let health = Health::of(input, running(input));
    let degraded = health.degraded(false);
    let findings = [
        health.available(),
        Finding {
            kind: "Ready",
            holds: Some(health.missing.is_none() && health.all_ready),
            reason: if health.all_ready { "AllMembersReady" } else { "MembersNotReady" },
            message: health.ready_members(),
        },
        Finding {
            kind: "Progressing",
            holds: Some(false),
            reason: "Paused",
            message: "spec.paused is true: nothing is changed".to_owned(),
        },
        health.degraded_finding(degraded),
        not_looked_for("Paused"),
        placement(input.observed),
        storage_tuned(input),
    ];
    BasaltClusterStatus {
        phase: Some("Paused".to_owned()),
        conditions: conditions(input, findings),
        ..always(input, &health)
    }
}

// === impl Health ===

impl Health {
    /// The health of a cluster that should have `declared` members of each role.
    fn of(input: &StatusInput<'_>, declared: [u32; 3]) -> Self {
        let StatusInput { observed, before, cluster, .. } = input;
        let [coordinators, masters, region_servers] = declared;
        let declared = (coordinators + masters + region_servers) as usize;
        let ready = observed.members.values().filter(|member| member.is_ready).count();
        let storage = missing_storage(observed, &cluster.spec.storage);
        let gap = gap(observed, coordinators as usize);
        let available = before.conditions.iter().find(|c| c.type_ == "Available");
        let had_served = available.is_some_and(|c| c.status == "True" || c.reason != NEVER_SERVED);
        Self {
            declared,
            ready,
            all_ready: ready == declared && observed.members.len() == declared,
            has_served: gap.is_none() || had_served,
            storage_gone: storage.clone().filter(|_| gap.is_none()),
            missing: gap.map(|gap| storage.unwrap_or(gap)),
        }
    }

    fn available(&self) -> Finding {
        let reason = match (&self.missing, self.has_served) {
            (None, _) => "Serving",
            (Some(_), true) => "MembersMissing",
            (Some(_), false) => NEVER_SERVED,
        };
        let message = self.missing.clone();
        Finding {
            kind: "Available",
            holds: Some(self.missing.is_none()),
            reason,
            message: message.unwrap_or_else(|| "regions can be read and written".to_owned()),
        }
    }

    fn ready_members(&self) -> String {
        format!("{} of {} members are ready", self.ready, self.declared)
    }

    /// What is worse than when the cluster served. `None` for a cluster that has not served yet.
    fn degraded(&self, is_rolling: bool) -> Option<String> {
        let members = (!self.all_ready && !is_rolling).then(|| self.ready_members());
        let what = [self.missing.clone(), self.storage_gone.clone(), members];
        let what: Vec<String> = what.into_iter().flatten().collect();
        (self.has_served && !what.is_empty()).then(|| what.join("; "))
    }

    fn degraded_finding(&self, degraded: Option<String>) -> Finding {
        let (reason, otherwise) = match (&degraded, self.has_served) {
            (Some(_), _) => ("MembersMissing", String::new()),
            (None, true) => ("AsDeclared", "nothing is missing".to_owned()),
            (None, false) => {
                ("Starting", format!("the cluster has not served yet; {}", self.ready_members()))
            }
        };
        let holds = Some(degraded.is_some());
        Finding { kind: "Degraded", holds, reason, message: degraded.unwrap_or(otherwise) }
    }
}

/// The number of members of each role, from the StatefulSets.
fn running(input: &StatusInput<'_>) -> [u32; 3] {
    names::ROLES.map(|role| input.observed.replicas(role).unwrap_or(0))
}

/// Why the processes of a cluster do not serve.
fn gap(observed: &Observed, coordinators: usize) -> Option<String> {
    let serving = observed.of_role(RoleName::Coordinator).filter(|(_, m)| m.serves).count();
    let quorum = coordinators / 2 + 1;
    if serving < quorum {
        Some(format!("{serving} members of the coordinator are serving; {quorum} are needed"))
    } else if observed.active_master().is_none() {
        Some("no master is active".to_owned())
    } else if !observed.of_role(RoleName::RegionServer).any(|(_, member)| member.is_ready) {
        Some("no region server is ready".to_owned())
    } else {
        None
    }
}

/// The missing object that the pods mount, if any.
fn missing_storage(observed: &Observed, storage: &Storage) -> Option<String> {
    if observed.storage_uid.is_some() {
        return None;
    }
    let claim = storage.shared.as_ref().map(|SharedStorage { claim }| {
        format!(
            "spec.storage.shared.claim: there is no PersistentVolumeClaim {claim} in this \
             namespace; create one that is ReadWriteMany"
        )
    });
    claim.or_else(|| {
        storage.hdfs.as_ref().map(|HdfsStorage { config_map, .. }| {
            format!(
                "spec.storage.hdfs.configMap: there is no ConfigMap {config_map} in this \
                 namespace; create one with core-site.xml and hdfs-site.xml"
            )
        })
    })
}

/// The change that is in progress.
fn progressing(step: &RolloutStep) -> Finding {
    let (holds, reason, message) = match step {
        RolloutStep::Done => (false, "UpToDate", "all pods are up to date".to_owned()),
        RolloutStep::Wait { reason } => (true, "Waiting", reason.clone()),
        RolloutStep::Replace { pod, .. } => (true, "Replacing", format!("{pod} is being replaced")),
        RolloutStep::Refused { reason, .. } => (true, "DisruptionBudget", reason.clone()),
        RolloutStep::Conflict { reason } => (false, "Conflict", reason.clone()),
        RolloutStep::Failed { reason } => (false, "Failed", reason.clone()),
    };
    Finding { kind: "Progressing", holds: Some(holds), reason, message }
}

/// Whether objects that the cluster needs belong to others.
fn conflict(step: &RolloutStep) -> Finding {
    let finding = |holds, reason, message| Finding { kind: "Conflict", holds, reason, message };
    match step {
        RolloutStep::Conflict { reason } => finding(Some(true), "NotOwned", reason.clone()),
        RolloutStep::Failed { .. } => not_looked_for("Failed"),
        _ => finding(Some(false), "AllOwned", "the cluster owns all its objects".to_owned()),
    }
}

fn not_looked_for(reason: &'static str) -> Finding {
    let message = "ownership of objects is not checked while nothing is written".to_owned();
    Finding { kind: "Conflict", holds: None, reason, message }
}

/// The claim that the cluster has used: the one with which its pods were first created.
fn data_claim(input: &StatusInput<'_>) -> Option<DataClaim> {
    let shared = input.cluster.spec.storage.shared.as_ref();
    let runs = !input.observed.replicas.is_empty();
    let used = shared.filter(|_| runs).zip(input.observed.storage_uid.as_ref());
    let used = used.map(|(shared, uid)| DataClaim { name: shared.claim.clone(), uid: uid.clone() });
    input.before.data_claim.clone().or(used)
}

/// Whether the settings of the storage fit the failover target.
fn storage_tuned(input: &StatusInput<'_>) -> Finding {
    let finding = |holds, reason, message| Finding {
        kind: "StorageTuned",
        holds: Some(holds),
        reason,
        message,
    };
    let is_hdfs = input.cluster.spec.storage.hdfs.is_some();
    match (is_hdfs, &input.observed.storage_deviations) {
        (false, _) => {
            finding(true, "SharedVolume", "a shared volume has no timers of its own".to_owned())
        }
        (true, None) => {
            let message = "the active master has not read the settings of HDFS yet".to_owned();
            finding(false, "Unknown", message)
        }
        (true, Some(deviations)) if deviations.is_empty() => {
            finding(true, "AsNeeded", "HDFS has the settings that the target needs".to_owned())
        }
        (true, Some(deviations)) => {
            let message = format!(
                "{}. The ConfigMap {}-hdfs has all settings that the target needs",
                deviations.join("; "),
                input.cluster.name_any()
            );
            finding(false, "SettingsDeviate", message)
        }
    }
}

/// Whether no node and no rack holds so many pods of a role that its loss would make the role
/// unavailable.
fn placement(observed: &Observed) -> Finding {
    let finding =
        |holds, reason, message| Finding { kind: "Apart", holds: Some(holds), reason, message };
    if let Some(message) = together(observed, "node", |member| member.node.as_deref()) {
        return finding(false, "NodeShared", message);
    }
    let on_nodes = |member: &&Member| member.node.is_some();
    let unknown = observed.members.values().filter(on_nodes).find(|member| member.rack.is_none());
    if let Some(Member { node: Some(node), .. }) = unknown {
        let message = format!(
            "the rack of node {node} is unknown: it lacks the label of spec.placement.rackLabel, \
             or the operator may not read nodes (as when it watches one namespace only)"
        );
        return finding(false, "RacksUnknown", message);
    }
    match together(observed, "rack", |member| member.rack.as_deref()) {
        Some(message) => finding(false, "RackShared", message),
        None => finding(true, "Apart", "no node or rack has too many pods of a role".to_owned()),
    }
}

/// The members that share a place although its loss would take too many of them: half of the
/// coordinator, or all of another role.
fn together<'a>(
    observed: &'a Observed,
    kind: &str,
    place_of: impl Fn(&'a Member) -> Option<&'a str>,
) -> Option<String> {
    for role in names::ROLES {
        let mut by_place: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let members: Vec<_> = observed.of_role(role).collect();
        for (name, member) in &members {
            if let Some(place) = place_of(member) {
                by_place.entry(place).or_default().push(name);
            }
        }
        let (bound, too_many) = match role {
            RoleName::Coordinator => ("half", members.len() / 2 + 1),
            _ => ("all", members.len()),
        };
        if let Some((place, names)) =
            by_place.iter().find(|(_, names)| names.len() >= too_many.max(2))
        {
            return Some(format!(
                "{} share {kind} {place}: losing it would lose {bound} of the pods of role {role}",
                names.join(" and ")
            ));
        }
    }
    None
}

/// The part of the status that is the same in every state of the cluster.
fn always(input: &StatusInput<'_>, health: &Health) -> BasaltClusterStatus {
    let mut recoveries: Vec<&pb::RecoveryRecord> = input.observed.recoveries.iter().collect();
    recoveries.sort_by_key(|recovery| std::cmp::Reverse(recovery.learnt_ms));
    let recoveries: Vec<Recovery> =
        recoveries.into_iter().filter(|r| r.done).take(RECOVERIES_MAX).map(recovery).collect();
    let before = input.before;
    // While no master answers, the last known recoveries stay.
    let knows = input.observed.active_master().is_some();
    let recoveries = if knows { recoveries } else { before.recoveries.clone() };
    let region_servers = input.observed.of_role(RoleName::RegionServer).count();
    let selector = names::role_labels(&input.cluster.name_any(), RoleName::RegionServer);
    let selector: Vec<_> = selector.iter().map(|(name, value)| format!("{name}={value}")).collect();
    BasaltClusterStatus {
        region_servers: u32::try_from(region_servers).ok(),
        region_server_selector: Some(selector.join(",")),
        observed_generation: input.cluster.metadata.generation,
        ready_members: Some(format!("{}/{}", health.ready, health.declared)),
        active_master: input.observed.active_master().map(str::to_owned),
        last_recovery: recoveries.first().map(|r| in_words(Duration::from_millis(r.total_ms))),
        recoveries,
        failover: before.failover.clone(),
        data_claim: before.data_claim.clone(),
        ..BasaltClusterStatus::default()
    }
}

fn recovery(record: &pb::RecoveryRecord) -> Recovery {
    let at = i64::try_from(record.learnt_ms).ok();
    let at = at.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    Recovery {
        server: record.server_name.clone(),
        at: at.map(|at| at.to_string()).unwrap_or_default(),
        cause: record.cause.clone(),
        regions: record.regions,
        wal_bytes: record.wal_bytes,
        detect_ms: record.detect_ms,
        fence_ms: record.fence_ms,
        split_ms: record.split_ms,
        assign_ms: record.assign_ms,
        replay_ms: record.replay_ms,
        total_ms: record.total_ms,
    }
}

fn failover(timers: &Timers) -> FailoverStatus {
    let worst = timers.worst_case();
    let named = |lengths: &[(&'static str, Duration)]| {
        lengths.iter().map(|(name, length)| ((*name).to_owned(), in_words(*length))).collect()
    };
    FailoverStatus {
        target: in_words(timers.target),
        worst_case: in_words(worst.total()),
        phases: named(&worst.phases()),
        timers: named(&timers.named()),
    }
}

fn in_words(length: Duration) -> String {
    Timespan::from(length).to_string()
}

/// The findings as conditions. A condition that has not changed keeps its transition time.
fn conditions(
    input: &StatusInput<'_>,
    findings: impl IntoIterator<Item = Finding>,
) -> Vec<Condition> {
    let mut conditions = input.before.conditions.clone();
    for finding in findings {
        let status = match finding.holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let before = conditions.iter().position(|condition| condition.type_ == finding.kind);
        let unchanged = before.and_then(|at| conditions.get(at)).filter(|c| c.status == status);
        let since =
            unchanged.map_or(Time(input.now), |condition| condition.last_transition_time.clone());
        let condition = Condition {
            type_: finding.kind.to_owned(),
            status: status.to_owned(),
            reason: finding.reason.to_owned(),
            message: finding.message,
            observed_generation: input.cluster.metadata.generation,
            last_transition_time: since,
        };
        match before.and_then(|at| conditions.get_mut(at)) {
            Some(place) => *place = condition,
            None => conditions.push(condition),
        }
    }
    conditions
}

/// Whether the condition `kind` holds.
pub(super) fn is_true(status: &BasaltClusterStatus, kind: &str) -> bool {
    status.conditions.iter().any(|c| c.type_ == kind && c.status == "True")
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
