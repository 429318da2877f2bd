//! Each fault has its turn, and the same seed gives the same blows.

use clap::ValueEnum as _;

use super::*;

const HARMS: [Harm; 4] = [Harm::Kill, Harm::Pause, Harm::Cut, Harm::Stop];
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

fn blows(seed: u64, kinds: &[Kind], count: usize) -> Vec<Blow> {
    let scope = Scope {
        processes: processes(),
        foreign: vec![DATA_NODE.to_owned()],
        kinds: kinds.iter().copied().collect(),
        has_links: kinds.contains(&Kind::Cut),
    };
    let mut schedule = Schedule::new(Random::from_seed(seed), scope);
    (0..count).map_while(|_| schedule.next_blow()).collect()
}

fn strikes(blows: &[Blow]) -> impl Iterator<Item = &Strike> {
    let strikes = blows.iter().filter_map(|blow| match blow {
        Blow::Strikes(strikes) => Some(strikes),
        _ => None,
    });
    strikes.flatten()
}

#[test]
fn every_process_and_every_harm_has_its_turn_and_recoverers_too() {
    let blows = blows(7, Kind::value_variants(), 1_500);
    for name in processes().into_keys() {
        for harm in HARMS {
            let victim = Victim::Process(name.clone());
            let mut strikes = strikes(&blows);
            assert!(strikes.any(|s| s.victim == victim && s.harm == harm), "{name} {harm:?}");
        }
    }
    assert!(strikes(&blows).any(|strike| strike.victim == Victim::ActiveMaster));
    let data_node = Victim::Foreign(DATA_NODE.to_owned());
    let harms: BTreeSet<_> = strikes(&blows)
        .filter(|strike| strike.victim == data_node)
        .map(|strike| strike.harm)
        .collect();
    let expected = BTreeSet::from([Harm::Kill, Harm::Pause]);
    assert_eq!(harms, expected, "it has no link of its own, and knows no clean stop");
    for blow in &blows {
        let Blow::Strikes(strikes) = blow else { continue };
        assert!((1..=2).contains(&strikes.len()));
        let is_same = strikes.len() == 2 && strikes[0].victim == strikes[1].victim;
        assert!(!is_same, "two victims are two");
    }
}

#[test]
fn who_takes_over_is_struck_after_a_kill_and_after_a_clean_stop() {
    let mut found = BTreeSet::new();
    for blow in blows(7, Kind::value_variants(), 1_500) {
        let Blow::Strikes(strikes) = blow else { continue };
        if let [gone, Strike { after, victim, .. }] = &strikes[..]
            && !after.is_zero()
        {
            found.insert((gone.harm, *victim == Victim::ActiveMaster));
        }
    }
    let harms = [Harm::Kill, Harm::Stop];
    assert_eq!(found, harms.into_iter().flat_map(|harm| [(harm, false), (harm, true)]).collect());
}

#[test]
fn each_kind_of_blow_comes_in_each_round() {
    let count = ROUND.iter().map(|(_, count)| count).sum();
    for seed in 0..20 {
        let round = blows(seed, Kind::value_variants(), count);
        let is_there = |is_it: fn(&Blow) -> bool| assert!(round.iter().any(is_it), "{seed}");
        is_there(|blow| matches!(blow, Blow::Strikes(_)));
        is_there(|blow| matches!(blow, Blow::Roll { .. }));
        is_there(|blow| matches!(blow, Blow::QuorumLoss { .. }));
        is_there(|blow| matches!(blow, Blow::Drain { .. }));
        is_there(|blow| matches!(blow, Blow::FullDisk { .. }));
    }
}

#[test]
fn a_quorum_is_lost_by_two_or_three_of_three_in_each_way() {
    let blows = blows(7, Kind::value_variants(), 1_500);
    let losses: BTreeSet<_> = blows
        .iter()
        .filter_map(|blow| match blow {
            Blow::QuorumLoss { members, harm, lasts } => {
                let distinct: BTreeSet<_> = members.iter().collect();
                assert_eq!(distinct.len(), members.len());
                assert!(members.iter().all(|name| name.starts_with("coordinator-")));
                assert!(*lasts >= Duration::from_secs(1) && *lasts < Duration::from_secs(6));
                Some((members.len(), *harm))
            }
            _ => None,
        })
        .collect();
    let ways = [Harm::Kill, Harm::Pause, Harm::Cut];
    let expected = [2, 3].into_iter().flat_map(|count| ways.map(|harm| (count, harm)));
    assert_eq!(losses, expected.collect());
}

#[test]
fn all_roles_are_rolled_and_all_servers_drained_to_each_end() {
    let blows = blows(7, Kind::value_variants(), 1_500);
    let (mut rolled, mut drained) = (BTreeSet::new(), BTreeSet::new());
    for blow in &blows {
        match blow {
            Blow::Roll { processes } => _ = rolled.insert(processes.clone()),
            Blow::Drain { server, end, .. } => _ = drained.insert((server.clone(), *end)),
            _ => {}
        }
    }
    let sizes: Vec<_> = rolled.iter().map(Vec::len).collect();
    assert_eq!(sizes, [3, 2, 3], "{rolled:?}");
    assert_eq!(drained.len(), 3 * 3, "{drained:?}");
}

#[test]
fn only_the_kinds_that_are_wanted_come() {
    let only = |kind, is_it: fn(&Blow) -> bool| {
        let blows = blows(3, &[kind], 200);
        assert_eq!(blows.len(), 200, "{kind:?}");
        assert!(blows.iter().all(is_it), "{kind:?}");
    };
    only(Kind::Roll, |blow| matches!(blow, Blow::Roll { .. }));
    only(Kind::Drain, |blow| matches!(blow, Blow::Drain { .. }));
    only(Kind::FullDisk, |blow| matches!(blow, Blow::FullDisk { .. }));
    only(Kind::QuorumLoss, |blow| match blow {
        // Without links nothing is cut.
        Blow::QuorumLoss { harm, .. } => *harm != Harm::Cut,
        _ => false,
    });
    let pauses = blows(3, &[Kind::Pause], 200);
    assert!(strikes(&pauses).all(|strike| strike.harm == Harm::Pause));
    let stops = blows(3, &[Kind::Stop], 200);
    let is_stop = |strike: &Strike| match strike.victim {
        Victim::Foreign(_) => strike.harm == Harm::Kill,
        _ => strike.harm == Harm::Stop,
    };
    assert!(strikes(&stops).all(is_stop));
    assert_eq!(blows(3, &[Kind::Administrator, Kind::Strangers], 5), []);
}

#[test]
fn the_same_seed_gives_the_same_blows() {
    let of = |seed| blows(seed, Kind::value_variants(), 40);
    assert_eq!(of(3), of(3));
    assert_ne!(of(3), of(4));
}
