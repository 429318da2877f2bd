//! Messages to and from a process take up to 300 ms, and may overtake each other on the way.

use basalt_runtime::Random;

use super::{Scenario, coordinator, happens, kill, ms, owner};
use crate::faults::{Fault, FaultAction, Victim};
use crate::plan::Layout;

pub(super) const SLOW_LINKS: Scenario = Scenario {
    name: "slow-links",
    about: "one to three processes have slow links, and perhaps a region server is killed",
    layout: Layout::SMALL,
    faults: slow_links,
};

pub(super) fn slow(random: &Random, victim: Victim) -> Fault {
    let action = FaultAction::SlowLinks;
    Fault { at: ms(random, 300..900), lasts: ms(random, 500..5_000), victim, action }
}

fn slow_links(random: &Random, layout: Layout) -> Vec<Fault> {
    let mut faults = vec![slow(random, owner(random, layout))];
    if happens(random, 5) {
        faults.push(slow(random, coordinator::member(random, layout)));
    }
    if happens(random, 3) {
        faults.push(slow(random, Victim::ActiveMaster));
    }
    if happens(random, 5) {
        let at = ms(random, 300..2_000);
        faults.push(kill(owner(random, layout), at, ms(random, 500..2_000)));
    }
    faults
}
