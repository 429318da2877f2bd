//! Runs many simulations, each in its own process: the operating system's clocks and randomness can
//! be put under a seed only once per process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;

/// The simulations to run.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The scenarios, by name.
    pub scenarios: Vec<&'static str>,
    /// The seeds of each.
    pub seeds: Range<u64>,
    /// How many processes run at a time.
    pub jobs: usize,
    /// Further arguments of each simulation.
    pub arguments: Vec<String>,
    /// Whether to skip the remaining seeds of a scenario after the first violation.
    pub stop_at_first: bool,
}

/// A finished simulation.
#[derive(Clone, Debug)]
pub struct Run {
    /// The scenario.
    pub scenario: &'static str,
    /// The seed.
    pub seed: u64,
    /// Whether all invariants held.
    pub held: bool,
    /// What it printed.
    pub printed: String,
}

/// The results of a scenario's seeds.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// The number of seeds that were run.
    pub runs: u64,
    /// The seeds with violations.
    pub wrong: Vec<u64>,
    /// The number of seeds in which a trap was sprung.
    pub sprung: u64,
    /// The total simulated time.
    pub simulated: Duration,
    /// Faults that were injected.
    pub faults: u64,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Answered operations by kind.
    pub operations: BTreeMap<String, u64>,
    /// The failpoints that were reached.
    pub points: BTreeSet<String>,
    /// The longest recovery of a cluster, in milliseconds.
    pub recovered_ms_max: u64,
    /// The longest write to a region, in milliseconds.
    pub outage_ms_max: u64,
}

// === impl Sweep ===

impl Sweep {
    /// Runs all simulations, and calls `report` for each run with violations.
    ///
    /// # Errors
    /// A simulation cannot be started.
    pub fn run(
        &self,
        mut report: impl FnMut(&Run),
    ) -> anyhow::Result<BTreeMap<&'static str, Tally>> {
        let program = std::env::current_exe().context("who runs this")?;
        let mut work = VecDeque::new();
        for seed in self.seeds.clone() {
            work.extend(self.scenarios.iter().map(|scenario| (*scenario, seed)));
        }
        let work = Mutex::new(work);
        let mut tallies: BTreeMap<&'static str, Tally> = BTreeMap::new();
        let (done, runs) = mpsc::sync_channel::<anyhow::Result<Run>>(self.jobs);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                let (done, work, program) = (done.clone(), &work, &program);
                scope.spawn(move || {
                    loop {
                        let Some((scenario, seed)) = work.lock().pop_front() else { return };
                        if done.send(self.run_one(program, scenario, seed)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(done);
            for run in runs {
                let run = run?;
                tallies.entry(run.scenario).or_default().add(&run);
                if !run.held {
                    report(&run);
                    if self.stop_at_first {
                        work.lock().retain(|(scenario, _)| *scenario != run.scenario);
                    }
                }
            }
            Ok(tallies)
        })
    }

    fn run_one(&self, program: &PathBuf, scenario: &'static str, seed: u64) -> anyhow::Result<Run> {
        let mut command = Command::new(program);
        command.args([scenario, "--seed", &seed.to_string()]).args(&self.arguments);
        let Output { status, stdout, stderr } = command.output().context("a simulation")?;
        let mut printed = String::from_utf8_lossy(&stdout).into_owned();
        printed.push_str(&String::from_utf8_lossy(&stderr));
        Ok(Run { scenario, seed, held: status.success(), printed })
    }
}

// === impl Run ===

impl Run {
    /// The number after `word` at the beginning of a line.
    pub fn figure(&self, word: &str) -> Option<f64> {
        self.rest(word).split_whitespace().next()?.parse().ok()
    }

    /// The text after `word` at the beginning of a line; empty if there is no such line.
    fn rest(&self, word: &str) -> &str {
        self.printed.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_default()
    }

    /// The violated invariants, each once; or the reason why the simulation did not finish.
    pub fn broken(&self) -> Vec<String> {
        let violations = self.printed.lines().filter_map(|line| line.strip_prefix("  broken "));
        let mut names: Vec<String> =
            violations.map(|line| line.split(": ").next().unwrap_or(line).to_owned()).collect();
        names.sort();
        names.dedup();
        if names.is_empty() && !self.held {
            let last = self.printed.lines().rfind(|line| line.starts_with("Error:"));
            names.push(last.unwrap_or("it came to no end").to_owned());
        }
        names
    }
}

// === impl Tally ===

impl Tally {
    fn add(&mut self, run: &Run) {
        let figure = |word| run.figure(word).unwrap_or_default();
        self.runs += 1;
        self.sprung += u64::from(run.printed.contains("\nsprung "));
        self.simulated += Duration::from_secs_f64(figure("simulated "));
        self.faults += figure("faults ") as u64;
        self.acknowledged += figure("writes ") as u64;
        self.recovered_ms_max = self.recovered_ms_max.max(figure("back after ") as u64);
        self.outage_ms_max = self.outage_ms_max.max(figure("write outage at most ") as u64);
        for operation in run.rest("operations ").split(", ") {
            if let Some((kind, count)) = operation.split_once(' ') {
                *self.operations.entry(kind.to_owned()).or_default() +=
                    count.parse::<u64>().unwrap_or_default();
            }
        }
        self.points.extend(run.rest("points ").split_whitespace().map(str::to_owned));
        if !run.held {
            self.wrong.push(run.seed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(held: bool, printed: &str) -> Run {
        Run { scenario: "chaos", seed: 7, held, printed: printed.to_owned() }
    }

    #[test]
    fn a_tally_sums_what_the_runs_printed() {
        let mut tally = Tally::default();
        let second = "operations put 5\npoints log-roll\n";
        let done = "operations append 2, put 3\npoints log-append log-roll\n";
        tally.add(&run(true, &format!("faults 2\nsimulated 6.500 s\nback after 900 ms\n{done}")));
        tally
            .add(&run(false, &format!("faults 1\nsimulated 5.500 s\nback after 300 ms\n{second}")));
        assert_eq!(tally.operations, [("append".to_owned(), 2), ("put".to_owned(), 8)].into());
        assert_eq!(tally.points, ["log-append", "log-roll"].map(str::to_owned).into());
        assert_eq!((tally.runs, tally.faults, tally.recovered_ms_max), (2, 3, 900));
        assert_eq!((tally.simulated, &tally.wrong[..]), (Duration::from_secs(12), &[7][..]));
    }

    #[test]
    fn what_broke_is_named_once_each() {
        let printed = "broken 3\n  broken one owner: a\n  broken rows: b\n  broken one owner: c\n";
        assert_eq!(run(false, printed).broken(), ["one owner", "rows"]);
        assert_eq!(run(false, "Error: no region\n").broken(), ["Error: no region"]);
    }
}
