//! An opening takes so long that the region is given to another server meanwhile: the opener's disk
//! is frozen, and a new master orders again.

use basalt_runtime::Random;

use super::{Scenario, kill, ms, owner};
use crate::faults::{Fault, Harm, Victim};
use crate::plan::{self, Layout};

pub(super) const LATE_OPEN: Scenario = Scenario {
    name: "late-open",
    about: "openers hang on their disks while the master that ordered it is replaced",
    layout: Layout { region_servers: 4, ..Layout::SMALL },
    faults: late_open,
};

fn late_open(random: &Random, layout: Layout) -> Vec<Fault> {
    let at = ms(random, 300..900);
    let mut faults = vec![kill(owner(random, layout), at, ms(random, 2_000..4_000))];
    // Two of the survivors at most: the others must be able to open what is taken from them.
    let first = random.in_range(0..layout.region_servers);
    for number in [first, first + 1] {
        faults.push(Fault {
            at: at + ms(random, 5..120),
            lasts: ms(random, 300..2_000),
            victim: Victim::Named(plan::region_server(number % layout.region_servers)),
            harm: Harm::FreezeDisk,
        });
    }
    let later = at + ms(random, 60..500);
    faults.push(kill(Victim::ActiveMaster, later, ms(random, 500..2_000)));
    faults
}
