//! Which faults are injected where, and when: pure, by a seed.
//!
//! Blows follow each other. In each round every card of a deck comes once, in an order of the
//! seed's choice, so that no kind of fault has to wait for its luck.

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
    /// A link is cut, and heals after a while
    Cut,
    /// SIGTERM: a clean stop; started again once it has ended
    Stop,
    /// All processes of a role are stopped cleanly, each once the one before is ready again
    Roll,
    /// Most or all members of the coordinator are killed, paused or cut off at once
    QuorumLoss,
    /// A region server is drained; the drain is undone, or interrupted by a kill
    Drain,
    /// The disk of a member of the coordinator is full for a while
    FullDisk,
    /// Tables are altered, disabled, emptied, deleted, flushed, compacted and balanced meanwhile
    Administrator,
    /// Connections to every port that send nothing, or no request, and stay
    Strangers,
}

/// What is done to a process.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Harm {
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
    /// Whoever is in charge then.
    ActiveMaster,
    /// This one, which is not of the cluster.
    Foreign(String),
}

/// One fault of one process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Strike {
    /// How long after the blow begins.
    pub(super) after: Duration,
    pub(super) victim: Victim,
    pub(super) harm: Harm,
    /// How long it lasts, unless it is a kill or a clean stop.
    pub(super) lasts: Duration,
}

/// Faults that belong together; the next blow comes once their effects are over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Blow {
    /// Each of these, whatever becomes of the others.
    Strikes(Vec<Strike>),
    /// A rolling restart of these processes, all of one role, in this order.
    Roll { processes: Vec<String> },
    /// So many members of the coordinator at once that the others are no majority.
    QuorumLoss { members: Vec<String>, harm: Harm, lasts: Duration },
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

/// What blows may be made of.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) processes: BTreeMap<String, RoleName>,
    /// They are struck as processes of the cluster are, but for their links and clean stops.
    pub(super) foreign: Vec<String>,
    pub(super) kinds: BTreeSet<Kind>,
    /// Whether links can be cut.
    pub(super) has_links: bool,
}

/// Decides each blow.
#[derive(Debug)]
pub(super) struct Schedule {
    random: Random,
    scope: Scope,
    /// What is left of this round.
    deck: Vec<Card>,
}

/// What a blow is to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Card {
    Strikes,
    Roll,
    QuorumLoss,
    Drain,
    FullDisk,
}

