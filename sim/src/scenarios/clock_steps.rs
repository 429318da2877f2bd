//! Wall clocks of servers with regions and of the master are set far beyond the bound, while
//! regions move and servers die.

use basalt_runtime::Random;

use super::{Scenario, happens, kill, ms, owner};
use crate::faults::{Fault, FaultAction, Victim};
use crate::plan::Layout;

pub(super) const CLOCK_STEPS: Scenario = Scenario {
    name: "clock-steps",
    about: "the wall clock of a region server or the master is set wrong by two seconds to a day",
    layout: Layout { wall_clocks_set_by: Layout::SMALL.clock_bound, ..Layout::SMALL },
    faults: clock_steps,
};

/// The steps of a wall clock, in either direction.
const STEPS_MS: [i64; 4] = [2_000, 60_000, 3_600_000, 86_400_000];

fn clock_steps(random: &Random, layout: Layout) -> Vec<Fault> {
    let step_ms = || {
        let step_ms = random.pick(&STEPS_MS).copied().unwrap_or(86_400_000);
        if happens(random, 3) { -step_ms } else { step_ms }
    };
    let set = |victim: Victim| Fault {
        at: ms(random, 200..1_200),
        lasts: ms(random, 500..4_000),
        victim,
        action: FaultAction::SetClock(step_ms()),
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
