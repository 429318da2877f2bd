//! Disks that are slow, frozen or full, and syncs that fail.

use basalt_runtime::Random;

use super::{Scenario, coordinator, happens, kill, ms, owner};
use crate::faults::{Fault, FaultAction, Victim};
use crate::plan::{self, Layout};

pub(super) const DISK_FAULTS: Scenario = Scenario {
    name: "disk-faults",
    about: "the disks of one to four processes are slow, frozen, full or fail to sync",
    layout: Layout::SMALL,
    faults: disk_faults,
};

pub(super) const FLIPPED_BITS: Scenario = Scenario {
    name: "flipped-bits",
    about: "reads of store files and manifests return flipped bits while a region server is killed",
    layout: Layout::SMALL,
    faults: flipped_bits,
};

pub(super) fn trouble(random: &Random, victim: Victim) -> Fault {
    let failing = u32::try_from(random.in_range(1..4)).unwrap_or(1);
    let choices = [
        FaultAction::SlowDisk,
        FaultAction::FreezeDisk,
        FaultAction::FullDisk,
        FaultAction::FailSyncs(failing),
        FaultAction::FailStoreSyncs(failing),
    ];
    let action = random.pick(&choices).copied().unwrap_or(FaultAction::SlowDisk);
    Fault { at: ms(random, 300..2_000), lasts: ms(random, 200..3_000), victim, action }
}

fn disk_faults(random: &Random, layout: Layout) -> Vec<Fault> {
    let mut faults = vec![trouble(random, owner(random, layout))];
    if happens(random, 4) {
        faults.push(trouble(random, owner(random, layout)));
    }
    if happens(random, 4) {
        faults.push(trouble(random, coordinator::member(random, layout)));
    }
    if happens(random, 3) {
        faults.push(trouble(random, Victim::ActiveMaster));
    }
    faults
}

fn flipped_bits(random: &Random, layout: Layout) -> Vec<Fault> {
    let at = ms(random, 300..900);
    let mut faults = vec![kill(owner(random, layout), at, ms(random, 500..2_000))];
    for number in 0..layout.region_servers {
        let one_of = u32::try_from(random.in_range(2..20)).unwrap_or(2);
        let victim = Victim::Named(plan::region_server(number));
        let lasts = ms(random, 500..3_000);
        faults.push(Fault {
            at: ms(random, 100..1_500),
            lasts,
            victim,
            action: FaultAction::FlipBits(one_of),
        });
    }
    faults
}
