//! Most members of the coordinator are unavailable for longer than a session may be silent, lose
//! their folders, or come back with old copies of them. Or the state of one differs from the
//! others'.

use std::time::Duration;

use basalt_runtime::Random;

use super::{Scenario, coordinator, happens, kill, ms, owner};
use crate::faults::{Direction, Fault, FaultAction, Peers, Victim};
use crate::folder::Folder;
use crate::plan::Layout;

pub(super) const QUORUM_LOSS: Scenario = Scenario {
    name: "coordinator-quorum-loss",
    about: "two or all members of the coordinator are killed or cut off for longer than a session \
            may be silent",
    layout: Layout::SMALL,
    faults: quorum_loss,
};

pub(super) const LOST_FOLDERS: Scenario = Scenario {
    name: "coordinator-lost-folders",
    about: "all members of the coordinator are killed, and one or two lose their folders; if two \
            do, one folder is restored",
    layout: Layout::SMALL,
    faults: lost_folders,
};

pub(super) const OLD_COPY: Scenario = Scenario {
    name: "coordinator-old-copy",
    about: "a member of the coordinator comes back with an old copy of its folder, while the only \
            other running member was down before",
    layout: Layout::SMALL,
    faults: old_copy,
};

pub(super) const FALSE_STATE: Scenario = Scenario {
    name: "coordinator-false-state",
    about: "the state of a member of the coordinator differs from that of the others",
    layout: Layout::SMALL,
    faults: false_state,
};

fn folder(victim: &Victim, at: Duration, lasts: Duration, what: Folder) -> Fault {
    Fault { at, lasts, victim: victim.clone(), action: FaultAction::Folder(what) }
}

fn quorum_loss(random: &Random, layout: Layout) -> Vec<Fault> {
    let (at, lasts) = (ms(random, 300..1_500), ms(random, 3_000..6_000));
    // Members that were cut off come back at the same moment: the previous leader still leads then.
    let (action, spared, apart_ms) = match random.in_range(0..10) {
        0..3 => (FaultAction::Kill, 1, 400),
        3 => (FaultAction::Kill, 0, 400),
        4 => (FaultAction::Cut(Direction::Both, Peers::Coordinators), 0, 1),
        _ => (FaultAction::Cut(Direction::Both, Peers::All), 0, 1),
    };
    let victims = coordinator::shuffled(random, layout).into_iter().skip(spared);
    let lasts = || lasts + ms(random, 0..apart_ms);
    victims.map(|victim| Fault { at, lasts: lasts(), victim, action }).collect()
}

fn lost_folders(random: &Random, layout: Layout) -> Vec<Fault> {
    let at = ms(random, 300..1_500);
    let victims = coordinator::shuffled(random, layout);
    let lost = 1 + usize::from(happens(random, 7));
    let action =
        |place| if place < lost { FaultAction::Folder(Folder::Lost) } else { FaultAction::Kill };
    let faults = victims.iter().enumerate().map(|(place, victim)| Fault {
        at,
        lasts: ms(random, 300..1_500),
        victim: victim.clone(),
        action: action(place),
    });
    let mut faults: Vec<_> = faults.collect();
    // A majority of the folders is empty: no member serves until one of the lost folders is
    // restored.
    if let (2.., Some(victim)) = (lost, victims.first()) {
        let found_at = at + ms(random, 4_000..6_000);
        faults.push(folder(victim, found_at, ms(random, 100..500), Folder::Restored));
    }
    faults
}

/// Everything that the first and the last member commit while the second is away is only in the
/// last one's folder when the first comes back with its old copy.
fn old_copy(random: &Random, layout: Layout) -> Vec<Fault> {
    let victims = coordinator::shuffled(random, layout);
    let [copied, away, last] = &victims[..] else { return Vec::new() };
    let at = ms(random, 300..900);
    let restored_at = at + ms(random, 2_500..4_000);
    let leaves_at = restored_at - ms(random, 600..900);
    let away_for = restored_at + ms(random, 100..300) - leaves_at;
    vec![
        folder(copied, at, ms(random, 100..300), Folder::Copied),
        kill(away.clone(), leaves_at, away_for),
        folder(copied, restored_at, ms(random, 100..300), Folder::Restored),
        kill(last.clone(), restored_at, ms(random, 2_000..4_000)),
    ]
}

fn false_state(random: &Random, layout: Layout) -> Vec<Fault> {
    let victim = coordinator::member(random, layout);
    let at = ms(random, 300..900);
    let mut faults = vec![folder(&victim, at, ms(random, 100..500), Folder::Falsified)];
    // Others connect again while the member is running.
    let later = at + ms(random, 800..3_000);
    let other = if happens(random, 5) { Victim::ActiveMaster } else { owner(random, layout) };
    faults.push(kill(other, later, ms(random, 1_800..3_000)));
    if happens(random, 5) {
        // As operators are advised to do: the member starts empty and receives the whole state
        // again.
        let emptied_at = at + ms(random, 3_000..4_000);
        faults.push(folder(&victim, emptied_at, ms(random, 100..500), Folder::Lost));
    }
    faults
}
