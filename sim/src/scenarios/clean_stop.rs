//! Processes are asked to stop, one after another or while others are killed, and are started
//! again.

use std::time::Duration;

use basalt_runtime::Random;

use super::{Scenario, coordinator, happens, kill, ms, owner};
use crate::faults::{Fault, FaultAction, Victim};
use crate::plan::{self, Layout};

pub(super) const ROLLING_RESTART: Scenario = Scenario {
    name: "rolling-restart",
    about: "each process is stopped cleanly and started again, in an order that the seed chooses",
    layout: Layout::SMALL,
    faults: rolling_restart,
};

pub(super) const STOP_AND_CRASH: Scenario = Scenario {
    name: "stop-and-crash",
    about: "a region server is stopped cleanly; meanwhile it, another one or a master is killed",
    layout: Layout { region_servers: 4, ..Layout::SMALL },
    faults: stop_and_crash,
};

/// The time between two stops, in which regions move and a member of the coordinator catches up.
const STOP_INTERVAL: Duration = Duration::from_millis(1_700);

fn rolling_restart(random: &Random, layout: Layout) -> Vec<Fault> {
    let mut names = layout.processes();
    let mut faults = Vec::new();
    let mut at = ms(random, 200..900);
    while !names.is_empty() {
        let place = random.in_range(0..names.len() as u64);
        let name = names.swap_remove(usize::try_from(place).unwrap_or(0));
        faults.push(stop(Victim::Named(name), at));
        at += STOP_INTERVAL + ms(random, 0..300);
    }
    faults
}

fn stop_and_crash(random: &Random, layout: Layout) -> Vec<Fault> {
    let at = ms(random, 300..900);
    let stopped = owner(random, layout);
    let during = at + ms(random, 0..900);
    let victim = match random.in_range(0..4) {
        0 => stopped.clone(),
        1 => owner(random, layout),
        2 => Victim::LastOpener,
        _ => Victim::ActiveMaster,
    };
    let mut faults = vec![stop(stopped, at), kill(victim, during, ms(random, 300..2_000))];
    if happens(random, 3) {
        faults.push(stop(coordinator::member(random, layout), at + ms(random, 0..500)));
    }
    if happens(random, 3) {
        faults.push(stop(Victim::Named(plan::region_server(random.in_range(0..4))), during));
    }
    faults
}

fn stop(victim: Victim, at: Duration) -> Fault {
    Fault { at, lasts: STOP_INTERVAL, victim, action: FaultAction::Stop }
}
