//! Disks that are full, and nothing else: nobody may end for it.

use basalt_runtime::Random;

use super::{Scenario, coordinator, happens, ms, owner};
use crate::faults::{Fault, Harm, Victim};
use crate::plan::Layout;

pub(super) const FULL_DISK: Scenario = Scenario {
    name: "full-disk",
    about: "the disks of one to three processes are full for a while",
    layout: Layout::SMALL,
    faults: full_disk,
};

fn fill(random: &Random, victim: Victim) -> Fault {
    let (at, lasts) = (ms(random, 300..2_000), ms(random, 500..6_000));
    Fault { at, lasts, victim, harm: Harm::FullDisk }
}

fn full_disk(random: &Random, layout: Layout) -> Vec<Fault> {
    let mut faults = vec![fill(random, owner(random, layout))];
    if happens(random, 5) {
        faults.push(fill(random, coordinator::member(random, layout)));
    }
    if happens(random, 3) {
        faults.push(fill(random, Victim::ActiveMaster));
    }
    faults
}
