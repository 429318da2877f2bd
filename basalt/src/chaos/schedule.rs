//! Decides which faults are injected where, and when. Pure, by a seed.
//!
//! Groups of faults follow each other. In each round every card of a deck is drawn once, in an
//! order that the seed decides. So no kind of fault depends on luck to occur.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use basalt_runtime::Random;

use crate::role_config::RoleName;

/// A kind of fault, as `--faults` names it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, clap::ValueEnum)]
pub(super) enum Kind {
    /// SIGKILL
    Kill,
    /// SIGSTOP, and SIGCONT after a while
    Pause,
    /// A link is cut, and restored after a while
    Cut,
    /// SIGTERM: a clean stop. The process is started again once it has ended
    Stop,
    /// All processes of a role are stopped cleanly, each once the previous one is ready again
    Roll,
    /// Most or all members of the coordinator are killed, paused or cut off at once
    QuorumLoss,
    /// A region server is drained; the drain is undone, or interrupted by a kill
    Drain,
    /// The disk of a coordinator member is full for a while
    FullDisk,
    /// During the run, tables are altered, disabled, emptied, deleted, flushed, compacted and
    /// balanced
    Administrator,
    /// Connections to every port that send nothing, or no request, and stay open
    Strangers,
}

/// A fault of a process.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum FaultAction {
    /// SIGKILL; it is started again.
    Kill,
    /// SIGSTOP, and SIGCONT after a while.
    Pause,
    /// Its link is cut, and heals after a while.
    Cut,
    /// SIGTERM; it is started again after it has ended.
    Stop,
}

/// The process that gets a fault.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Victim {
    /// This process of the cluster.
    Process(String),
    /// The master that is active at that time.
    ActiveMaster,
    /// This process outside the cluster.
    Foreign(String),
}

/// One fault of one process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Injection {
    /// The delay after the start of the group.
    pub(super) after: Duration,
    pub(super) victim: Victim,
    pub(super) action: FaultAction,
    /// The duration of the fault, unless it is a kill or a clean stop.
    pub(super) lasts: Duration,
}

/// Faults that belong together. The next group begins when their effects are over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum FaultGroup {
    /// All of these faults, independently of each other.
    Injections(Vec<Injection>),
    /// A rolling restart of these processes, all of one role, in this order.
    Roll { processes: Vec<String> },
    /// A fault of so many members of the coordinator at once that the others are no majority.
    QuorumLoss { members: Vec<String>, action: FaultAction, lasts: Duration },
    /// A drain of a region server that lasts for at most `lasts`.
    Drain { server: String, end: DrainEnd, lasts: Duration },
    /// The disk that can be filled is full for `lasts`.
    FullDisk { lasts: Duration },
}

/// How a drain ends. It is undone in any case.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum DrainEnd {
    /// No other fault ends it.
    Undone,
    /// The draining server is killed.
    ServerKilled,
    /// The active master, which moves the regions, is killed.
    MasterKilled,
}

/// What the schedule can choose from.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) processes: BTreeMap<String, RoleName>,
    /// Processes outside the cluster. They get the same faults, except for cut links and clean
    /// stops.
    pub(super) foreign: Vec<String>,
    pub(super) kinds: BTreeSet<Kind>,
    /// Whether links can be cut.
    pub(super) has_links: bool,
}

/// Chooses each group.
#[derive(Debug)]
pub(super) struct Schedule {
    random: Random,
    scope: Scope,
    /// The remaining cards of this round.
    deck: Vec<Card>,
}

/// The kind of a group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Card {
    Injections,
    Roll,
    QuorumLoss,
    Drain,
    FullDisk,
}

