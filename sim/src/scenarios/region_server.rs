//! Region servers that serve regions are killed under load, and started again later.

use basalt_runtime::Random;

use super::{Scenario, happens, kill, ms, owner};
use crate::faults::{Fault, Victim};
use crate::plan::Layout;

pub(super) const CRASH: Scenario = Scenario {
    name: "region-server-crash",
    about: "a region server is killed and started again",
    layout: Layout::SMALL,
    faults: crash,
};

pub(super) const TWO_CRASHES: Scenario = Scenario {
    name: "two-crashes",
    about: "two region servers are killed, together or within a second and a half",
    layout: Layout::SMALL,
    faults: two_crashes,
};

pub(super) const RECOVERER_CRASH: Scenario = Scenario {
    name: "recoverer-crash",
    about: "a region server is killed, then one that took over its regions, and perhaps the master",
    layout: Layout { region_servers: 4, ..Layout::SMALL },
    faults: recoverer_crash,
};

fn crash(random: &Random, layout: Layout) -> Vec<Fault> {
    let victim = owner(random, layout);
    vec![kill(victim, ms(random, 300..900), ms(random, 500..2_000))]
}

fn two_crashes(random: &Random, layout: Layout) -> Vec<Fault> {
    let at = ms(random, 300..900);
    let first = kill(owner(random, layout), at, ms(random, 500..3_000));
    let later = at + ms(random, 0..1_500);
    vec![first, kill(owner(random, layout), later, ms(random, 500..3_000))]
}

fn recoverer_crash(random: &Random, layout: Layout) -> Vec<Fault> {
    let at = ms(random, 300..900);
    let mut faults = vec![kill(owner(random, layout), at, ms(random, 500..4_000))];
    let later = at + ms(random, 50..2_500);
    faults.push(kill(Victim::LastOpener, later, ms(random, 500..3_000)));
    if happens(random, 5) {
        let third = at + ms(random, 0..2_500);
        faults.push(kill(Victim::ActiveMaster, third, ms(random, 500..3_000)));
    }
    faults
}
