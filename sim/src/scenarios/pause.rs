//! A process is stopped for a while, shorter or longer than its lease and its session, and resumes.

use basalt_runtime::Random;

use super::{Scenario, happens, kill, ms, owner};
use crate::faults::{Fault, FaultAction, Victim};
use crate::plan::Layout;

pub(super) const REGION_SERVER: Scenario = Scenario {
    name: "pause-region-server",
    about: "a region server is paused, often for longer than its lease, and resumed",
    layout: Layout::SMALL,
    faults: region_server,
};

pub(super) const MASTER: Scenario = Scenario {
    name: "pause-master",
    about: "the active master is paused and resumed, perhaps during a recovery",
    layout: Layout::SMALL,
    faults: master,
};

pub(super) fn pause(random: &Random, victim: Victim) -> Fault {
    Fault {
        at: ms(random, 300..900),
        lasts: ms(random, 200..5_000),
        victim,
        action: FaultAction::Pause,
    }
}

fn region_server(random: &Random, layout: Layout) -> Vec<Fault> {
    vec![pause(random, owner(random, layout))]
}

fn master(random: &Random, layout: Layout) -> Vec<Fault> {
    let mut faults = vec![pause(random, Victim::ActiveMaster)];
    if happens(random, 7) {
        let kill_at = ms(random, 200..1_500);
        faults.push(kill(owner(random, layout), kill_at, ms(random, 500..3_000)));
    }
    faults
}
