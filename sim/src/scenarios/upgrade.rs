//! Servers of one release are replaced by servers of the next, one after another, while tables are
//! truncated, which only the next release can do.

use std::time::Duration;

use basalt_model::FeatureLevel;
use basalt_runtime::Random;

use super::{Scenario, happens, kill, ms, owner};
use crate::actors::Actors;
use crate::faults::{Fault, FaultAction, Victim};
use crate::plan::{Layout, master, region_server};

pub(super) const ROLLING_UPGRADE: Scenario = Scenario {
    name: "rolling-upgrade",
    about: "masters and region servers are replaced by the next release; some are rolled back",
    layout: Layout {
        tables: 2,
        feature_level: FeatureLevel::OLDEST,
        actors: Actors { level_observer: true, ..Actors::NONE },
        ..Layout::SMALL
    },
    faults: rolling_upgrade,
};

/// The time between two replacements.
const INTERVAL_MS: std::ops::Range<u64> = 200..1_500;

/// Each process is replaced in the end. Before that it may be rolled back, and any process may be
/// killed.
fn rolling_upgrade(random: &Random, layout: Layout) -> Vec<Fault> {
    let masters = (0..layout.masters).map(master);
    let mut names: Vec<_> = masters.chain((0..layout.region_servers).map(region_server)).collect();
    random.shuffle(&mut names);
    let (mut faults, mut at) = (Vec::new(), ms(random, 200..900));
    for name in &names {
        faults.push(replace(name, FeatureLevel::NEWEST, at));
        at += ms(random, INTERVAL_MS);
        if happens(random, 3) {
            faults.push(replace(name, FeatureLevel::OLDEST, at));
            at += ms(random, INTERVAL_MS);
            faults.push(replace(name, FeatureLevel::NEWEST, at));
            at += ms(random, INTERVAL_MS);
        }
        if happens(random, 3) {
            let victim =
                if happens(random, 5) { Victim::ActiveMaster } else { owner(random, layout) };
            faults.push(kill(victim, at, ms(random, 200..1_500)));
        }
    }
    faults
}

fn replace(name: &str, level: FeatureLevel, at: Duration) -> Fault {
    let victim = Victim::Named(name.to_owned());
    Fault { at, lasts: Duration::from_millis(500), victim, action: FaultAction::Replace(level) }
}
