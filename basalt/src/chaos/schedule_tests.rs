//! Each fault occurs, and the same seed chooses the same faults.

use clap::ValueEnum as _;

use super::*;

const ACTIONS: [FaultAction; 4] =
    [FaultAction::Kill, FaultAction::Pause, FaultAction::Cut, FaultAction::Stop];
const DATA_NODE: &str = "DataNode";

fn processes() -> BTreeMap<String, RoleName> {
    let of_role = |role: RoleName, count: u32| {
        (0..count).map(move |index| (format!("{}-{index}", role.subcommand()), role))
    };
    of_role(RoleName::Coordinator, 3)
        .chain(of_role(RoleName::Master, 2))
        .chain(of_role(RoleName::RegionServer, 3))
        .collect()
}

fn groups(seed: u64, kinds: &[Kind], count: usize) -> Vec<FaultGroup> {
    let scope = Scope {
        processes: processes(),
        foreign: vec![DATA_NODE.to_owned()],
        kinds: kinds.iter().copied().collect(),
        has_links: kinds.contains(&Kind::Cut),
    };
    let mut schedule = Schedule::new(Random::from_seed(seed), scope);
    (0..count).map_while(|_| schedule.next_group()).collect()
}

fn injections(groups: &[FaultGroup]) -> impl Iterator<Item = &Injection> {
    let injections = groups.iter().filter_map(|group| match group {
        FaultGroup::Injections(injections) => Some(injections),
        _ => None,
    });
    injections.flatten()
}

#[test]
fn every_process_and_every_harm_has_its_turn_and_recoverers_too() {
    let groups = groups(7, Kind::value_variants(), 1_500);
    for name in processes().into_keys() {
        for action in ACTIONS {
            let victim = Victim::Process(name.clone());
            let mut injections = injections(&groups);
            assert!(
                injections.any(|s| s.victim == victim && s.action == action),
                "{name} {action:?}"
            );
        }
    }
    assert!(injections(&groups).any(|injection| injection.victim == Victim::ActiveMaster));
    let data_node = Victim::Foreign(DATA_NODE.to_owned());
    let actions: BTreeSet<_> = injections(&groups)
        .filter(|injection| injection.victim == data_node)
        .map(|injection| injection.action)
        .collect();
    let expected = BTreeSet::from([FaultAction::Kill, FaultAction::Pause]);
    assert_eq!(actions, expected, "it has no link of its own, and knows no clean stop");
    for group in &groups {
        let FaultGroup::Injections(injections) = group else { continue };
        assert!((1..=2).contains(&injections.len()));
        let is_same = injections.len() == 2 && injections[0].victim == injections[1].victim;
        assert!(!is_same, "two victims are two");
    }
}

#[test]
fn who_takes_over_is_struck_after_a_kill_and_after_a_clean_stop() {
    let mut found = BTreeSet::new();
    for group in groups(7, Kind::value_variants(), 1_500) {
        let FaultGroup::Injections(injections) = group else { continue };
        if let [gone, Injection { after, victim, .. }] = &injections[..]
            && !after.is_zero()
        {
            found.insert((gone.action, *victim == Victim::ActiveMaster));
        }
    }
    let actions = [FaultAction::Kill, FaultAction::Stop];
    assert_eq!(
        found,
        actions.into_iter().flat_map(|action| [(action, false), (action, true)]).collect()
    );
}

#[test]
fn each_kind_of_blow_comes_in_each_round() {
    let count = ROUND.iter().map(|(_, count)| count).sum();
    for seed in 0..20 {
        let round = groups(seed, Kind::value_variants(), count);
        let is_there = |is_it: fn(&FaultGroup) -> bool| assert!(round.iter().any(is_it), "{seed}");
        is_there(|group| matches!(group, FaultGroup::Injections(_)));
        is_there(|group| matches!(group, FaultGroup::Roll { .. }));
        is_there(|group| matches!(group, FaultGroup::QuorumLoss { .. }));
        is_there(|group| matches!(group, FaultGroup::Drain { .. }));
        is_there(|group| matches!(group, FaultGroup::FullDisk { .. }));
    }
}

#[test]
fn a_quorum_is_lost_by_two_or_three_of_three_in_each_way() {
    let groups = groups(7, Kind::value_variants(), 1_500);
    let losses: BTreeSet<_> = groups
        .iter()
        .filter_map(|group| match group {
            FaultGroup::QuorumLoss { members, action, lasts } => {
                let distinct: BTreeSet<_> = members.iter().collect();
                assert_eq!(distinct.len(), members.len());
                assert!(members.iter().all(|name| name.starts_with("coordinator-")));
                assert!(*lasts >= Duration::from_secs(1) && *lasts < Duration::from_secs(6));
                Some((members.len(), *action))
            }
            _ => None,
        })
        .collect();
    let ways = [FaultAction::Kill, FaultAction::Pause, FaultAction::Cut];
    let expected = [2, 3].into_iter().flat_map(|count| ways.map(|action| (count, action)));
    assert_eq!(losses, expected.collect());
}

#[test]
fn all_roles_are_rolled_and_all_servers_drained_to_each_end() {
    let groups = groups(7, Kind::value_variants(), 1_500);
    let (mut rolled, mut drained) = (BTreeSet::new(), BTreeSet::new());
    for group in &groups {
        match group {
            FaultGroup::Roll { processes } => _ = rolled.insert(processes.clone()),
            FaultGroup::Drain { server, end, .. } => _ = drained.insert((server.clone(), *end)),
            _ => {}
        }
    }
    let sizes: Vec<_> = rolled.iter().map(Vec::len).collect();
    assert_eq!(sizes, [3, 2, 3], "{rolled:?}");
    assert_eq!(drained.len(), 3 * 3, "{drained:?}");
}

#[test]
fn only_the_kinds_that_are_wanted_come() {
    let only = |kind, is_it: fn(&FaultGroup) -> bool| {
        let groups = groups(3, &[kind], 200);
        assert_eq!(groups.len(), 200, "{kind:?}");
        assert!(groups.iter().all(is_it), "{kind:?}");
    };
    only(Kind::Roll, |group| matches!(group, FaultGroup::Roll { .. }));
    only(Kind::Drain, |group| matches!(group, FaultGroup::Drain { .. }));
    only(Kind::FullDisk, |group| matches!(group, FaultGroup::FullDisk { .. }));
    only(Kind::QuorumLoss, |group| match group {
        // Without links nothing is cut.
        FaultGroup::QuorumLoss { action, .. } => *action != FaultAction::Cut,
        _ => false,
    });
    let pauses = groups(3, &[Kind::Pause], 200);
    assert!(injections(&pauses).all(|injection| injection.action == FaultAction::Pause));
    let stops = groups(3, &[Kind::Stop], 200);
    let is_stop = |injection: &Injection| match injection.victim {
        Victim::Foreign(_) => injection.action == FaultAction::Kill,
        _ => injection.action == FaultAction::Stop,
    };
    assert!(injections(&stops).all(is_stop));
    assert_eq!(groups(3, &[Kind::Administrator, Kind::Strangers], 5), []);
}

#[test]
fn the_same_seed_gives_the_same_blows() {
    let of = |seed| groups(seed, Kind::value_variants(), 40);
    assert_eq!(of(3), of(3));
    assert_ne!(of(3), of(4));
}
