//! What people are told of a cluster: its status, made from what was observed. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_api::cluster::{BasaltClusterStatus, FailoverStatus, Recovery};
use basalt_api::role_file::RoleName;
use basalt_api::{Problem, Timers, Timespan, ValidatedCluster, ValidatedStorage};
use basalt_cluster::pb;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::observe::{Member, Observed};
use super::rollout::Step;
use crate::names;

/// How many recoveries a status keeps.
const RECOVERIES_MAX: usize = 10;

/// What a status is made from.
pub(super) struct Facts<'a> {
    /// The name of the cluster.
    pub(super) name: &'a str,
    pub(super) observed: &'a Observed,
    pub(super) generation: Option<i64>,
    pub(super) before: &'a BasaltClusterStatus,
    pub(super) now: Timestamp,
}

/// One condition, before it is known since when it holds.
struct Finding {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

/// The status of a cluster that runs as it is written, or is on its way there.
pub(super) fn of_running(
    facts: &Facts<'_>,
    cluster: &ValidatedCluster,
    step: &Step,
) -> BasaltClusterStatus {
    let observed = facts.observed;
    let declared = cluster.coordinators + cluster.masters + cluster.region_servers;
    let ready = observed.members.values().filter(|member| member.is_ready).count();
    let missing = missing(observed, cluster);
    let is_recovering = observed.recoveries.iter().any(|recovery| !recovery.done);
    let replacing = match step {
        Step::Done => None,
        Step::Wait { reason } => Some(reason.clone()),
        Step::Replace { pod, .. } => Some(format!("{pod} is being replaced")),
    };
    let was_available = is_true(facts.before, "Available");
    let available = missing.is_none();
    let all_ready = ready == declared as usize && observed.members.len() == declared as usize;
    // From the change of the manifest until all is as it says.
    let is_new = facts.before.observed_generation != facts.generation
        || facts.before.phase.as_deref() == Some("Updating");
    let is_rolling =
        observed.members.values().any(|member| !member.is_current) || (is_new && !all_ready);
    let apart = placement(observed);
    let degraded = missing.clone().filter(|_| was_available).or_else(|| {
        (!all_ready && !is_rolling && was_available)
            .then(|| format!("{ready} of {declared} members are ready"))
    });
    let phase = if is_recovering {
        "Recovering"
    } else if available && all_ready && step == &Step::Done {
        "Ready"
    } else if is_rolling && available {
        "Updating"
    } else if was_available {
        "Degraded"
    } else {
        "Starting"
    };
    let findings = [
        Finding {
            kind: "Available",
            holds: available,
            reason: if available { "Serving" } else { "MembersMissing" },
            message: missing.unwrap_or_else(|| "regions can be read and written".to_owned()),
        },
        Finding {
            kind: "Ready",
            holds: available && all_ready && step == &Step::Done,
            reason: if all_ready { "AllMembersReady" } else { "MembersNotReady" },
            message: format!("{ready} of {declared} members are ready"),
        },
        Finding {
            kind: "Progressing",
            holds: replacing.is_some(),
            reason: if replacing.is_some() { "Replacing" } else { "AsWritten" },
            message: replacing.unwrap_or_else(|| "every pod is as it is written".to_owned()),
        },
        Finding {
            kind: "Degraded",
            holds: degraded.is_some(),
            reason: if degraded.is_some() { "MembersMissing" } else { "AsDeclared" },
            message: degraded.unwrap_or_else(|| "nothing is missing".to_owned()),
        },
        apart,
        storage_tuned(observed, cluster),
    ];
    BasaltClusterStatus {
        phase: Some(phase.to_owned()),
        observed_generation: facts.generation,
        conditions: conditions(facts, findings),
        ready_members: Some(format!("{ready}/{declared}")),
        active_master: observed.active_master().map(str::to_owned),
        ..told(facts, Some(&cluster.timers))
    }
}

/// The status of a cluster that cannot be run as it is written. What runs of it is left alone.
pub(super) fn of_invalid(facts: &Facts<'_>, problems: &[Problem]) -> BasaltClusterStatus {
    let lines: Vec<String> =
        problems.iter().map(|problem| format!("{}: {}", problem.field, problem.reason)).collect();
    let finding =
        |kind, holds| Finding { kind, holds, reason: "Invalid", message: lines.join("; ") };
    let mut findings = vec![finding("Ready", false), finding("Degraded", true)];
    findings.push(finding("Progressing", false));
    if !still_serves(facts) {
        findings.push(finding("Available", false));
    }
    BasaltClusterStatus {
        phase: Some("Invalid".to_owned()),
        conditions: conditions(facts, findings),
        ..told(facts, None)
    }
}

/// The status of a cluster that is left as it is.
pub(super) fn of_paused(facts: &Facts<'_>) -> BasaltClusterStatus {
    let finding = Finding {
        kind: "Progressing",
        holds: false,
        reason: "Paused",
        message: "spec.paused is true: nothing is changed".to_owned(),
    };
    BasaltClusterStatus {
        phase: Some("Paused".to_owned()),
        conditions: conditions(facts, [finding]),
        ..told(facts, None)
    }
}

/// Whether what runs of a cluster serves, whatever is written now.
fn still_serves(facts: &Facts<'_>) -> bool {
    facts.observed.active_master().is_some()
        && facts.observed.of_role(RoleName::RegionServer).any(|(_, member)| member.is_ready)
}

/// What keeps the cluster from serving.
fn missing(observed: &Observed, cluster: &ValidatedCluster) -> Option<String> {
    let serving = observed.of_role(RoleName::Coordinator).filter(|(_, m)| m.serves).count();
    let quorum = cluster.coordinators as usize / 2 + 1;
    if !observed.has_storage {
        Some(match &cluster.storage {
            ValidatedStorage::Claim(claim) => format!(
                "spec.storage.shared.claim: there is no PersistentVolumeClaim {claim} in this \
                 namespace; make one that is ReadWriteMany"
            ),
            ValidatedStorage::Hdfs(hdfs) => format!(
                "spec.storage.hdfs.configMap: there is no ConfigMap {} in this namespace; make one \
                 that holds core-site.xml and hdfs-site.xml",
                hdfs.config_map
            ),
        })
    } else if serving < quorum {
        Some(format!("{serving} members of the coordinator serve; {quorum} are needed"))
    } else if observed.active_master().is_none() {
        Some("no master is active".to_owned())
    } else if !observed.of_role(RoleName::RegionServer).any(|(_, member)| member.is_ready) {
        Some("no region server is ready".to_owned())
    } else {
        None
    }
}

/// Whether the settings of the storage are what the promise needs.
fn storage_tuned(observed: &Observed, cluster: &ValidatedCluster) -> Finding {
    let finding = |holds, reason, message| Finding { kind: "StorageTuned", holds, reason, message };
    match (&cluster.storage, &observed.storage_deviations) {
        (ValidatedStorage::Claim(_), _) => {
            finding(true, "SharedVolume", "a shared volume has no timers of its own".to_owned())
        }
        (ValidatedStorage::Hdfs(_), None) => {
            let message = "the active master has not read the settings of HDFS yet".to_owned();
            finding(false, "Unknown", message)
        }
        (ValidatedStorage::Hdfs(_), Some(deviations)) if deviations.is_empty() => {
            finding(true, "AsNeeded", "HDFS has the settings that the promise needs".to_owned())
        }
        (ValidatedStorage::Hdfs(_), Some(deviations)) => {
            let message = format!(
                "{}. The ConfigMap {}-hdfs has all settings that the promise needs",
                deviations.join("; "),
                cluster.name
            );
            finding(false, "SettingsDeviate", message)
        }
    }
}

/// Whether no node and no rack holds so many pods of a role that losing it would lose the role.
fn placement(observed: &Observed) -> Finding {
    let finding = |holds, reason, message| Finding { kind: "Apart", holds, reason, message };
    if let Some(message) = together(observed, "node", |member| member.node.as_deref()) {
        return finding(false, "NodeShared", message);
    }
    let on_nodes = |member: &&Member| member.node.is_some();
    let unknown = observed.members.values().filter(on_nodes).find(|member| member.rack.is_none());
    if let Some(Member { node: Some(node), .. }) = unknown {
        let message = format!(
            "the rack of node {node} is unknown: it lacks the label of spec.placement.rackLabel, or \
             the operator may not read nodes, as where it watches one namespace only"
        );
        return finding(false, "RacksUnknown", message);
    }
    match together(observed, "rack", |member| member.rack.as_deref()) {
        Some(message) => finding(false, "RackShared", message),
        None => finding(true, "Apart", "no node and no rack holds too many of a role".to_owned()),
    }
}

/// Which members share a place although losing it would lose too many of them: half of the
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
                "{} stand on {kind} {place}: with it {bound} of the pods of role {role} would be lost",
                names.join(" and ")
            ));
        }
    }
    None
}

