//! A server that opens a region is declared dead without learning of it, and records OPEN when the
//! region already has another owner.
//!
//! Its replay is slow, its connections to the masters are reset, and its link to the coordinator is
//! cut. A write to the coordinator is held and arrives once the link is back, before the server's
//! session has ended. Its disk is frozen meanwhile: otherwise the next sync of its log, which was
//! taken from it, would end the server.

use std::time::Duration;

use basalt_failpoint::{Answer, Point};
use basalt_runtime::Random;

use super::{Scenario, kill, ms, owner};
use crate::faults::{Direction, Fault, FaultAction, Peers, Trap, Victim};
use crate::plan::Layout;

pub(super) const LATE_OPEN: Scenario = Scenario {
    name: "late-open",
    about: "a write of a dead opener arrives when the region already has its next owner",
    layout: Layout { region_servers: 4, ..Layout::SMALL },
    faults: late_open,
};

/// How long the opener is cut off: longer than the lease and its margin (800 ms), so that another
/// server has opened the region, and shorter than the session (1.5 s).
const CUT_MS: std::ops::Range<u64> = 880..1_200;
/// How long it replays: shorter than the cut.
const REPLAY_MS: std::ops::Range<u64> = 20..800;

fn late_open(random: &Random, layout: Layout) -> Vec<Fault> {
    let at = ms(random, 300..900);
    let hit = 1 + u32::try_from(random.in_range(0..2)).unwrap_or(0);
    let answer = Answer::Wait(ms(random, REPLAY_MS));
    let opener = Victim::Springing(Trap { point: Point::OpenReplayed, hit, answer });
    let cut = Fault {
        at,
        lasts: ms(random, CUT_MS),
        victim: opener.clone(),
        action: FaultAction::Cut(Direction::Both, Peers::Coordinators),
    };
    let refused = Fault {
        at,
        lasts: cut.lasts + Duration::from_millis(500),
        victim: opener.clone(),
        action: FaultAction::Refuse(Peers::Masters),
    };
    let frozen = Fault {
        at,
        lasts: cut.lasts + Duration::from_millis(200),
        victim: opener,
        action: FaultAction::FreezeDisk,
    };
    vec![kill(owner(random, layout), at, ms(random, 2_000..4_000)), cut, refused, frozen]
}
