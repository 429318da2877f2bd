//! Statuses of clusters in various observed states.

use super::*;

fn manifest(text: &str) -> BasaltCluster {
    let mut manifests = basalt_api::Manifests::from_yaml("m", text).unwrap();
    let mut cluster = manifests.clusters.remove(0);
    cluster.metadata.generation = Some(7);
    cluster
}

fn cluster() -> BasaltCluster {
    manifest(include_str!("../../../examples/cluster.yaml"))
}

fn validated() -> ValidatedCluster {
    basalt_api::validate(&cluster(), &[]).unwrap()
}

fn observed() -> Observed {
    let mut observed = Observed { storage_uid: Some("c1".to_owned()), ..Observed::default() };
    for (role, count) in
        [(RoleName::Coordinator, 3), (RoleName::Master, 2), (RoleName::RegionServer, 3)]
    {
        observed.replicas.insert(role, count);
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

fn status_of(observed: &Observed, before: &BasaltClusterStatus, now: i64) -> BasaltClusterStatus {
    let input = StatusInput { cluster: &cluster(), observed, before, now: at(now) };
    running_status(&input, &validated(), &RolloutStep::Done)
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
    let nothing = Observed::default();
    let status = status_of(&nothing, &BasaltClusterStatus::default(), 1);
    let message = &condition(&status, "Available").message;
    assert!(message.contains("spec.storage.shared.claim") && message.contains("demo-data"));
    // The running processes serve, although they could not start again.
    let observed = Observed { storage_uid: None, ..observed() };
    let status = status_of(&observed, &BasaltClusterStatus::default(), 1);
    assert_eq!(condition(&status, "Available").status, "True");
    let degraded = condition(&status, "Degraded");
    assert_eq!(degraded.status, "True");
    assert!(degraded.message.contains("spec.storage.shared.claim"));
}

#[test]
fn settings_of_hdfs_that_the_promise_needs_otherwise_are_named() {
    let cluster = manifest(include_str!("../../../examples/hdfs.yaml"));
    let of = |deviations: Option<Vec<String>>| {
        let observed = Observed { storage_deviations: deviations, ..observed() };
        let before = BasaltClusterStatus::default();
        let input =
            StatusInput { cluster: &cluster, observed: &observed, before: &before, now: at(1) };
        let Finding { holds, reason, message, .. } = storage_tuned(&input);
        (holds.unwrap(), reason, message)
    };
    assert_eq!((of(None).0, of(None).1), (false, "Unknown"));
    assert!(of(Some(Vec::new())).0);
    let (holds, _, message) = of(Some(vec!["a is 3, should be 1: slow".to_owned()]));
    assert!(!holds && message.contains("a is 3") && message.contains("demo-hdfs"));
}

#[test]
fn a_cluster_that_has_served_and_is_down_is_degraded_for_good_and_not_starting() {
    let nothing = Observed { members: [].into(), ..observed() };
    let starting = status_of(&nothing, &BasaltClusterStatus::default(), 1);
    assert_eq!(starting.phase.as_deref(), Some("Starting"));
    assert_eq!(condition(&starting, "Available").reason, "NeverServed");
    assert_eq!(condition(&starting, "Degraded").status, "False");
    assert!(!condition(&starting, "Degraded").message.contains("nothing is missing"));
    let mut status = status_of(&observed(), &starting, 2);
    for second in 3..6 {
        status = status_of(&nothing, &status, second);
        assert_eq!(status.phase.as_deref(), Some("Degraded"));
        assert_eq!(status.ready_members.as_deref(), Some("0/8"));
        assert_eq!(condition(&status, "Degraded").status, "True");
        assert_eq!(condition(&status, "Degraded").last_transition_time.0, at(3));
    }
    // A change of the manifest does not make it a cluster that starts or is being updated.
    let older = BasaltClusterStatus { observed_generation: Some(6), ..status };
    assert_eq!(status_of(&nothing, &older, 7).phase.as_deref(), Some("Degraded"));
}

#[test]
fn conditions_are_found_anew_while_a_cluster_is_paused_or_invalid() {
    let before = status_of(&observed(), &BasaltClusterStatus::default(), 1);
    let nothing = Observed { members: [].into(), ..observed() };
    let cluster = cluster();
    let problem = Problem {
        resource: "BasaltCluster demo".to_owned(),
        field: "spec.failover".to_owned(),
        reason: "too short".to_owned(),
    };
    let input = StatusInput { cluster: &cluster, observed: &nothing, before: &before, now: at(2) };
    for status in [of_paused(&input), of_invalid(&input, std::slice::from_ref(&problem))] {
        for (kind, holds) in [("Available", "False"), ("Ready", "False"), ("Degraded", "True")] {
            assert_eq!(condition(&status, kind).status, holds, "{:?} {kind}", status.phase);
        }
        assert_eq!(condition(&status, "Conflict").status, "Unknown");
        assert_eq!(status.ready_members.as_deref(), Some("0/8"));
    }
    let observed = observed();
    let input = StatusInput { cluster: &cluster, observed: &observed, before: &before, now: at(2) };
    assert_eq!(condition(&of_paused(&input), "Degraded").status, "False");
    assert_eq!(condition(&of_paused(&input), "Ready").status, "True");
}

#[test]
fn a_conflict_and_a_refusal_are_named() {
    let of = |step: RolloutStep| {
        let (observed, before) = (observed(), BasaltClusterStatus::default());
        let cluster = cluster();
        let input =
            StatusInput { cluster: &cluster, observed: &observed, before: &before, now: at(1) };
        running_status(&input, &validated(), &step)
    };
    let status = of(RolloutStep::Conflict { reason: "Service demo".to_owned() });
    assert_eq!(status.phase.as_deref(), Some("Conflict"));
    assert_eq!(condition(&status, "Conflict").status, "True");
    assert_eq!(condition(&status, "Ready").status, "False");
    let status = of(RolloutStep::Failed { reason: "forbidden".to_owned() });
    assert_eq!(condition(&status, "Progressing").reason, "Failed");
    assert_eq!(condition(&status, "Degraded").message, "forbidden");
    assert_eq!(status.phase.as_deref(), Some("Degraded"));
    let status = of(RolloutStep::Done);
    assert_eq!(condition(&status, "Conflict").status, "False");
}

#[test]
fn the_claim_that_was_used_first_is_remembered() {
    let status = status_of(&observed(), &BasaltClusterStatus::default(), 1);
    let claim = status.data_claim.clone().unwrap();
    assert_eq!((claim.name.as_str(), claim.uid.as_str()), ("demo-data", "c1"));
    let other = Observed { storage_uid: Some("c2".to_owned()), ..observed() };
    assert_eq!(status_of(&other, &status, 2).data_claim, status.data_claim);
    let none_runs = Observed { replicas: [].into(), ..observed() };
    assert_eq!(status_of(&none_runs, &BasaltClusterStatus::default(), 1).data_claim, None);
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
    assert!(message.starts_with("demo-coordinator-0 and demo-coordinator-2 share node n0"));
    let (_, reason, message) = apart(|observed| {
        let masters = observed.members.values_mut().filter(|m| m.role == Some(RoleName::Master));
        masters.for_each(|member| member.rack = Some("z7".to_owned()));
    });
    assert_eq!(reason, "RackShared");
    assert!(
        message.contains("rack z7: losing it would lose all of the pods of role master"),
        "{message}"
    );
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
    let cluster = cluster();
    let input = StatusInput { cluster: &cluster, observed: &observed, before: &before, now: at(2) };
    let problem = Problem {
        resource: "BasaltCluster demo".to_owned(),
        field: "spec.failover".to_owned(),
        reason: "too short".to_owned(),
    };
    let status = of_invalid(&input, &[problem]);
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