/// What is told of a cluster in whatever state.
fn told(facts: &Facts<'_>, timers: Option<&Timers>) -> BasaltClusterStatus {
    let mut recoveries: Vec<&pb::RecoveryRecord> = facts.observed.recoveries.iter().collect();
    recoveries.sort_by_key(|recovery| std::cmp::Reverse(recovery.learnt_ms));
    let recoveries: Vec<Recovery> =
        recoveries.into_iter().filter(|r| r.done).take(RECOVERIES_MAX).map(recovery).collect();
    let before = facts.before;
    // While no master answers, what the last one told stays.
    let knows = facts.observed.active_master().is_some();
    let recoveries = if knows { recoveries } else { before.recoveries.clone() };
    let ready = facts.observed.members.values().filter(|member| member.is_ready).count();
    let all = facts.observed.members.len();
    let region_servers = facts.observed.of_role(RoleName::RegionServer).count();
    let selector = names::role_labels(facts.name, RoleName::RegionServer);
    let selector: Vec<_> = selector.iter().map(|(name, value)| format!("{name}={value}")).collect();
    BasaltClusterStatus {
        region_servers: u32::try_from(region_servers).ok(),
        region_server_selector: Some(selector.join(",")),
        observed_generation: facts.generation,
        ready_members: Some(format!("{ready}/{all}")),
        active_master: facts.observed.active_master().map(str::to_owned),
        last_recovery: recoveries.first().map(|r| in_words(Duration::from_millis(r.total_ms))),
        recoveries,
        failover: timers.map(failover).or_else(|| before.failover.clone()),
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

/// The findings as conditions. One that says what it said before holds since then; one that is not
/// found now stays as it was.
fn conditions(facts: &Facts<'_>, findings: impl IntoIterator<Item = Finding>) -> Vec<Condition> {
    let mut conditions = facts.before.conditions.clone();
    for finding in findings {
        let status = if finding.holds { "True" } else { "False" };
        let before = conditions.iter().position(|condition| condition.type_ == finding.kind);
        let unchanged = before.and_then(|at| conditions.get(at)).filter(|c| c.status == status);
        let since =
            unchanged.map_or(Time(facts.now), |condition| condition.last_transition_time.clone());
        let condition = Condition {
            type_: finding.kind.to_owned(),
            status: status.to_owned(),
            reason: finding.reason.to_owned(),
            message: finding.message,
            observed_generation: facts.generation,
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
mod tests {
    use super::*;

    fn validated() -> ValidatedCluster {
        let text = include_str!("../../../examples/cluster.yaml");
        let manifests = basalt_api::Manifests::from_yaml("m", text).unwrap();
        basalt_api::validate(&manifests.clusters[0], &[]).unwrap()
    }

    fn observed() -> Observed {
        let mut observed = Observed { has_storage: true, ..Observed::default() };
        for (role, count) in
            [(RoleName::Coordinator, 3), (RoleName::Master, 2), (RoleName::RegionServer, 3)]
        {
            for index in 0..count {
                let member = Member {
                    role: Some(role),
                    node: Some(format!("n{index}")),
                    rack: Some(format!("z{index}")),
                    is_ready: true,
                    is_current: true,
                    serves: true,
                    leads: role == RoleName::Master && index == 0,
                    ..Member::default()
                };
                observed.members.insert(names::pod("demo", role, index), member);
            }
        }
        observed
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn status_of(
        observed: &Observed,
        before: &BasaltClusterStatus,
        now: i64,
    ) -> BasaltClusterStatus {
        let facts = Facts { name: "demo", observed, generation: Some(7), before, now: at(now) };
        of_running(&facts, &validated(), &Step::Done)
    }

    fn condition<'a>(status: &'a BasaltClusterStatus, kind: &str) -> &'a Condition {
        status.conditions.iter().find(|condition| condition.type_ == kind).unwrap()
    }

    #[test]
    fn a_cluster_that_has_everything_is_ready() {
        let status = status_of(&observed(), &BasaltClusterStatus::default(), 1);
        assert_eq!(status.phase.as_deref(), Some("Ready"));
        assert_eq!(status.ready_members.as_deref(), Some("8/8"));
        assert_eq!(status.active_master.as_deref(), Some("demo-master-0"));
        assert_eq!(status.observed_generation, Some(7));
        assert_eq!(status.region_servers, Some(3));
        let selector = status.region_server_selector.as_deref().unwrap();
        assert!(selector.contains("app.kubernetes.io/component=regionserver"), "{selector}");
        for (kind, holds) in [("Available", "True"), ("Ready", "True"), ("Degraded", "False")] {
            assert_eq!(condition(&status, kind).status, holds, "{kind}");
        }
        let failover = status.failover.unwrap();
        assert_eq!(
            (failover.target.as_str(), failover.timers["servingLease"].as_str()),
            ("3s", "750ms")
        );
    }

    #[test]
    fn a_condition_holds_since_it_changed_and_a_missing_master_is_named() {
        let first = status_of(&observed(), &BasaltClusterStatus::default(), 1);
        let again = status_of(&observed(), &first, 5);
        assert_eq!(condition(&again, "Available").last_transition_time.0, at(1));
        let mut headless = observed();
        headless.members.get_mut("demo-master-0").unwrap().leads = false;
        let lost = status_of(&headless, &again, 9);
        assert_eq!(lost.phase.as_deref(), Some("Degraded"));
        assert_eq!(condition(&lost, "Available").last_transition_time.0, at(9));
        assert!(condition(&lost, "Available").message.contains("no master is active"));
    }

    #[test]
    fn a_missing_claim_is_named_with_the_field() {
        let observed = Observed { has_storage: false, ..observed() };
        let status = status_of(&observed, &BasaltClusterStatus::default(), 1);
        let message = &condition(&status, "Available").message;
        assert!(message.contains("spec.storage.shared.claim") && message.contains("demo-data"));
    }

    #[test]
    fn settings_of_hdfs_that_the_promise_needs_otherwise_are_named() {
        let text = include_str!("../../../examples/hdfs.yaml");
        let manifests = basalt_api::Manifests::from_yaml("m", text).unwrap();
        let cluster = basalt_api::validate(&manifests.clusters[0], &[]).unwrap();
        let of = |deviations: Option<Vec<String>>| {
            let observed = Observed { storage_deviations: deviations, ..observed() };
            let Finding { holds, reason, message, .. } = storage_tuned(&observed, &cluster);
            (holds, reason, message)
        };
        assert_eq!((of(None).0, of(None).1), (false, "Unknown"));
        assert!(of(Some(Vec::new())).0);
        let (holds, _, message) = of(Some(vec!["a is 3, should be 1: slow".to_owned()]));
        assert!(!holds && message.contains("a is 3") && message.contains("demo-hdfs"));
    }

    #[test]
    fn members_that_stand_together_are_named() {
        let apart = |change: fn(&mut Observed)| {
            let mut observed = observed();
            change(&mut observed);
            let status = status_of(&observed, &BasaltClusterStatus::default(), 1);
            let Condition { status, reason, message, .. } = condition(&status, "Apart").clone();
            (status, reason, message)
        };
        assert_eq!(apart(|_| {}).0, "True");
        let (status, reason, message) = apart(|observed| {
            observed.members.get_mut("demo-coordinator-2").unwrap().node = Some("n0".to_owned());
        });
        assert_eq!((status.as_str(), reason.as_str()), ("False", "NodeShared"));
        assert!(message.starts_with("demo-coordinator-0 and demo-coordinator-2 stand on node n0"));
        let (_, reason, message) = apart(|observed| {
            let masters =
                observed.members.values_mut().filter(|m| m.role == Some(RoleName::Master));
            masters.for_each(|member| member.rack = Some("z7".to_owned()));
        });
        assert_eq!(reason, "RackShared");
        assert!(message.contains("rack z7: with it all of the pods of role master"), "{message}");
        let (_, reason, message) = apart(|observed| {
            observed.members.get_mut("demo-regionserver-1").unwrap().rack = None;
        });
        assert_eq!(reason, "RacksUnknown");
        assert!(message.contains("node n1") && message.contains("spec.placement.rackLabel"));
    }

    #[test]
    fn a_cluster_that_is_being_scaled_is_updating_and_one_that_has_lost_a_pod_degraded() {
        let ready = status_of(&observed(), &BasaltClusterStatus::default(), 1);
        let mut short = observed();
        short.members.remove("demo-regionserver-2");
        let lost = status_of(&short, &ready, 2);
        assert_eq!(lost.phase.as_deref(), Some("Degraded"));
        let older = BasaltClusterStatus { observed_generation: Some(6), ..ready };
        let scaling = status_of(&short, &older, 2);
        assert_eq!(scaling.phase.as_deref(), Some("Updating"));
        assert_eq!(condition(&scaling, "Degraded").status, "False");
        assert_eq!(status_of(&short, &scaling, 3).phase.as_deref(), Some("Updating"));
        assert_eq!(status_of(&observed(), &scaling, 4).phase.as_deref(), Some("Ready"));
    }

    #[test]
    fn an_invalid_manifest_says_what_is_wrong_and_leaves_available_alone() {
        let before = status_of(&observed(), &BasaltClusterStatus::default(), 1);
        let observed = observed();
        let facts = Facts {
            name: "demo",
            observed: &observed,
            generation: Some(8),
            before: &before,
            now: at(2),
        };
        let problem = Problem {
            resource: "BasaltCluster demo".to_owned(),
            field: "spec.failover".to_owned(),
            reason: "too short".to_owned(),
        };
        let status = of_invalid(&facts, &[problem]);
        assert_eq!(status.phase.as_deref(), Some("Invalid"));
        assert_eq!(condition(&status, "Available").status, "True");
        assert!(condition(&status, "Degraded").message.contains("spec.failover: too short"));
    }

    #[test]
    fn the_newest_recoveries_come_first_and_stay_while_no_master_answers() {
        let mut observed = observed();
        observed.recoveries = (1..=12)
            .map(|n| pb::RecoveryRecord {
                learnt_ms: n * 1000,
                total_ms: n,
                done: true,
                ..Default::default()
            })
            .collect();
        let status = status_of(&observed, &BasaltClusterStatus::default(), 1);
        assert_eq!(status.last_recovery.as_deref(), Some("12ms"));
        assert_eq!(status.recoveries.len(), RECOVERIES_MAX);
        assert_eq!(status.recoveries[0].at, "1970-01-01T00:00:12Z");
        observed.recoveries.clear();
        observed.members.get_mut("demo-master-0").unwrap().leads = false;
        assert_eq!(status_of(&observed, &status, 2).recoveries, status.recoveries);
    }
}
