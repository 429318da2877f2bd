//! A process is killed at a named step of its work: the first or a later time that any process
//! reaches it. A region server is killed shortly before, so that there is work.

use std::time::Duration;

use basalt_failpoint::{Answer, Point};
use basalt_runtime::Random;

use super::{Scenario, happens, kill, ms, owner};
use crate::faults::{Fault, FaultAction, Peers, Trap, Victim};
use crate::plan::Layout;

pub(super) const FAILPOINTS: Scenario = Scenario {
    name: "failpoints",
    about: "a process is killed when it reaches some step of logging, flushing, recovering...",
    layout: Layout { region_servers: 4, ..Layout::SMALL },
    faults: failpoints,
};

fn failpoints(random: &Random, layout: Layout) -> Vec<Fault> {
    let (point, hit) = choose(random);
    kill_at(point, hit, random, layout)
}

fn choose(random: &Random) -> (Point, u32) {
    let point = random.pick(Point::ALL).copied().unwrap_or(Point::LogSynced);
    let hit = u32::try_from(random.in_range(0..u64::from(hits(point)))).unwrap_or(0);
    (point, 1 + hit)
}

pub(super) const DELAYS: Scenario = Scenario {
    name: "failpoint-delays",
    about: "a process is delayed when it reaches some step, while others continue or are killed",
    layout: Layout { region_servers: 4, ..Layout::SMALL },
    faults: delays,
};

/// How long a task is delayed: from less than a lease to more than a session.
const DELAY_MS: std::ops::Range<u64> = 50..2_500;

fn delays(random: &Random, layout: Layout) -> Vec<Fault> {
    let (point, hit) = choose(random);
    delay_at(point, hit, random, layout)
}

/// The faults of `scenario` at a given failpoint.
pub(crate) fn faults_at(
    scenario: &Scenario,
    (point, hit): (Point, u32),
    random: &Random,
    layout: Layout,
) -> Vec<Fault> {
    let at = if scenario.name == DELAYS.name { delay_at } else { kill_at };
    at(point, hit, random, layout)
}

/// A task is delayed at `point`. Meanwhile the process that reached it is declared dead by masters
/// that it refuses, is asked to stop, or has a slow disk. The active master may be killed as well.
fn delay_at(point: Point, hit: u32, random: &Random, layout: Layout) -> Vec<Fault> {
    let killed_at = ms(random, 300..900);
    let at = if is_early(point) { Duration::ZERO } else { killed_at };
    let delay = ms(random, DELAY_MS);
    let answer = Answer::Wait(delay);
    let springing = Victim::Springing(Trap { point, hit, answer });
    let action = match random.in_range(0..4) {
        0 => FaultAction::Refuse(Peers::Masters),
        1 => FaultAction::Stop,
        _ => FaultAction::SlowDisk,
    };
    let mut faults = vec![
        kill(owner(random, layout), killed_at, ms(random, 500..3_000)),
        Fault { at, lasts: delay, victim: springing, action },
    ];
    if happens(random, 3) {
        faults.push(kill(Victim::ActiveMaster, killed_at + ms(random, 0..1_000), delay));
    }
    faults
}

/// The faults of a scenario that kills a process at `point`.
fn kill_at(point: Point, hit: u32, random: &Random, layout: Layout) -> Vec<Fault> {
    let killed_at = ms(random, 300..900);
    let at = if is_early(point) { Duration::ZERO } else { killed_at };
    let victim = Victim::Springing(Trap { point, hit, answer: Answer::Stop });
    let stopped = Fault { at, lasts: ms(random, 300..1_500), victim, action: FaultAction::Kill };
    vec![kill(owner(random, layout), killed_at, ms(random, 500..3_000)), stopped]
}

/// The number of hits of a failpoint that are tried.
pub fn hits(point: Point) -> u32 {
    match point {
        Point::TableDescribed | Point::TableRecorded | Point::TableServed => 1,
        // Each transaction of the master, starting with the creation of the table.
        Point::StoreCommitted => 20,
        _ => 3,
    }
}

/// Whether the failpoint is reached before there is any load.
fn is_early(point: Point) -> bool {
    hits(point) == 1 || point == Point::StoreCommitted
}
