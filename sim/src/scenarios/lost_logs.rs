//! Logs of a dead region server disappear or become shorter, and come back. Meanwhile its regions
//! must stay closed: opening them without the logs would lose acknowledged writes.

use basalt_failpoint::{Answer, Point};
use basalt_runtime::Random;

use super::{Scenario, kill, ms, owner};
use crate::faults::{Fault, FaultAction, LogLoss, Trap, Victim};
use crate::plan::Layout;

pub(super) const LOST_LOGS: Scenario = Scenario {
    name: "lost-logs",
    about: "a region server is killed; all or some of its logs are missing or shorter for a while",
    layout: Layout::SMALL,
    faults: lost_logs,
};

pub(super) const SHORTENED_LOG: Scenario = Scenario {
    name: "shortened-log",
    about: "a log is shortened after it was sealed, and is restored after a while",
    layout: Layout::SMALL,
    faults: shortened_log,
};

/// How long the files are missing: long enough for every step of the recovery.
const AWAY_MS: std::ops::Range<u64> = 1_000..4_000;

fn lost_logs(random: &Random, layout: Layout) -> Vec<Fault> {
    let losses = [LogLoss::Folder, LogLoss::File, LogLoss::File, LogLoss::Closed];
    let loss = random.pick(&losses).copied().unwrap_or(LogLoss::Folder);
    let victim = owner(random, layout);
    let (at, lasts) = (ms(random, 300..1_200), ms(random, AWAY_MS));
    let mut faults = vec![Fault { at, lasts, victim, action: FaultAction::KillAndLoseLogs(loss) }];
    if random.in_range(0..10) < 4 {
        // The next master must notice the loss as well.
        let later = at + ms(random, 0..2_000);
        faults.push(kill(Victim::ActiveMaster, later, ms(random, 500..2_000)));
    }
    faults
}

fn shortened_log(random: &Random, layout: Layout) -> Vec<Fault> {
    let at = ms(random, 300..1_200);
    let answer = Answer::Wait(ms(random, 1..5));
    let sealer = Victim::Springing(Trap { point: Point::FenceRecorded, hit: 1, answer });
    let action = FaultAction::LoseLogs(LogLoss::Sealed);
    let shortened = Fault { at, lasts: ms(random, AWAY_MS), victim: sealer, action };
    vec![kill(owner(random, layout), at, ms(random, 500..2_000)), shortened]
}
