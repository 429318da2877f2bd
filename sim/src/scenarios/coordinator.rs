//! Members of the coordinator are killed, one at a time. In one of three seeds it is the leader.

use std::time::Duration;

use basalt_runtime::Random;

use super::{Scenario, happens, kill, ms, owner};
use crate::faults::{Fault, Victim};
use crate::plan::{self, Layout};

pub(super) const CRASH: Scenario = Scenario {
    name: "coordinator-crash",
    about: "a member of the coordinator is killed, and perhaps a region server too",
    layout: Layout::SMALL,
    faults: crash,
};

pub(super) const ROLLING_CRASHES: Scenario = Scenario {
    name: "coordinator-rolling-crashes",
    about: "each member of the coordinator is killed in turn, one at a time",
    layout: Layout::SMALL,
    faults: rolling_crashes,
};

pub(super) fn member(random: &Random, layout: Layout) -> Victim {
    Victim::Named(plan::coordinator(1 + random.in_range(0..layout.coordinators)))
}

/// The members, in an order that the seed chooses.
pub(super) fn shuffled(random: &Random, layout: Layout) -> Vec<Victim> {
    let mut ids: Vec<u64> = (1..=layout.coordinators).collect();
    random.shuffle(&mut ids);
    ids.into_iter().map(|id| Victim::Named(plan::coordinator(id))).collect()
}

fn crash(random: &Random, layout: Layout) -> Vec<Fault> {
    let at = ms(random, 300..900);
    let mut faults = vec![kill(member(random, layout), at, ms(random, 300..3_000))];
    if happens(random, 5) {
        let later = at + ms(random, 0..1_000);
        faults.push(kill(owner(random, layout), later, ms(random, 500..2_000)));
    }
    faults
}

fn rolling_crashes(random: &Random, layout: Layout) -> Vec<Fault> {
    let mut at = ms(random, 300..900);
    let mut faults = Vec::new();
    for id in 1..=layout.coordinators {
        let lasts = ms(random, 100..600);
        faults.push(kill(Victim::Named(plan::coordinator(id)), at, lasts));
        // Time for the member to come back and catch up.
        at += lasts + Duration::from_millis(1_500);
    }
    faults
}
