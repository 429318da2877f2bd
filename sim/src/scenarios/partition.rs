//! A process is cut off from others: in both directions, or in one.

use basalt_runtime::Random;

use super::{Scenario, coordinator, ms, owner};
use crate::faults::{Direction, Fault, FaultAction, Peers, Victim};
use crate::plan::Layout;

pub(super) const REGION_SERVER: Scenario = Scenario {
    name: "partition-region-server",
    about: "a region server is cut off from some or all others, in one or both directions",
    layout: Layout::SMALL,
    faults: region_server,
};

pub(super) const ISOLATED: Scenario = Scenario {
    name: "isolated-region-server",
    about: "a region server is cut off from the coordinator only: clients and disk still reach it",
    layout: Layout::SMALL,
    faults: isolated,
};

pub(super) const MASTER: Scenario = Scenario {
    name: "partition-master",
    about: "the active master is cut off from some or all others, in one or both directions",
    layout: Layout::SMALL,
    faults: master,
};

pub(super) const COORDINATOR: Scenario = Scenario {
    name: "partition-coordinator",
    about: "a member of the coordinator is cut off from some or all others, in one or both \
            directions",
    layout: Layout::SMALL,
    faults: coordinator_member,
};

const PEERS: [Peers; 4] = [Peers::All, Peers::Coordinators, Peers::Masters, Peers::RegionServers];

pub(super) fn direction(random: &Random) -> Direction {
    random
        .pick(&[Direction::Both, Direction::Both, Direction::In, Direction::Out])
        .copied()
        .unwrap_or(Direction::Both)
}

pub(super) fn cut(random: &Random, victim: Victim) -> Fault {
    let peers = random.pick(&PEERS).copied().unwrap_or(Peers::All);
    let action = FaultAction::Cut(direction(random), peers);
    Fault { at: ms(random, 300..900), lasts: ms(random, 200..5_000), victim, action }
}

fn region_server(random: &Random, layout: Layout) -> Vec<Fault> {
    vec![cut(random, owner(random, layout))]
}

fn isolated(random: &Random, layout: Layout) -> Vec<Fault> {
    let action = FaultAction::Cut(direction(random), Peers::Coordinators);
    let (at, lasts) = (ms(random, 300..900), ms(random, 2_500..5_000));
    vec![Fault { at, lasts, victim: owner(random, layout), action }]
}

fn master(random: &Random, layout: Layout) -> Vec<Fault> {
    vec![cut(random, Victim::ActiveMaster), cut(random, owner(random, layout))]
}

fn coordinator_member(random: &Random, layout: Layout) -> Vec<Fault> {
    vec![cut(random, coordinator::member(random, layout))]
}
