//! Serving threads stand still, while the threads that renew leases and sessions keep running.

use basalt_runtime::Random;

use super::{Scenario, ms, owner};
use crate::faults::{Fault, FaultAction};
use crate::plan::Layout;

pub(super) const STANDSTILL: Scenario = Scenario {
    name: "standstill",
    about: "a region server answers no requests, but still reaches the coordinator",
    layout: Layout::SMALL,
    faults: standstill,
};

fn standstill(random: &Random, layout: Layout) -> Vec<Fault> {
    let (at, lasts) = (ms(random, 300..2_000), ms(random, 4_000..8_000));
    vec![Fault { at, lasts, victim: owner(random, layout), action: FaultAction::StandStill }]
}
