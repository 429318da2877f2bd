//! Regions are closed while they are being opened, orders come late, twice or from no master, and
//! an opener does not learn that its region is on record. Still, only one server serves each
//! region.

use std::time::Duration;

use basalt_failpoint::{Answer, Point};
use basalt_runtime::Random;

use super::{Scenario, happens, kill, ms, owner};
use crate::actors::{Actors, Begin, Work};
use crate::faults::{Fault, FaultAction, Trap, Victim};
use crate::plan::Layout;

const LAYOUT: Layout = Layout { region_servers: 4, ..Layout::SMALL };

pub(super) const DRAIN_WHILE_OPENING: Scenario = Scenario {
    name: "drain-while-opening",
    about: "a server that slowly opens a dead server's region is drained, and the table is altered",
    layout: Layout {
        actors: Actors {
            administrator: Some((&[Work::Alter], Begin::WhenTrapped)),
            ..Actors::NONE
        },
        ..LAYOUT
    },
    faults: drain_while_opening,
};

pub(super) const ALTER_WHILE_OPENING: Scenario = Scenario {
    name: "alter-while-opening",
    about: "the table is altered and disabled while a region opens slowly; the master may die",
    layout: Layout {
        actors: Actors {
            administrator: Some((&[Work::Alter, Work::Disable], Begin::WithLoad)),
            ..Actors::NONE
        },
        ..LAYOUT
    },
    faults: alter_while_opening,
};

pub(super) const STRAY_ORDERS: Scenario = Scenario {
    name: "stray-orders",
    about: "region servers receive late, repeated and forged orders while flushes fail and servers \
            die",
    layout: Layout {
        actors: Actors {
            administrator: Some((&[Work::Alter], Begin::WithLoad)),
            stray_orders: true,
            ..Actors::NONE
        },
        ..LAYOUT
    },
    faults: stray_orders,
};

pub(super) const LOST_OPEN: Scenario = Scenario {
    name: "lost-open",
    about: "a server opens a region, does not learn that this is on record, and does not serve it",
    layout: LAYOUT,
    faults: lost_open,
};

/// The record says OPEN for a while before the region is in service. The recovery that makes the
/// server open the region holds no lock on the table: altering the table closes the region
/// meanwhile, and opens it elsewhere.
fn drain_while_opening(random: &Random, layout: Layout) -> Vec<Fault> {
    let answer = Answer::Wait(ms(random, 800..2_500));
    let drain = Fault {
        lasts: ms(random, 2_500..4_000),
        action: FaultAction::Drain,
        ..at_open_recorded(random, 2, answer)
    };
    vec![kill(owner(random, layout), ms(random, 300..900), ms(random, 2_000..4_000)), drain]
}

/// The next master repeats the orders of a master that dies.
fn alter_while_opening(random: &Random, layout: Layout) -> Vec<Fault> {
    let answer = Answer::Wait(ms(random, 300..2_500));
    let mut faults = vec![at_open_recorded(random, 8, answer)];
    if happens(random, 5) {
        faults.push(kill(owner(random, layout), ms(random, 300..900), ms(random, 500..2_000)));
    }
    if happens(random, 4) {
        faults.push(kill(Victim::ActiveMaster, ms(random, 400..2_500), ms(random, 300..2_000)));
    }
    faults
}

fn stray_orders(random: &Random, layout: Layout) -> Vec<Fault> {
    let mut faults = Vec::new();
    for _ in 0..3 {
        let victim = owner(random, layout);
        let at = ms(random, 300..2_500);
        let slow = ms(random, 300..1_500);
        let failing =
            FaultAction::FailStoreSyncs(u32::try_from(random.in_range(1..4)).unwrap_or(1));
        faults.push(Fault {
            at,
            lasts: slow,
            victim: victim.clone(),
            action: FaultAction::SlowDisk,
        });
        faults.push(Fault { at: at + ms(random, 0..300), lasts: slow, victim, action: failing });
    }
    if happens(random, 5) {
        faults.push(kill(owner(random, layout), ms(random, 300..2_000), ms(random, 500..2_000)));
    }
    if happens(random, 5) {
        faults.push(kill(Victim::ActiveMaster, ms(random, 400..2_500), ms(random, 300..2_000)));
    }
    faults
}

/// The write of OPEN has taken effect, but its answer is never delivered.
fn lost_open(random: &Random, layout: Layout) -> Vec<Fault> {
    let killed = kill(owner(random, layout), ms(random, 400..900), ms(random, 500..2_000));
    vec![killed, at_open_recorded(random, 1, Answer::Fail)]
}

/// A trap at one of the next `hits` times that OPEN is recorded.
fn at_open_recorded(random: &Random, hits: u64, answer: Answer) -> Fault {
    let hit = 1 + u32::try_from(random.in_range(0..hits)).unwrap_or(0);
    let victim = Victim::Springing(Trap { point: Point::OpenRecorded, hit, answer });
    Fault { at: ms(random, 100..400), lasts: Duration::ZERO, victim, action: FaultAction::Nothing }
}