/// How many times each card is in a round.
const ROUND: [(Card, usize); 5] = [
    (Card::Injections, 8),
    (Card::Roll, 1),
    (Card::QuorumLoss, 1),
    (Card::Drain, 2),
    (Card::FullDisk, 1),
];
/// The kinds of faults that affect one process.
const INJECTED_ACTIONS: [(Kind, FaultAction); 4] = [
    (Kind::Kill, FaultAction::Kill),
    (Kind::Pause, FaultAction::Pause),
    (Kind::Cut, FaultAction::Cut),
    (Kind::Stop, FaultAction::Stop),
];
/// The shortest and the longest pause or cut: from well below the session timeout to well beyond
/// it.
const LASTS_MS: std::ops::Range<u64> = 200..5_000;
/// How long the coordinator has no quorum: from below the session timeout to beyond it.
const QUORUM_LOSS_MS: std::ops::Range<u64> = 1_000..6_000;
/// How long a server is drained. Some drains are complete by then, and others are still in
/// progress.
const DRAIN_MS: std::ops::Range<u64> = 20..1_500;
/// The delay of the second fault after a server has died or was asked to stop. The second fault
/// affects a process that takes part in the recovery.
const RECOVERY_MS: std::ops::Range<u64> = 10..600;
/// How long the cluster runs undisturbed between two groups, after all processes are ready again.
const CALM_MS: std::ops::Range<u64> = 500..4_000;

pub(super) fn milliseconds(random: &Random, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.in_range(range))
}

// === impl Schedule ===

impl Schedule {
    /// A schedule whose decisions all come from `random`.
    pub(super) fn new(random: Random, scope: Scope) -> Self {
        Self { random, scope, deck: Vec::new() }
    }

    /// Returns the next group. `None` if no kind of fault comes in groups.
    pub(super) fn next_group(&mut self) -> Option<FaultGroup> {
        if self.deck.is_empty() {
            let possible = ROUND.iter().filter(|(card, _)| self.is_possible(*card));
            let cards = possible.flat_map(|(card, count)| std::iter::repeat_n(*card, *count));
            self.deck = cards.collect();
            self.random.shuffle(&mut self.deck);
        }
        Some(match self.deck.pop()? {
            Card::Injections => FaultGroup::Injections(self.injections()),
            Card::Roll => self.roll(),
            Card::QuorumLoss => self.quorum_loss(),
            Card::Drain => self.drain()?,
            Card::FullDisk => FaultGroup::FullDisk { lasts: milliseconds(&self.random, LASTS_MS) },
        })
    }

    /// How long the cluster runs undisturbed now.
    pub(super) fn calm(&self) -> Duration {
        milliseconds(&self.random, CALM_MS)
    }

    fn is_possible(&self, card: Card) -> bool {
        let is_wanted = |kind| self.scope.kinds.contains(&kind);
        match card {
            Card::Injections => !self.actions().is_empty(),
            Card::Roll => is_wanted(Kind::Roll),
            Card::QuorumLoss => is_wanted(Kind::QuorumLoss),
            Card::Drain => is_wanted(Kind::Drain),
            Card::FullDisk => is_wanted(Kind::FullDisk),
        }
    }

    fn actions(&self) -> Vec<FaultAction> {
        let wanted = INJECTED_ACTIONS.iter().filter(|(kind, _)| self.scope.kinds.contains(kind));
        wanted.map(|(_, action)| *action).collect()
    }

    fn of_role(&self, role: RoleName) -> Vec<String> {
        let of_role = self.scope.processes.iter().filter(|(_, its)| **its == role);
        of_role.map(|(name, _)| name.clone()).collect()
    }

