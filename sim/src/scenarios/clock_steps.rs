//! Wall clocks of servers with regions and of masters are set far beyond the bound, while regions
//! move and processes die.

use std::time::Duration;

use basalt_runtime::Random;

use super::{Scenario, happens, kill, ms, owner, pause, slow_links};
use crate::faults::{Fault, FaultAction, Victim};
use crate::plan::{Layout, master};

pub(super) const CLOCK_STEPS: Scenario = Scenario {
    name: "clock-steps",
    about: "the wall clock of a region server or the master is set wrong by two seconds to a day",
    layout: Layout { wall_clocks_set_by: Layout::SMALL.clock_bound, ..Layout::SMALL },
    faults: clock_steps,
};

/// The clocks of the region servers are exact here, so every cell must expire at its time.
pub(super) const MASTER: Scenario = Scenario {
    name: "master-clock-steps",
    about: "the wall clock of a master is set wrong again and again, and processes are killed",
    layout: Layout::SMALL,
    faults: master_clock_steps,
};

/// A procedure has no time left once its master is followed by one whose clock is ahead.
pub(super) const MASTERS_APART: Scenario = Scenario {
    name: "masters-clocks-apart",
    about: "tables are changed while the masters' wall clocks are hours apart, and masters die",
    layout: Layout { masters: 3, tables: 2, procedures_run_out_of_time: true, ..Layout::SMALL },
    faults: masters_apart,
};

/// How far the clocks of two masters are apart.
const APART_MS: i64 = 3_600_000;

/// The steps of a wall clock, in either direction.
const STEPS_MS: [i64; 4] = [2_000, 60_000, 3_600_000, 86_400_000];

fn step_ms(random: &Random) -> i64 {
    let step_ms = random.pick(&STEPS_MS).copied().unwrap_or(86_400_000);
    if happens(random, 3) { -step_ms } else { step_ms }
}

fn clock_steps(random: &Random, layout: Layout) -> Vec<Fault> {
    let set = |victim: Victim| Fault {
        at: ms(random, 200..1_200),
        lasts: ms(random, 500..4_000),
        victim,
        action: FaultAction::SetClock(step_ms(random)),
    };
    let victim = if happens(random, 8) { owner(random, layout) } else { Victim::ActiveMaster };
    let mut faults = vec![set(victim)];
    if happens(random, 5) {
        // Another server replays its log, or it comes back with the wrong time.
        let at = ms(random, 300..2_500);
        faults.push(kill(owner(random, layout), at, ms(random, 300..1_500)));
    }
    faults
}

fn master_clock_steps(random: &Random, layout: Layout) -> Vec<Fault> {
    let mut faults = Vec::new();
    for turn in 0..4 {
        // The standby's clock is wrong, too, when it becomes the active master.
        let name = Victim::Named(master(random.in_range(0..layout.masters)));
        faults.push(Fault {
            at: ms(random, 200..900) + turn * Duration::from_millis(1_500),
            lasts: ms(random, 300..1_500),
            victim: if happens(random, 7) { Victim::ActiveMaster } else { name },
            action: FaultAction::SetClock(step_ms(random)),
        });
    }
    if happens(random, 4) {
        faults.push(kill(Victim::ActiveMaster, ms(random, 300..5_000), ms(random, 300..1_500)));
    }
    if happens(random, 4) {
        let at = ms(random, 300..5_000);
        faults.push(kill(owner(random, layout), at, ms(random, 300..1_500)));
    }
    faults
}

fn masters_apart(random: &Random, layout: Layout) -> Vec<Fault> {
    let mut ahead_ms = 0;
    let apart = (1..layout.masters).map(|number| {
        ahead_ms += APART_MS;
        Fault {
            at: Duration::from_millis(100),
            lasts: Duration::from_secs(14),
            victim: Victim::Named(master(number)),
            action: FaultAction::SetClock(ahead_ms),
        }
    });
    let mut faults: Vec<_> = apart.collect();
    for turn in 0..8 {
        let at = ms(random, 300..1_500) + turn * Duration::from_millis(1_200);
        faults.push(kill(Victim::ActiveMaster, at, ms(random, 100..1_000)));
    }
    // They delay the regions that a procedure reopens.
    for _ in 0..3 {
        let (at, victim) = (ms(random, 300..9_000), owner(random, layout));
        faults.push(match random.in_range(0..3) {
            0 => kill(victim, at, ms(random, 300..1_500)),
            1 => Fault { at, ..pause::pause(random, victim) },
            _ => Fault { at, ..slow_links::slow(random, victim) },
        });
    }
    faults
}
