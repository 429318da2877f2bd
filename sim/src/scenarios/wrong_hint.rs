//! A live region server is declared dead: its connections to the masters are reset and refused,
//! while it still reaches clients, the coordinator and the disk.

use basalt_failpoint::{Answer, Point};
use basalt_runtime::Random;

use super::{Scenario, kill, ms, owner};
use crate::faults::{Direction, Fault, FaultAction, Peers, Trap, Victim};
use crate::plan::Layout;

pub(super) const WRONG_HINT: Scenario = Scenario {
    name: "wrong-hint",
    about: "a region server is declared dead while it serves under a valid lease",
    layout: Layout::SMALL,
    faults: wrong_hint,
};

pub(super) const UNAWARE: Scenario = Scenario {
    name: "unaware-region-server",
    about: "like wrong-hint, and it does not learn of it: it is cut off from the coordinator too",
    // Large, because rolling the log fails after its folder has been renamed. That must not stop
    // the server before its session ends.
    layout: Layout { wal_roll_bytes: 1 << 20, ..Layout::SMALL },
    faults: unaware,
};

/// One clock may run 16 % too slow and another 16 % too fast.
pub(super) const UNAWARE_BEYOND_BOUND: Scenario = Scenario {
    name: "unaware-beyond-bound",
    about: "like unaware-region-server, with clocks that drift far beyond the bound: no lease \
            protects the log then",
    layout: Layout {
        clock_drift_ppm: 160_000,
        clock_bound: super::clock_drift::DRIFTED_APART_MAX,
        ..UNAWARE.layout
    },
    faults: unaware,
};

pub(super) const UNAWARE_READER: Scenario = Scenario {
    name: "unaware-reader",
    about: "like unaware-region-server, with a frozen disk: no write shows that its log was taken",
    layout: UNAWARE.layout,
    faults: unaware_reader,
};

pub(super) const KILLED_AFTER_SEAL: Scenario = Scenario {
    name: "killed-after-seal",
    about: "like unaware-reader, and it is killed after its log is sealed and before anyone has \
            read the log",
    layout: UNAWARE.layout,
    faults: killed_after_seal,
};

fn wrong_hint(random: &Random, layout: Layout) -> Vec<Fault> {
    vec![Fault {
        at: ms(random, 300..900),
        lasts: ms(random, 200..3_000),
        victim: owner(random, layout),
        action: FaultAction::Refuse(Peers::Masters),
    }]
}

/// Only the end of its lease keeps the server from serving reads. Only that, and its log, which was
/// taken from it, keep it from acknowledging writes.
fn unaware(random: &Random, layout: Layout) -> Vec<Fault> {
    let (victim, at, lasts) =
        (owner(random, layout), ms(random, 300..900), ms(random, 1_500..3_000));
    let both = [
        FaultAction::Cut(Direction::Both, Peers::Coordinators),
        FaultAction::Refuse(Peers::Masters),
    ];
    both.map(|action| Fault { at, lasts, victim: victim.clone(), action }).into()
}

/// Only the end of its lease keeps the server from serving reads of data that others overwrite.
fn unaware_reader(random: &Random, layout: Layout) -> Vec<Fault> {
    let mut faults = unaware(random, layout);
    faults.extend(
        faults.first().map(|first| Fault { action: FaultAction::FreezeDisk, ..first.clone() }),
    );
    faults
}

/// The frozen disk has log bytes that were not synced. The seal covers them, so the death of their
/// writer must not remove them.
fn killed_after_seal(random: &Random, layout: Layout) -> Vec<Fault> {
    let mut faults = unaware_reader(random, layout);
    if let Some(Fault { at, victim, .. }) = faults.first().cloned() {
        faults.push(kill(victim, at + ms(random, 1_000..1_500), ms(random, 500..2_000)));
        let delay = ms(random, 1_000..2_000);
        let trap = Trap { point: Point::FenceRecorded, hit: 1, answer: Answer::Wait(delay) };
        let victim = Victim::Springing(trap);
        faults.push(Fault { at, lasts: delay, victim, action: FaultAction::SlowDisk });
    }
    faults
}