/// How often each card is in a round.
const ROUND: [(Card, usize); 5] = [
    (Card::Strikes, 8),
    (Card::Roll, 1),
    (Card::QuorumLoss, 1),
    (Card::Drain, 2),
    (Card::FullDisk, 1),
];
/// The kinds that strike one process.
const STRIKES: [(Kind, Harm); 4] = [
    (Kind::Kill, Harm::Kill),
    (Kind::Pause, Harm::Pause),
    (Kind::Cut, Harm::Cut),
    (Kind::Stop, Harm::Stop),
];
/// The shortest and the longest pause or cut: well below a session's end, and well beyond.
const LASTS_MS: std::ops::Range<u64> = 200..5_000;
/// For how long the coordinator has no quorum: below a session's end, and beyond.
const QUORUM_LOSS_MS: std::ops::Range<u64> = 1_000..6_000;
/// For how long a server is drained: some drains have ended by then, others are under way.
const DRAIN_MS: std::ops::Range<u64> = 20..1_500;
/// How long after a server has gone, or has been asked to, who takes over is struck.
const RECOVERY_MS: std::ops::Range<u64> = 10..600;
/// How long the cluster has between two blows, once all processes are ready again.
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

    /// The next blow; `None` if no kind of fault comes as a blow.
    pub(super) fn next_blow(&mut self) -> Option<Blow> {
        if self.deck.is_empty() {
            let possible = ROUND.iter().filter(|(card, _)| self.is_possible(*card));
            let cards = possible.flat_map(|(card, count)| std::iter::repeat_n(*card, *count));
            self.deck = cards.collect();
            self.random.shuffle(&mut self.deck);
        }
        Some(match self.deck.pop()? {
            Card::Strikes => Blow::Strikes(self.strikes()),
            Card::Roll => self.roll(),
            Card::QuorumLoss => self.quorum_loss(),
            Card::Drain => self.drain()?,
            Card::FullDisk => Blow::FullDisk { lasts: milliseconds(&self.random, LASTS_MS) },
        })
    }

    /// How long the cluster is left alone now.
    pub(super) fn calm(&self) -> Duration {
        milliseconds(&self.random, CALM_MS)
    }

    fn is_possible(&self, card: Card) -> bool {
        let is_wanted = |kind| self.scope.kinds.contains(&kind);
        match card {
            Card::Strikes => !self.harms().is_empty(),
            Card::Roll => is_wanted(Kind::Roll),
            Card::QuorumLoss => is_wanted(Kind::QuorumLoss),
            Card::Drain => is_wanted(Kind::Drain),
            Card::FullDisk => is_wanted(Kind::FullDisk),
        }
    }

    fn harms(&self) -> Vec<Harm> {
        let wanted = STRIKES.iter().filter(|(kind, _)| self.scope.kinds.contains(kind));
        wanted.map(|(_, harm)| *harm).collect()
    }

    fn of_role(&self, role: RoleName) -> Vec<String> {
        let of_role = self.scope.processes.iter().filter(|(_, its)| **its == role);
        of_role.map(|(name, _)| name.clone()).collect()
    }

    /// One process, two at once, or a region server and then who takes its regions over.
    fn strikes(&self) -> Vec<Strike> {
        let (random, harms) = (&self.random, self.harms());
        let all: Vec<_> = self.scope.processes.keys().chain(&self.scope.foreign).cloned().collect();
        let now = Duration::ZERO;
        let leaves: Vec<_> =
            harms.iter().filter(|harm| matches!(harm, Harm::Kill | Harm::Stop)).collect();
        // Others take over the regions only of a server that has gone.
        let dice_end = if leaves.is_empty() { 8 } else { 10 };
        let blow: Vec<Option<Strike>> = match random.in_range(0..dice_end) {
            0..5 => vec![random.pick(&all).map(|name| self.strike(self.victim(name), now))],
            5..8 => {
                let pair = self.two(&all).into_iter();
                pair.map(|name| Some(self.strike(self.victim(&name?), now))).collect()
            }
            dice => {
                let [gone, recoverer] = self.two(&self.of_role(RoleName::RegionServer));
                let later = milliseconds(random, RECOVERY_MS);
                let recoverer = match dice {
                    8 => Some(Victim::ActiveMaster),
                    _ => recoverer.map(Victim::Process),
                };
                let leave = random.pick(&leaves).map_or(Harm::Kill, |harm| **harm);
                let gone = gone.map(|name| self.strike(Victim::Process(name), now));
                vec![
                    gone.map(|gone| Strike { harm: leave, ..gone }),
                    recoverer.map(|victim| self.strike(victim, later)),
                ]
            }
        };
        blow.into_iter().flatten().collect()
    }

    fn strike(&self, victim: Victim, after: Duration) -> Strike {
        let harm = self.random.pick(&self.harms()).copied().unwrap_or(Harm::Kill);
        let harm = match (&victim, harm) {
            (Victim::Foreign(_), Harm::Cut) => Harm::Pause,
            (Victim::Foreign(_), Harm::Stop) => Harm::Kill,
            (_, harm) => harm,
        };
        Strike { after, victim, harm, lasts: milliseconds(&self.random, LASTS_MS) }
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

    fn roll(&self) -> Blow {
        let roles: BTreeSet<_> = self.scope.processes.values().copied().collect();
        let roles: Vec<_> = roles.into_iter().collect();
        let role = self.random.pick(&roles).copied().unwrap_or(RoleName::RegionServer);
        Blow::Roll { processes: self.of_role(role) }
    }

    fn quorum_loss(&self) -> Blow {
        let random = &self.random;
        let mut members = self.of_role(RoleName::Coordinator);
        // Half of them, rounded up, leave no majority.
        let least = members.len().div_ceil(2) as u64;
        let count = random.in_range(least..members.len() as u64 + 1);
        random.shuffle(&mut members);
        members.truncate(count as usize);
        let harms = match self.scope.has_links {
            true => &[Harm::Kill, Harm::Pause, Harm::Cut][..],
            false => &[Harm::Kill, Harm::Pause],
        };
        let harm = random.pick(harms).copied().unwrap_or(Harm::Kill);
        Blow::QuorumLoss { members, harm, lasts: milliseconds(random, QUORUM_LOSS_MS) }
    }

    fn drain(&self) -> Option<Blow> {
        let random = &self.random;
        let server = random.pick(&self.of_role(RoleName::RegionServer))?.clone();
        let ends = [DrainEnd::Undone, DrainEnd::ServerKilled, DrainEnd::MasterKilled];
        let end = random.pick(&ends).copied()?;
        Some(Blow::Drain { server, end, lasts: milliseconds(random, DRAIN_MS) })
    }
}

// === impl Harm ===

impl Harm {
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