    /// One process, two at once, or a region server and then a process that takes part in its
    /// recovery.
    fn injections(&self) -> Vec<Injection> {
        let (random, actions) = (&self.random, self.actions());
        let all: Vec<_> = self.scope.processes.keys().chain(&self.scope.foreign).cloned().collect();
        let now = Duration::ZERO;
        let leaves: Vec<_> = actions
            .iter()
            .filter(|action| matches!(action, FaultAction::Kill | FaultAction::Stop))
            .collect();
        // Other servers take over regions only if a server ends.
        let dice_end = if leaves.is_empty() { 8 } else { 10 };
        let group: Vec<Option<Injection>> = match random.in_range(0..dice_end) {
            0..5 => vec![random.pick(&all).map(|name| self.injection(self.victim(name), now))],
            5..8 => {
                let pair = self.two(&all).into_iter();
                pair.map(|name| Some(self.injection(self.victim(&name?), now))).collect()
            }
            dice => {
                let [gone, recoverer] = self.two(&self.of_role(RoleName::RegionServer));
                let later = milliseconds(random, RECOVERY_MS);
                let recoverer = match dice {
                    8 => Some(Victim::ActiveMaster),
                    _ => recoverer.map(Victim::Process),
                };
                let leave = random.pick(&leaves).map_or(FaultAction::Kill, |action| **action);
                let gone = gone.map(|name| self.injection(Victim::Process(name), now));
                vec![
                    gone.map(|gone| Injection { action: leave, ..gone }),
                    recoverer.map(|victim| self.injection(victim, later)),
                ]
            }
        };
        group.into_iter().flatten().collect()
    }

    /// A fault of `victim`, of a kind that is possible there.
    fn injection(&self, victim: Victim, after: Duration) -> Injection {
        let action = self.random.pick(&self.actions()).copied().unwrap_or(FaultAction::Kill);
        let action = match (&victim, action) {
            (Victim::Foreign(_), FaultAction::Cut) => FaultAction::Pause,
            (Victim::Foreign(_), FaultAction::Stop) => FaultAction::Kill,
            (_, action) => action,
        };
        Injection { after, victim, action, lasts: milliseconds(&self.random, LASTS_MS) }
    }

    fn victim(&self, name: &String) -> Victim {
        match self.scope.processes.contains_key(name) {
            true => Victim::Process(name.clone()),
            false => Victim::Foreign(name.clone()),
        }
    }

    /// Two different names of `of`, or fewer if there are not enough.
    fn two(&self, of: &[String]) -> [Option<String>; 2] {
        let mut of = of.to_vec();
        self.random.shuffle(&mut of);
        let mut of = of.into_iter();
        [of.next(), of.next()]
    }

    fn roll(&self) -> FaultGroup {
        let roles: BTreeSet<_> = self.scope.processes.values().copied().collect();
        let roles: Vec<_> = roles.into_iter().collect();
        let role = self.random.pick(&roles).copied().unwrap_or(RoleName::RegionServer);
        FaultGroup::Roll { processes: self.of_role(role) }
    }

    fn quorum_loss(&self) -> FaultGroup {
        let random = &self.random;
        let mut members = self.of_role(RoleName::Coordinator);
        // Without half of the members, rounded up, the rest is no majority.
        let least = members.len().div_ceil(2) as u64;
        let count = random.in_range(least..members.len() as u64 + 1);
        random.shuffle(&mut members);
        members.truncate(count as usize);
        let actions = match self.scope.has_links {
            true => &[FaultAction::Kill, FaultAction::Pause, FaultAction::Cut][..],
            false => &[FaultAction::Kill, FaultAction::Pause],
        };
        let action = random.pick(actions).copied().unwrap_or(FaultAction::Kill);
        FaultGroup::QuorumLoss { members, action, lasts: milliseconds(random, QUORUM_LOSS_MS) }
    }

    fn drain(&self) -> Option<FaultGroup> {
        let random = &self.random;
        let server = random.pick(&self.of_role(RoleName::RegionServer))?.clone();
        let ends = [DrainEnd::Undone, DrainEnd::ServerKilled, DrainEnd::MasterKilled];
        let end = random.pick(&ends).copied()?;
        Some(FaultGroup::Drain { server, end, lasts: milliseconds(random, DRAIN_MS) })
    }
}

// === impl FaultAction ===

impl FaultAction {
    /// The fault's name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Cut => "cut",
            Self::Stop => "stop",
        }
    }
}

// === impl DrainEnd ===

impl DrainEnd {
    /// The name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Undone => "drain undone",
            Self::ServerKilled => "drain, server killed",
            Self::MasterKilled => "drain, master killed",
        }
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
