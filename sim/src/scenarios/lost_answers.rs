//! A region server does what it is asked and its answers do not arrive; then it is killed. Clients
//! ask the next owners for the same things again.

use basalt_runtime::Random;

use super::{Scenario, kill, ms, owner};
use crate::faults::{Fault, Harm, Peers, Way};
use crate::plan::Layout;

pub(super) const LOST_ANSWERS: Scenario = Scenario {
    name: "lost-answers",
    about: "a region server is killed after its last answers to clients were lost",
    layout: Layout::SMALL,
    faults: lost_answers,
};

fn lost_answers(random: &Random, layout: Layout) -> Vec<Fault> {
    let (victim, at) = (owner(random, layout), ms(random, 300..900));
    let killed_at = at + ms(random, 30..230);
    let mute = Fault {
        at,
        lasts: ms(random, 1_000..2_000),
        victim: victim.clone(),
        harm: Harm::Cut(Way::Out, Peers::Clients),
    };
    vec![mute, kill(victim, killed_at, ms(random, 500..2_000))]
}
