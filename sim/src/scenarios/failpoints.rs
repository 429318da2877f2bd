//! A process is killed at a named step of its work, when it or another gets there for the first
//! time or a later one; a region server has been killed shortly before, so that there is work.

use std::time::Duration;

use basalt_failpoint::{Answer, Point};
use basalt_runtime::Random;

use super::{Scenario, kill, ms, one_of, owner};
use crate::faults::{Fault, Harm, Trap, Victim};
use crate::plan::Layout;

pub(super) const FAILPOINTS: Scenario = Scenario {
    name: "failpoints",
    about: "whoever reaches some step of logging, flushing, recovering... is killed there",
    layout: Layout { region_servers: 4, ..Layout::SMALL },
    faults: failpoints,
};

fn failpoints(random: &Random, layout: Layout) -> Vec<Fault> {
    let point = one_of(random, Point::ALL).unwrap_or(Point::LogSynced);
    let hit = u32::try_from(random.in_range(0..u64::from(hits(point)))).unwrap_or(0);
    kill_at(point, 1 + hit, random, layout)
}

/// The faults of a scenario that kills at `point`.
pub(crate) fn kill_at(point: Point, hit: u32, random: &Random, layout: Layout) -> Vec<Fault> {
    let killed_at = ms(random, 300..900);
    let at = if is_early(point) { Duration::ZERO } else { killed_at };
    let victim = Victim::Springing(Trap { point, hit, answer: Answer::Stop });
    let stopped = Fault { at, lasts: ms(random, 300..1_500), victim, harm: Harm::Kill };
    vec![kill(owner(random, layout), killed_at, ms(random, 500..3_000)), stopped]
}

/// How many of the times that a point is reached are tried.
pub fn hits(point: Point) -> u32 {
    match point {
        Point::TableDescribed | Point::TableRecorded | Point::TableServed => 1,
        // Each transaction of the master, from the making of the table on.
        Point::LedgerCommitted => 20,
        _ => 3,
    }
}

/// Whether it is reached before there is any load.
fn is_early(point: Point) -> bool {
    hits(point) == 1 || point == Point::LedgerCommitted
}
