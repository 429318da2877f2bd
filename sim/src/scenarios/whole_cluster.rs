//! All processes are killed at once, as in a power cut, and started again.

use basalt_runtime::Random;

use super::{Scenario, kill, ms};
use crate::faults::{Fault, Victim};
use crate::plan::Layout;

pub(super) const CRASH: Scenario = Scenario {
    name: "whole-cluster-crash",
    about: "all processes are killed at once, and started again one by one",
    layout: Layout::SMALL,
    faults: crash,
};

fn crash(random: &Random, layout: Layout) -> Vec<Fault> {
    let at = ms(random, 300..1_500);
    let all = layout.processes().into_iter();
    all.map(|name| kill(Victim::Named(name), at, ms(random, 300..2_000))).collect()
}
