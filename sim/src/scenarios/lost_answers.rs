//! A region server executes requests and its answers do not arrive; then it is killed. Clients
//! repeat the requests to the next owners.

use std::time::Duration;

use basalt_runtime::Random;

use super::{Scenario, kill, ms, owner};
use crate::faults::{Direction, Fault, FaultAction, Peers};
use crate::plan::Layout;

pub(super) const LOST_ANSWERS: Scenario = Scenario {
    name: "lost-answers",
    about: "a region server is killed after its last answers to clients were lost",
    layout: Layout::SMALL,
    faults: lost_answers,
};

pub(super) const MUTE: Scenario = Scenario {
    name: "mute-region-server",
    about: "a region server's answers to clients are lost for a while, across flushes and merges",
    layout: Layout::SMALL,
    faults: mute,
};

/// Long enough for the nonces of repeated requests to be flushed, and shorter than the time for
/// which clients retry.
const MUTE_MS: std::ops::Range<u64> = 300..1_500;

fn mute(random: &Random, layout: Layout) -> Vec<Fault> {
    let mutes = (0..2).map(|round| Fault {
        at: ms(random, 300..900) + Duration::from_secs(2 * round),
        lasts: ms(random, MUTE_MS),
        victim: owner(random, layout),
        action: FaultAction::Cut(Direction::Out, Peers::Clients),
    });
    mutes.collect()
}

fn lost_answers(random: &Random, layout: Layout) -> Vec<Fault> {
    let (victim, at) = (owner(random, layout), ms(random, 300..900));
    let killed_at = at + ms(random, 30..230);
    let mute = Fault {
        at,
        lasts: ms(random, 1_000..2_000),
        victim: victim.clone(),
        action: FaultAction::Cut(Direction::Out, Peers::Clients),
    };
    vec![mute, kill(victim, killed_at, ms(random, 500..2_000))]
}
