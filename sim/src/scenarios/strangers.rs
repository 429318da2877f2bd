//! Strangers send half requests, noise and forged ballots to every port, while processes die.

use basalt_runtime::Random;

use super::{Scenario, coordinator, happens, kill, ms, owner};
use crate::actors::Actors;
use crate::faults::{Fault, Victim};
use crate::plan::Layout;

pub(super) const STRANGERS: Scenario = Scenario {
    name: "strangers",
    about: "half requests, noise and forged ballots at every port, while processes die",
    layout: Layout { actors: Actors { strangers: true, ..Actors::NONE }, ..Layout::SMALL },
    faults: strangers,
};

/// Causes an election and a recovery: ballots matter most while there is no leader.
fn strangers(random: &Random, layout: Layout) -> Vec<Fault> {
    let member = coordinator::member(random, layout);
    let mut faults = vec![kill(member, ms(random, 300..1_500), ms(random, 500..1_500))];
    if happens(random, 7) {
        faults.push(kill(owner(random, layout), ms(random, 300..2_500), ms(random, 500..2_000)));
    }
    if happens(random, 3) {
        faults.push(kill(Victim::ActiveMaster, ms(random, 300..2_500), ms(random, 300..2_000)));
    }
    faults
}
