//! Scenarios of faults: one file for each kind of fault. The seed chooses moments, victims and
//! durations.

mod chaos;
mod clean_stop;
mod clock_drift;
mod clock_steps;
mod coordinator;
mod disk;
pub mod failpoints;
mod full_disk;
mod hdfs;
mod late_open;
mod lost_answers;
mod lost_logs;
mod master;
mod owners;
mod partition;
mod pause;
mod quorum_loss;
mod region_server;
mod slow_links;
mod standstill;
mod strangers;
mod tables;
mod upgrade;
mod whole_cluster;
mod wrong_hint;
mod zombie_append;

use std::time::Duration;

use basalt_runtime::Random;

use crate::faults::{Fault, FaultAction, Victim};
use crate::plan::Layout;

/// A cluster, and the faults that are injected into it.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// A description in one line.
    pub about: &'static str,
    /// The cluster.
    pub layout: Layout,
    /// The faults.
    pub faults: fn(&Random, Layout) -> Vec<Fault>,
}

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    region_server::CRASH,
    region_server::TWO_CRASHES,
    region_server::RECOVERER_CRASH,
    master::CRASH,
    master::DEPOSED,
    coordinator::CRASH,
    coordinator::ROLLING_CRASHES,
    partition::REGION_SERVER,
    partition::ISOLATED,
    partition::MASTER,
    partition::COORDINATOR,
    pause::REGION_SERVER,
    pause::MASTER,
    slow_links::SLOW_LINKS,
    disk::DISK_FAULTS,
    disk::FLIPPED_BITS,
    full_disk::FULL_DISK,
    full_disk::COORDINATOR,
    standstill::STANDSTILL,
    clock_drift::CLOCK_DRIFT,
    clock_drift::BEYOND_BOUND,
    clock_steps::CLOCK_STEPS,
    clock_steps::MASTER,
    clock_steps::MASTERS_APART,
    wrong_hint::WRONG_HINT,
    wrong_hint::UNAWARE,
    wrong_hint::UNAWARE_BEYOND_BOUND,
    wrong_hint::UNAWARE_READER,
    wrong_hint::KILLED_AFTER_SEAL,
    late_open::LATE_OPEN,
    lost_answers::LOST_ANSWERS,
    lost_answers::MUTE,
    lost_logs::LOST_LOGS,
    lost_logs::SHORTENED_LOG,
    failpoints::FAILPOINTS,
    failpoints::DELAYS,
    zombie_append::ZOMBIE_APPEND,
    quorum_loss::QUORUM_LOSS,
    quorum_loss::LOST_FOLDERS,
    quorum_loss::OLD_COPY,
    quorum_loss::FALSE_STATE,
    whole_cluster::CRASH,
    clean_stop::ROLLING_RESTART,
    clean_stop::STOP_AND_CRASH,
    owners::DRAIN_WHILE_OPENING,
    owners::ALTER_WHILE_OPENING,
    owners::STRAY_ORDERS,
    owners::LOST_OPEN,
    strangers::STRANGERS,
    chaos::CHAOS,
    tables::TABLES,
    tables::TABLES_CHAOS,
    upgrade::ROLLING_UPGRADE,
    hdfs::SERVER_CRASH,
    hdfs::NAME_NODE,
    hdfs::SHRINKING_LOG,
    hdfs::CHAOS,
];

/// The scenario with this name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

fn ms(random: &Random, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.in_range(range))
}

/// Returns true in `of_ten` of ten cases.
fn happens(random: &Random, of_ten: u64) -> bool {
    random.in_range(0..10) < of_ten
}

fn owner(random: &Random, layout: Layout) -> Victim {
    let region = random.in_range(0..u64::from(layout.regions));
    Victim::OwnerOf(u32::try_from(region).unwrap_or(0))
}

fn kill(victim: Victim, at: Duration, lasts: Duration) -> Fault {
    Fault { at, lasts, victim, action: FaultAction::Kill }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;
    use std::collections::BTreeSet;

    #[test]
    fn each_scenario_has_a_name_of_its_own_and_does_something() {
        let names: BTreeSet<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        for scenario in SCENARIOS {
            for seed in 0..20 {
                let random = Seed(seed).random_for("scenario", 0);
                let faults = (scenario.faults)(&random, scenario.layout);
                assert!(!faults.is_empty(), "{}", scenario.name);
                let end = faults.iter().map(Fault::ends_at).max().unwrap_or_default();
                assert!(end <= Duration::from_secs(20), "{}: {end:?}", scenario.name);
            }
        }
    }
}
