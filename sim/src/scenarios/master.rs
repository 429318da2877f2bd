//! The active master is killed during a recovery, or deposed without noticing.

use std::time::Duration;

use basalt_runtime::Random;

use super::{Scenario, kill, ms, owner};
use crate::faults::{Fault, FaultAction, Peers, Victim};
use crate::plan::Layout;

pub(super) const CRASH: Scenario = Scenario {
    name: "master-crash",
    about: "the active master is killed at some step of recovering a region server",
    layout: Layout::SMALL,
    faults: crash,
};

pub(super) const DEPOSED: Scenario = Scenario {
    name: "deposed-master",
    about: "the standby declares the active master dead, and becomes active while the old one runs",
    layout: Layout::SMALL,
    faults: deposed,
};

fn crash(random: &Random, layout: Layout) -> Vec<Fault> {
    let at = ms(random, 300..900);
    let later = at + ms(random, 0..1_200);
    vec![
        kill(owner(random, layout), at, ms(random, 500..3_000)),
        kill(Victim::ActiveMaster, later, ms(random, 500..3_000)),
    ]
}

/// A region server dies at about the same time, so that both masters have something to write.
fn deposed(random: &Random, layout: Layout) -> Vec<Fault> {
    let at = ms(random, 300..900);
    let kill_at = at.saturating_sub(Duration::from_millis(200)) + ms(random, 0..400);
    vec![
        Fault {
            at,
            lasts: ms(random, 500..3_000),
            victim: Victim::ActiveMaster,
            action: FaultAction::Refuse(Peers::Masters),
        },
        kill(owner(random, layout), kill_at, ms(random, 500..3_000)),
    ]
}
