//! A paused region server resumes after its regions have been taken over, and its last append
//! reaches the sealed log. Then the new owners die before they have flushed.

use std::time::Duration;

use basalt_runtime::Random;

use super::{Scenario, kill, ms, owner};
use crate::faults::{Fault, FaultAction, Victim};
use crate::plan::{self, Layout};

pub(super) const ZOMBIE_APPEND: Scenario = Scenario {
    name: "zombie-append",
    about: "a log grows beyond its sealed length when its writer resumes, then is recovered again",
    layout: Layout::SMALL,
    faults: zombie_append,
};

/// A pause of at least 2.4 s is longer than the session (1.5 s) plus the lease that the master
/// waits for after that (0.75 s and its margin).
const PAUSE_MS: std::ops::Range<u64> = 2_400..3_200;

fn zombie_append(random: &Random, layout: Layout) -> Vec<Fault> {
    let (at, lasts) = (ms(random, 300..900), ms(random, PAUSE_MS));
    let mut faults =
        vec![Fault { at, lasts, victim: owner(random, layout), action: FaultAction::Pause }];
    // All region servers: the ones that took over are among them.
    let killed_at = at + lasts + Duration::from_millis(5) + ms(random, 0..600);
    for number in 0..layout.region_servers {
        let victim = Victim::Named(plan::region_server(number));
        faults.push(kill(victim, killed_at, ms(random, 300..1_000)));
    }
    faults
}
