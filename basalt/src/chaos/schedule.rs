//! Which faults are injected where, and when: pure, by a seed.
//!
//! Groups of faults follow each other. In each round every card of a deck comes once, in an order
//! of the seed's choice, so that no kind of fault has to wait for its luck.

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

/// What is done to a process.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum FaultAction {
    /// SIGKILL; it is started again.
    Kill,
    /// SIGSTOP, and SIGCONT after a while.
    Pause,
    /// Its link is cut, and heals after a while.
    Cut,
    /// SIGTERM; it is started again once it has ended.
    Stop,
}

/// Whom it is done to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Victim {
    /// This process.
    Process(String),
    /// Whoever is active then.
    ActiveMaster,
    /// This one, which is not of the cluster.
    Foreign(String),
}

/// One fault of one process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Injection {
    /// How long after the group begins.
    pub(super) after: Duration,
    pub(super) victim: Victim,
    pub(super) action: FaultAction,
    /// How long it lasts, unless it is a kill or a clean stop.
    pub(super) lasts: Duration,
}

/// Faults that belong together; the next group comes once their effects are over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum FaultGroup {
    /// Each of these, whatever becomes of the others.
    Injections(Vec<Injection>),
    /// A rolling restart of these processes, all of one role, in this order.
    Roll { processes: Vec<String> },
    /// So many members of the coordinator at once that the others are no majority.
    QuorumLoss { members: Vec<String>, action: FaultAction, lasts: Duration },
    /// A drain of a region server that goes on for so long at most.
    Drain { server: String, end: DrainEnd, lasts: Duration },
    /// The disk that can be filled is full for so long.
    FullDisk { lasts: Duration },
}

/// How a drain ends. It is undone in any case.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum DrainEnd {
    /// By nothing else.
    Undone,
    /// The server that is drained is killed.
    ServerKilled,
    /// The active master, which moves the regions, is killed.
    MasterKilled,
}

/// What groups may be made of.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) processes: BTreeMap<String, RoleName>,
    /// They get the faults that processes of the cluster get, but for their links and clean stops.
    pub(super) foreign: Vec<String>,
    pub(super) kinds: BTreeSet<Kind>,
    /// Whether links can be cut.
    pub(super) has_links: bool,
}

/// Decides each group.
#[derive(Debug)]
pub(super) struct Schedule {
    random: Random,
    scope: Scope,
    /// What is left of this round.
    deck: Vec<Card>,
}

/// What a group is to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Card {
    Injections,
    Roll,
    QuorumLoss,
    Drain,
    FullDisk,
}

/// How often each card is in a round.
const ROUND: [(Card, usize); 5] = [
    (Card::Injections, 8),
    (Card::Roll, 1),
    (Card::QuorumLoss, 1),
    (Card::Drain, 2),
    (Card::FullDisk, 1),
];
/// The kinds of faults of one process.
const INJECTED_ACTIONS: [(Kind, FaultAction); 4] = [
    (Kind::Kill, FaultAction::Kill),
    (Kind::Pause, FaultAction::Pause),
    (Kind::Cut, FaultAction::Cut),
    (Kind::Stop, FaultAction::Stop),
];
/// The shortest and the longest pause or cut: well below a session's end, and well beyond.
const LASTS_MS: std::ops::Range<u64> = 200..5_000;
/// For how long the coordinator has no quorum: below a session's end, and beyond.
const QUORUM_LOSS_MS: std::ops::Range<u64> = 1_000..6_000;
/// For how long a server is drained: some drains have ended by then, others are under way.
const DRAIN_MS: std::ops::Range<u64> = 20..1_500;
/// How long after a server has gone, or has been asked to, the one that takes over gets a fault.
const RECOVERY_MS: std::ops::Range<u64> = 10..600;
/// How long the cluster has between two groups, once all processes are ready again.
const CALM_MS: std::ops::Range<u64> = 500..4_000;

pub(super) fn milliseconds(random: &Random, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.in_range(range))
}

// === impl Schedule ===

impl Schedule {
    /// All decisions are those of `random`.
    pub(super) fn new(random: Random, scope: Scope) -> Self {
        Self { random, scope, deck: Vec::new() }
    }

    /// The next group; `None` if no kind of fault comes in groups.
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

    /// How long the cluster is left alone now.
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

    /// One process, two at once, or a region server and then who takes its regions over.
    fn injections(&self) -> Vec<Injection> {
        let (random, actions) = (&self.random, self.actions());
        let all: Vec<_> = self.scope.processes.keys().chain(&self.scope.foreign).cloned().collect();
        let now = Duration::ZERO;
        let leaves: Vec<_> = actions
            .iter()
            .filter(|action| matches!(action, FaultAction::Kill | FaultAction::Stop))
            .collect();
        // Others take over the regions only of a server that has gone.
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

    /// One fault of `victim`, of a kind that is possible there.
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

    /// Two that differ, or only one.
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
        // Half of them, rounded up, leave no majority.
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
    /// Its name in reports.
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
    /// Its name in reports.
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
