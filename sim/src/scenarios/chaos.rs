//! Random faults: up to eight faults of any kind within five seconds, several at a time.
//!
//! At most one member of the coordinator is faulty at a time: with more, the whole cluster is
//! allowed to stop.

use std::time::Duration;

use basalt_runtime::Random;

use super::{Scenario, coordinator, disk, kill, ms, owner, partition, pause, slow_links};
use crate::faults::{Fault, FaultAction, Peers, Victim};
use crate::plan::Layout;

pub(super) const CHAOS: Scenario = Scenario {
    name: "chaos",
    about: "faults of all kinds at random, several at a time",
    layout: Layout { region_servers: 4, regions: 8, clock_drift_ppm: 10_000, ..Layout::SMALL },
    faults: chaos,
};

/// The number of faults.
const FAULTS: std::ops::Range<u64> = 3..9;
/// When the faults begin.
const AT_MS: std::ops::Range<u64> = 200..5_000;

fn chaos(random: &Random, layout: Layout) -> Vec<Fault> {
    let mut coordinator_free_at = Duration::ZERO;
    let mut faults = Vec::new();
    for _ in 0..random.in_range(FAULTS) {
        let at = ms(random, AT_MS);
        let victim = match random.in_range(0..10) {
            0..5 => owner(random, layout),
            5 | 6 => Victim::ActiveMaster,
            7 => Victim::LastOpener,
            _ => coordinator::member(random, layout),
        };
        let is_coordinator = matches!(victim, Victim::Named(_));
        let mut fault = action(random, victim);
        fault.at = if is_coordinator { at.max(coordinator_free_at) } else { at };
        if is_coordinator {
            // The member gets time to catch up.
            coordinator_free_at = fault.ends_at() + Duration::from_secs(1);
        }
        faults.push(fault);
    }
    faults.retain(|fault| fault.ends_at() <= Duration::from_secs(15));
    if faults.is_empty() {
        faults.push(kill(owner(random, layout), ms(random, AT_MS), Duration::from_secs(1)));
    }
    faults
}

fn action(random: &Random, victim: Victim) -> Fault {
    match random.in_range(0..10) {
        0..3 => kill(victim, Duration::ZERO, ms(random, 300..3_000)),
        3 | 4 => pause::pause(random, victim),
        5 | 6 => partition::cut(random, victim),
        7 => disk::trouble(random, victim),
        8 => slow_links::slow(random, victim),
        _ => {
            let action = FaultAction::Refuse(Peers::Masters);
            Fault { at: Duration::ZERO, lasts: ms(random, 200..3_000), victim, action }
        }
    }
}
