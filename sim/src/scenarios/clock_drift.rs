//! Clocks run too fast or too slow within the stated bound, and wall clocks are set.

use std::time::Duration;

use basalt_runtime::Random;

use super::{Scenario, happens, kill, ms, owner, partition, pause};
use crate::faults::{Direction, Fault, FaultAction, Victim};
use crate::plan::{DRIFT_PPM_MAX, Layout};

pub(super) const CLOCK_DRIFT: Scenario = Scenario {
    name: "clock-drift",
    about: "all clocks drift within the bound, wall clocks jump, and a region server falls silent",
    layout: Layout {
        clock_drift_ppm: DRIFT_PPM_MAX,
        clock_bound: DRIFTED_APART_MAX,
        wall_clocks_set_by: Duration::from_millis(SET_BY_MS_MAX),
        ..Layout::SMALL
    },
    faults: clock_drift,
};

/// No real clock drifts this far from others within a minute, and real clocks are corrected from
/// time to time. So these scenarios do not require clocks to stay within the usual bound.
pub(super) const DRIFTED_APART_MAX: Duration = Duration::from_secs(60);

/// One clock may run 16 % too slow and another 16 % too fast: a lease of 750 ms then lasts 890 ms,
/// and a wait of 800 ms ends after 690 ms.
pub(super) const BEYOND_BOUND: Scenario = Scenario {
    name: "clocks-beyond-bound",
    about: "like clock-drift, with clocks that drift far beyond the bound: all that is required is \
            that nothing is lost",
    layout: Layout { clock_drift_ppm: 160_000, clock_bound: DRIFTED_APART_MAX, ..Layout::SMALL },
    faults: clock_drift,
};

/// The maximum by which wall clocks are set, in either direction.
const SET_BY_MS_MAX: u64 = 200;

fn clock_drift(random: &Random, layout: Layout) -> Vec<Fault> {
    let set_by_ms = i64::try_from(random.in_range(0..2 * SET_BY_MS_MAX)).unwrap_or(0);
    let ahead_ms = set_by_ms - SET_BY_MS_MAX as i64;
    let set = |victim: Victim| Fault {
        at: ms(random, 0..900),
        lasts: ms(random, 500..4_000),
        victim,
        action: FaultAction::SetClock(ahead_ms),
    };
    let mut faults = vec![set(owner(random, layout)), set(Victim::ActiveMaster)];
    faults.push(match random.in_range(0..3) {
        0 => pause::pause(random, owner(random, layout)),
        1 => {
            let cut = partition::cut(random, owner(random, layout));
            let action = FaultAction::Cut(Direction::Both, crate::faults::Peers::Coordinators);
            Fault { action, ..cut }
        }
        _ => kill(owner(random, layout), ms(random, 300..900), ms(random, 500..2_000)),
    });
    if happens(random, 3) {
        let at = ms(random, 300..2_500);
        faults.push(kill(Victim::ActiveMaster, at, ms(random, 500..2_000)));
    }
    faults
}
