//! Tables are created and deleted while the balancer moves regions, region servers die or are
//! drained, and masters die.

use std::time::Duration;

use basalt_runtime::Random;

use super::{Scenario, happens, kill, ms, owner, partition, pause, slow_links};
use crate::faults::{Fault, FaultAction, Victim};
use crate::plan::Layout;

pub(super) const TABLES: Scenario = Scenario {
    name: "tables",
    about: "tables are created, changed and deleted while servers die, drain or have slow links",
    layout: Layout { tables: 2, catalogs_are_checked: true, ..LAYOUT },
    faults: tables,
};

pub(super) const TABLES_CHAOS: Scenario = Scenario {
    name: "tables-chaos",
    about: "like tables, while processes are paused and cut off",
    layout: Layout { tables: 2, ..LAYOUT },
    faults: chaos,
};

const LAYOUT: Layout = Layout { region_servers: 4, ..Layout::SMALL };

/// When faults begin.
const AT_MS: std::ops::Range<u64> = 200..4_000;
/// How long a killed server is down, and how long a drained server has to move its regions.
const AWAY_MS: std::ops::Range<u64> = 500..3_000;
/// The number of faults.
const FAULTS: std::ops::Range<u64> = 2..6;

fn tables(random: &Random, layout: Layout) -> Vec<Fault> {
    let faults = 0..random.in_range(FAULTS);
    faults.map(|_| fault(random, layout)).collect()
}

fn fault(random: &Random, layout: Layout) -> Fault {
    let (at, away) = (ms(random, AT_MS), ms(random, AWAY_MS));
    match random.in_range(0..10) {
        0..3 => kill(owner(random, layout), at, away),
        3..6 => kill(Victim::ActiveMaster, at, away),
        6 | 7 => {
            Fault { at, lasts: away, victim: owner(random, layout), action: FaultAction::Drain }
        }
        _ => Fault { at, ..slow_links::slow(random, owner(random, layout)) },
    }
}

fn chaos(random: &Random, layout: Layout) -> Vec<Fault> {
    let faults = 0..random.in_range(FAULTS);
    let faults = faults.map(|_| {
        let victim = if happens(random, 3) { Victim::ActiveMaster } else { owner(random, layout) };
        let mut fault = match random.in_range(0..10) {
            0..3 => pause::pause(random, victim),
            3..6 => partition::cut(random, victim),
            _ => return fault(random, layout),
        };
        fault.at = ms(random, AT_MS);
        fault
    });
    let mut faults: Vec<_> = faults.collect();
    faults.retain(|fault| fault.ends_at() <= Duration::from_secs(15));
    if faults.is_empty() {
        faults.push(kill(owner(random, layout), ms(random, AT_MS), ms(random, AWAY_MS)));
    }
    faults
}
