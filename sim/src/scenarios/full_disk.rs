//! Disks are full, and have no other fault: no process may end because of this.

use std::time::Duration;

use basalt_runtime::Random;

use super::{Scenario, coordinator, happens, kill, ms, owner};
use crate::actors::Actors;
use crate::faults::{Fault, FaultAction, Victim};
use crate::plan::Layout;

pub(super) const FULL_DISK: Scenario = Scenario {
    name: "full-disk",
    about: "the disks of one to three processes are full for a while",
    layout: Layout::SMALL,
    faults: full_disk,
};

pub(super) const COORDINATOR: Scenario = Scenario {
    name: "coordinator-full-disk",
    about: "the disks of some or all members of the coordinator are full, and a client without a \
            lease writes a lot",
    layout: Layout {
        actors: Actors { node_writer: true, ..Actors::NONE },
        // Enough to elect a leader or recover a region server. A full disk costs no process its
        // lease.
        write_outage_max: Some(Duration::from_secs(3)),
        ..Layout::SMALL
    },
    faults: coordinator_full_disk,
};

fn fill(random: &Random, victim: Victim) -> Fault {
    let (at, lasts) = (ms(random, 300..2_000), ms(random, 500..6_000));
    Fault { at, lasts, victim, action: FaultAction::FullDisk }
}

fn full_disk(random: &Random, layout: Layout) -> Vec<Fault> {
    let mut faults = vec![fill(random, owner(random, layout))];
    if happens(random, 5) {
        faults.push(fill(random, coordinator::member(random, layout)));
    }
    if happens(random, 3) {
        faults.push(fill(random, Victim::ActiveMaster));
    }
    faults
}

/// The disks are full long enough for the reserved space to be used up if all writes may use it,
/// which is the case where the other members are a majority. Sometimes they are full long enough
/// for everything that a member writes only now and then. A region server may die meanwhile: its
/// regions must find another owner all the same. A member may be killed, and start on a full disk.
fn coordinator_full_disk(random: &Random, layout: Layout) -> Vec<Fault> {
    let members = coordinator::shuffled(random, layout);
    let count = random.in_range(1..layout.coordinators + 1);
    let begin = ms(random, 300..1_000);
    let duration = if happens(random, 3) { 11_000..14_000 } else { 4_000..7_000 };
    let mut faults = Vec::new();
    for victim in members.iter().take(usize::try_from(count).unwrap_or(usize::MAX)) {
        let (at, lasts) = (begin + ms(random, 0..300), ms(random, duration.clone()));
        faults.push(Fault { at, lasts, victim: victim.clone(), action: FaultAction::FullDisk });
    }
    if happens(random, 3)
        && let Some(member) = members.first()
    {
        faults.push(kill(member.clone(), begin + ms(random, 500..3_000), ms(random, 200..1_000)));
    }
    if happens(random, 3) {
        let at = begin + ms(random, 0..4_000);
        faults.push(kill(owner(random, layout), at, ms(random, 500..2_000)));
    }
    faults
}
