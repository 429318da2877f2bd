//! Most of the coordinator's members are away for longer than a session may be silent, lose their
//! folders, or come back with old copies of them.

use std::time::Duration;

use basalt_runtime::Random;

use super::{Scenario, happens, kill, ms};
use crate::faults::{Fault, Harm, Peers, Victim, Way};
use crate::folder::Folder;
use crate::plan::{self, Layout};

pub(super) const QUORUM_LOSS: Scenario = Scenario {
    name: "coordinator-quorum-loss",
    about: "two or all members of the coordinator are killed or cut off for longer than a session \
            may be silent",
    layout: Layout::SMALL,
    faults: quorum_loss,
};

pub(super) const LOST_FOLDERS: Scenario = Scenario {
    name: "coordinator-lost-folders",
    about: "all members of the coordinator are killed, and one or two lose their folders; of two, \
            one is found again",
    layout: Layout::SMALL,
    faults: lost_folders,
};

pub(super) const OLD_COPY: Scenario = Scenario {
    name: "coordinator-old-copy",
    about: "a member of the coordinator comes back with an old copy of its folder, while only one \
            is there that was away too",
    layout: Layout::SMALL,
    faults: old_copy,
};

/// The members, in an order of the seed's choice.
fn shuffled(random: &Random, layout: Layout) -> Vec<Victim> {
    let mut ids: Vec<u64> = (1..=layout.coordinators).collect();
    for place in (1..ids.len()).rev() {
        let other = random.in_range(0..place as u64 + 1);
        ids.swap(place, usize::try_from(other).unwrap_or(0));
    }
    ids.into_iter().map(|id| Victim::Named(plan::coordinator(id))).collect()
}

fn folder(victim: &Victim, at: Duration, lasts: Duration, what: Folder) -> Fault {
    Fault { at, lasts, victim: victim.clone(), harm: Harm::Folder(what) }
}

fn quorum_loss(random: &Random, layout: Layout) -> Vec<Fault> {
    let at = ms(random, 300..1_500);
    let lasts = ms(random, 3_000..10_000);
    let count = if happens(random, 3) { layout.coordinators } else { layout.coordinators - 1 };
    let cut_off = happens(random, 4);
    let victims = shuffled(random, layout).into_iter();
    let away = victims.take(usize::try_from(count).unwrap_or(0)).map(|victim| {
        let lasts = lasts + ms(random, 0..400);
        match cut_off {
            true => Fault { at, lasts, victim, harm: Harm::Cut(Way::Both, Peers::All) },
            false => kill(victim, at, lasts),
        }
    });
    away.collect()
}

fn lost_folders(random: &Random, layout: Layout) -> Vec<Fault> {
    let at = ms(random, 300..1_500);
    let mut faults = Vec::new();
    let victims = shuffled(random, layout);
    let lost = 1 + usize::from(happens(random, 7));
    for (place, victim) in victims.iter().enumerate() {
        let lasts = ms(random, 300..1_500);
        faults.push(match place < lost {
            true => folder(victim, at, lasts, Folder::Lost),
            false => kill(victim.clone(), at, lasts),
        });
    }
    // A majority is empty: nothing is served until one of its folders is found.
    if lost > 1 {
        let found = at + ms(random, 4_000..6_000);
        faults.extend(
            victims
                .first()
                .map(|victim| folder(victim, found, ms(random, 100..500), Folder::Restored)),
        );
    }
    faults
}

fn old_copy(random: &Random, layout: Layout) -> Vec<Fault> {
    let victims = shuffled(random, layout);
    let [copied, away, last] = &victims[..] else {
        return Vec::new();
    };
    let at = ms(random, 300..900);
    let copied_again = at + ms(random, 2_500..4_000);
    let leaves = copied_again - ms(random, 600..900);
    vec![
        folder(copied, at, ms(random, 100..300), Folder::Copied),
        kill(away.clone(), leaves, copied_again + ms(random, 100..300) - leaves),
        folder(copied, copied_again, ms(random, 100..300), Folder::Restored),
        kill(last.clone(), copied_again, ms(random, 2_000..4_000)),
    ]
}
