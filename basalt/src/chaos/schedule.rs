//! What is done to whom, and when: pure, by a seed.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_runtime::Random;

use crate::role_config::RoleName;

/// What is done to a process.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Harm {
    /// SIGKILL; it is started again.
    Kill,
    /// SIGSTOP, and SIGCONT after a while.
    Pause,
    /// Its link is cut, and heals after a while.
    Cut,
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

/// One fault.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Strike {
    /// How long after the blow begins.
    pub(super) after: Duration,
    pub(super) victim: Victim,
    pub(super) harm: Harm,
    /// How long it lasts, unless it is a kill.
    pub(super) lasts: Duration,
}

/// The shortest and the longest pause or cut: well below a session's end, and well beyond.
const LASTS_MS: std::ops::Range<u64> = 200..5_000;
/// How long after a death its recovery is struck.
const RECOVERY_MS: std::ops::Range<u64> = 10..600;
/// How long the cluster has between two blows, once all processes are ready again.
const CALM_MS: std::ops::Range<u64> = 500..4_000;

/// The faults of the next blow: to one process, to two at once, or to a region server and then to
/// who recovers it. Those that are `foreign` are struck as processes of the cluster are, but for
/// their links.
pub(super) fn next_blow(
    random: &Random,
    processes: &BTreeMap<String, RoleName>,
    foreign: &[String],
    harms: &[Harm],
) -> Vec<Strike> {
    let all: Vec<&String> = processes.keys().chain(foreign).collect();
    let servers: Vec<&String> = processes
        .iter()
        .filter(|(_, role)| **role == RoleName::RegionServer)
        .map(|(name, _)| name)
        .collect();
    let strike = |victim: Victim, after: Duration| {
        let harm = match (&victim, pick(random, harms)) {
            (Victim::Foreign(_), Some(Harm::Cut)) => Harm::Pause,
            (_, harm) => harm.copied().unwrap_or(Harm::Kill),
        };
        Strike { after, victim, harm, lasts: milliseconds(random, LASTS_MS) }
    };
    let process = |name: &String| match processes.contains_key(name) {
        true => Victim::Process(name.clone()),
        false => Victim::Foreign(name.clone()),
    };
    let now = Duration::ZERO;
    let two = |of: &[&String]| {
        let first = random.in_range(0..of.len().max(1) as u64) as usize;
        let others = random.in_range(1..of.len().max(2) as u64) as usize;
        let second = (first + others) % of.len().max(1);
        (of.get(first).copied().cloned(), of.get(second).copied().cloned())
    };
    let blow: Vec<Option<Strike>> = match random.in_range(0..10) {
        0..5 => vec![pick(random, &all).map(|name| strike(process(name), now))],
        5..8 => {
            let (first, second) = two(&all);
            vec![
                first.map(|name| strike(process(&name), now)),
                second.map(|name| strike(process(&name), now)),
            ]
        }
        dice => {
            let (dead, recoverer) = two(&servers);
            let later = milliseconds(random, RECOVERY_MS);
            let recoverer = match dice {
                8 => Some(Victim::ActiveMaster),
                _ => recoverer.map(|name| process(&name)),
            };
            vec![
                dead.map(|name| Strike { harm: Harm::Kill, ..strike(process(&name), now) }),
                recoverer.map(|victim| strike(victim, later)),
            ]
        }
    };
    blow.into_iter().flatten().collect()
}

/// How long the cluster is left alone now.
pub(super) fn calm(random: &Random) -> Duration {
    milliseconds(random, CALM_MS)
}

fn pick<'a, T>(random: &Random, of: &'a [T]) -> Option<&'a T> {
    of.get(random.in_range(0..of.len().max(1) as u64) as usize)
}

fn milliseconds(random: &Random, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.in_range(range))
}

// === impl Harm ===

impl Harm {
    /// Its name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Cut => "cut",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const HARMS: [Harm; 3] = [Harm::Kill, Harm::Pause, Harm::Cut];

    fn processes() -> BTreeMap<String, RoleName> {
        let of_role = |role: RoleName, count: u32| {
            (0..count).map(move |index| (format!("{}-{index}", role.subcommand()), role))
        };
        of_role(RoleName::Coordinator, 3)
            .chain(of_role(RoleName::Master, 2))
            .chain(of_role(RoleName::RegionServer, 3))
            .collect()
    }

    #[test]
    fn every_process_and_every_harm_has_its_turn_and_recoverers_too() {
        let random = Random::from_seed(7);
        let foreign = ["data node".to_owned()];
        let blow = |_| next_blow(&random, &processes(), &foreign, &HARMS);
        let blows: Vec<_> = (0..500).map(blow).collect();
        let strikes = || blows.iter().flatten();
        for name in processes().into_keys() {
            for harm in HARMS {
                let victim = Victim::Process(name.clone());
                assert!(strikes().any(|s| s.victim == victim && s.harm == harm), "{name} {harm:?}");
            }
        }
        assert!(strikes().any(|strike| strike.victim == Victim::ActiveMaster));
        let data_node = Victim::Foreign(foreign[0].clone());
        let harms: BTreeSet<_> =
            strikes().filter(|strike| strike.victim == data_node).map(|s| s.harm).collect();
        assert_eq!(harms, BTreeSet::from([Harm::Kill, Harm::Pause]), "it has no link of its own");
        assert!(blows.iter().all(|blow| (1..=2).contains(&blow.len())));
        let same = |blow: &&Vec<Strike>| blow.len() == 2 && blow[0].victim == blow[1].victim;
        assert_eq!(blows.iter().filter(same).count(), 0, "two victims are two");
    }

    #[test]
    fn the_same_seed_gives_the_same_blows() {
        let blows = |seed| {
            let random = Random::from_seed(seed);
            (0..20).map(|_| next_blow(&random, &processes(), &[], &HARMS)).collect::<Vec<_>>()
        };
        assert_eq!(blows(3), blows(3));
        assert_ne!(blows(3), blows(4));
    }
}
