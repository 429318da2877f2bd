//! `basalt-sim`: simulates a cluster, determined by a seed, and reports the outcome.
//!
//! The same seed yields the same output and the same trace. For this, the randomness and the clocks
//! of the operating system are put under the seed as well, because some libraries use them.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it is for")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use basalt_failpoint::Point;
use basalt_planted::Rule;
use basalt_sim::disk::Syncs;
use basalt_sim::scenarios::{self, SCENARIOS, Scenario, failpoints};
use basalt_sim::seed::Seed;
use basalt_sim::sweep::Sweep;
use basalt_sim::trace::Trace;
use basalt_sim::{Settings, SimulationOutcome, simulate};
use clap::Parser;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// The system's allocator took a fifth of the time of a run.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulate a cluster into which faults are injected
#[derive(Debug, Parser)]
struct Arguments {
    /// A scenario; `all`, with --seeds; `list`; `planted`: what each planted bug is found by; or
    /// `points`: kills at each failpoint
    scenario: String,
    /// What everything follows from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Many seeds, a process each: `1..101` is a hundred
    #[arg(long, value_name = "FIRST..END", value_parser = seeds)]
    seeds: Option<Range<u64>>,
    /// How many processes run at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// How long the load lasts at least, in simulated seconds
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Let disks say that they have synced what they have not: writes must be found lost
    #[arg(long)]
    lying_disks: bool,
    /// Turn a rule off (needs the feature `planted-bugs`)
    #[arg(long, value_name = "RULE", value_parser = rule)]
    plant: Option<Rule>,
    /// Kill whoever reaches this failpoint, instead of what the scenario does
    #[arg(long, value_name = "POINT", value_parser = point)]
    point: Option<Point>,
    /// With `--point`: when it is reached for which time
    #[arg(long, default_value_t = 1)]
    hit: u32,
    /// With `planted`: run all seeds of each bug, to count those that find it
    #[arg(long)]
    count: bool,
    /// Write the trace to this file, one event a line
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// Debug builds of all roles' state machines need a large stack.
const STACK_BYTES: usize = 64 << 20;

/// A planted bug must be found within these seeds.
const PLANTED_SEEDS: Range<u64> = 1..201;

/// For each rule, a scenario in which no other rule prevents a violation.
const PLANTED: &[(Rule, &str)] = &[
    (Rule::SyncBeforeAck, "region-server-crash"),
    (Rule::WalFence, "unaware-reader"),
    (Rule::MasterEpoch, "deposed-master"),
    (Rule::RegionEpochAtOpen, "late-open"),
    (Rule::RegionEpochInManifest, "region-server-crash"),
    (Rule::ServingLease, "unaware-reader"),
    (Rule::CommittedLength, "zombie-append"),
    (Rule::ReplaySequence, "recoverer-crash"),
    (Rule::NonceInWal, "lost-answers"),
    (Rule::NonceFiles, "mute-region-server"),
    (Rule::WholeBeforeRename, "whole-cluster-crash"),
    (Rule::NameAtSync, "unaware-beyond-bound"),
    (Rule::LevelOfAll, "rolling-upgrade"),
    (Rule::TableLock, "tables"),
    // The lock protects here as well, so both rules are off.
    (Rule::TableVersionAtOpening, "tables"),
    (Rule::CatalogsBeforeEnd, "tables"),
    (Rule::ServingProbe, "standstill"),
    (Rule::RoomForTheLog, "full-disk"),
    (Rule::LogWaitsForRoom, "coordinator-full-disk"),
    (Rule::RoomForLeases, "coordinator-full-disk"),
    (Rule::SealedLength, "shortened-log"),
    (Rule::SyncAtSeal, "killed-after-seal"),
    (Rule::ShrinkingLog, "hdfs-shrinking-log"),
    (Rule::MissingLog, "lost-logs"),
    (Rule::ClockBound, "clock-steps"),
    (Rule::ReadingsByBootClock, "master-clock-steps"),
    (Rule::FamilyIncarnations, "tables"),
    (Rule::RemovedFamilies, "masters-clocks-apart"),
    (Rule::CloseWaitsForOpening, "drain-while-opening"),
    (Rule::OneCloseAtATime, "stray-orders"),
    (Rule::OpenOnRecord, "stray-orders"),
    (Rule::RecordedMasterEpoch, "stray-orders"),
    (Rule::AntiEntropy, "lost-open"),
    (Rule::QuorumTime, "coordinator-quorum-loss"),
    (Rule::WholeEnsembleForms, "coordinator-lost-folders"),
    (Rule::Readmission, "coordinator-old-copy"),
    (Rule::StateChecksum, "coordinator-false-state"),
    (Rule::BelievableTerm, "strangers"),
    (Rule::TimeToLive, "region-server-crash"),
    (Rule::VersionsMin, "region-server-crash"),
    (Rule::KeepDeletedCells, "region-server-crash"),
];

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    match (arguments.scenario.as_str(), &arguments.seeds) {
        ("list", _) => {
            for Scenario { name, about, .. } in SCENARIOS {
                println!("{name:28} {about}");
            }
            Ok(ExitCode::SUCCESS)
        }
        ("planted", _) => planted(&arguments),
        ("points", _) => points(&arguments),
        ("all", Some(seeds)) => {
            let names = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            sweep(names, seeds.clone(), &arguments)
        }
        (name, seeds) => {
            let scenario = scenarios::find(name)
                .with_context(|| format!("no scenario {name}; `list` names them"))?;
            match seeds {
                Some(seeds) => sweep(vec![scenario.name], seeds.clone(), &arguments),
                None => one(scenario, &arguments),
            }
        }
    }
}

/// Runs one simulation in this process.
fn one(scenario: &'static Scenario, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    println!("seed {}", arguments.seed);
    if let Some(rule) = arguments.plant {
        plant(rule)?;
    }
    let (seed, load) = (Seed(arguments.seed), Duration::from_secs(arguments.seconds));
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed.0));
    let _clocks = mad_turmoil::time::SimClocksGuard::init();
    let syncs = if arguments.lying_disks { Syncs::Lying } else { Syncs::Honest };
    let point = arguments.point.map(|point| (point, arguments.hit));
    let settings = Settings { load, syncs, point };
    let trace = Trace::default();
    let simulated = trace.clone();
    // A new thread has not asked for randomness yet.
    let simulation = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || simulate(seed, scenario, settings, &simulated))?;
    let outcome = simulation.join().map_err(|_| anyhow!("the simulation panicked"));
    if let Some(path) = &arguments.trace {
        let text = trace.lines().join("\n") + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("trace {:016x}, {} network writes", trace.digest().0, trace.network_writes());
    Ok(report(&outcome??))
}

fn report(outcome: &SimulationOutcome) -> ExitCode {
    println!("faults {}", outcome.faults.len());
    for fault in &outcome.faults {
        println!("  fault {fault}");
    }
    if let Some(process) = &outcome.sprung {
        println!("sprung {process} was where the trap was set");
    }
    println!(
        "writes {} acknowledged, {} unknown and {} failed attempts",
        outcome.acknowledged, outcome.unknown, outcome.failed
    );
    println!("reads {}, rows seen whole {}", outcome.reads, outcome.whole_rows);
    println!("counted {} operations on counters and lists", outcome.counted);
    println!("versions of {} rows compared with their model", outcome.versions_read);
    println!("operations {}", listed(&outcome.operations));
    let points: Vec<&str> = outcome.points.iter().map(String::as_str).collect();
    println!("points {}", points.join(" "));
    println!("observed {} events of the roles", outcome.events);
    println!("write outage at most {} ms", outcome.write_outage_max.as_millis());
    println!("back after {} ms", outcome.recovered_after.as_millis());
    println!("simulated {:.3} s", outcome.elapsed.as_secs_f64());
    println!("broken {}", outcome.violations.len());
    for violation in &outcome.violations {
        println!("  broken {violation}");
    }
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn sweep(
    scenarios: Vec<&'static str>,
    seeds: Range<u64>,
    arguments: &Arguments,
) -> anyhow::Result<ExitCode> {
    let mut given = vec![format!("--seconds={}", arguments.seconds)];
    given.extend(arguments.plant.map(|rule| format!("--plant={}", rule.name())));
    let jobs = arguments.jobs;
    let sweep = Sweep { scenarios, seeds, jobs, arguments: given, stop_at_first: false };
    let tallies = sweep.run(|run| {
        println!("{} --seed {}: {}", run.scenario, run.seed, run.broken().join("; "));
    })?;
    let mut wrong = 0;
    for (scenario, tally) in &tallies {
        wrong += tally.wrong.len();
        println!(
            "{scenario:28} seeds {:5} wrong {:4} simulated {:8.1} s faults {:5} writes {:8} \
             outage at most {:5} ms back after at most {:5} ms",
            tally.runs,
            tally.wrong.len(),
            tally.simulated.as_secs_f64(),
            tally.faults,
            tally.acknowledged,
            tally.outage_ms_max,
            tally.recovered_ms_max
        );
    }
    let runs: u64 = tallies.values().map(|tally| tally.runs).sum();
    let hours: f64 = tallies.values().map(|tally| tally.simulated.as_secs_f64() / 3_600.0).sum();
    let faults: u64 = tallies.values().map(|tally| tally.faults).sum();
    let (mut operations, mut points) = (BTreeMap::new(), BTreeSet::new());
    for tally in tallies.values() {
        for (kind, count) in &tally.operations {
            *operations.entry(kind.as_str()).or_default() += count;
        }
        points.extend(tally.points.iter().map(String::as_str));
    }
    println!("operations: {}", listed(&operations));
    let names = || Point::ALL.iter().map(|point| point.name());
    let missed: Vec<&str> = names().filter(|name| !points.contains(name)).collect();
    let reached = names().count() - missed.len();
    println!("failpoints: {reached} reached, never: {}", missed.join(" "));
    println!("all: {runs} runs, {wrong} wrong, {hours:.2} simulated hours, {faults} faults");
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `kind count` for each operation.
fn listed(operations: &BTreeMap<&str, u64>) -> String {
    let all: Vec<String> = operations.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
    all.join(", ")
}

/// Plants each bug, or the one that was named, and checks whether it is found.
fn planted(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if !basalt_planted::CAN_BE_PLANTED {
        bail!("rules cannot be turned off in this build: it lacks the feature planted-bugs");
    }
    let mut missed = 0;
    let wanted = PLANTED.iter().filter(|(rule, _)| arguments.plant.is_none_or(|r| r == *rule));
    for (rule, scenario) in wanted {
        let sweep = Sweep {
            scenarios: vec![scenario],
            seeds: arguments.seeds.clone().unwrap_or(PLANTED_SEEDS),
            jobs: arguments.jobs,
            arguments: vec![format!("--plant={}", rule.name())],
            stop_at_first: !arguments.count,
        };
        let mut found_by = Vec::new();
        let tallies = sweep.run(|run| found_by.extend(run.broken()))?;
        let tally = tallies.get(scenario).cloned().unwrap_or_default();
        found_by.sort();
        found_by.dedup();
        let (runs, wrong) = (tally.runs, tally.wrong.len());
        missed += usize::from(wrong == 0);
        let first = tally.wrong.iter().min().map_or("none".to_owned(), u64::to_string);
        println!(
            "{:24} in {scenario}: {wrong} of {runs} seeds, first {first}: {}",
            rule.name(),
            found_by.join("; ")
        );
    }
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Kills and delays processes at each failpoint, at its first and at later hits, and checks that
/// this happened.
fn points(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if !basalt_failpoint::ARE_ON {
        bail!("nobody can be stopped in this build: it lacks the feature failpoints");
    }
    let (mut wrong, mut missed) = (0, 0);
    let wanted =
        Point::ALL.iter().copied().filter(|point| arguments.point.is_none_or(|p| p == *point));
    for point in wanted {
        let (mut runs, mut sprung, mut broken) = (0, 0, Vec::new());
        for hit in 1..=failpoints::hits(point) {
            let sweep = Sweep {
                scenarios: vec!["failpoints", "failpoint-delays"],
                seeds: arguments.seeds.clone().unwrap_or(1..3),
                jobs: arguments.jobs,
                arguments: vec![format!("--point={}", point.name()), format!("--hit={hit}")],
                stop_at_first: false,
            };
            for tally in
                sweep.run(|run| broken.push((run.scenario, hit, run.seed, run.broken())))?.values()
            {
                runs += tally.runs;
                sprung += tally.sprung;
            }
        }
        wrong += broken.len();
        missed += usize::from(sprung == 0);
        println!("{:24} {runs} runs, stopped in {sprung}, wrong {broken:?}", point.name());
    }
    println!("points: {wrong} wrong, {missed} never reached");
    Ok(if wrong + missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(feature = "planted-bugs")]
fn plant(rule: Rule) -> anyhow::Result<()> {
    basalt_planted::turn_off(rule);
    if rule == Rule::TableVersionAtOpening {
        basalt_planted::turn_off(Rule::TableLock);
    }
    println!("rule {} is off", rule.name());
    Ok(())
}

#[cfg(not(feature = "planted-bugs"))]
fn plant(rule: Rule) -> anyhow::Result<()> {
    bail!("{} cannot be turned off: this build lacks the feature planted-bugs", rule.name())
}

fn rule(name: &str) -> Result<Rule, String> {
    named(Rule::ALL, Rule::name, name)
}

fn point(name: &str) -> Result<Point, String> {
    named(Point::ALL, Point::name, name)
}

/// The one of `all` with the name `name`.
fn named<T: Copy>(all: &[T], name_of: fn(T) -> &'static str, name: &str) -> Result<T, String> {
    let names = || all.iter().map(|one| name_of(*one)).collect::<Vec<_>>().join(", ");
    all.iter()
        .copied()
        .find(|one| name_of(*one) == name)
        .ok_or_else(|| format!("one of {}", names()))
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let parsed = text.split_once("..").and_then(|(first, end)| {
        let range = first.parse().ok()?..end.parse().ok()?;
        (!range.is_empty()).then_some(range)
    });
    parsed.ok_or_else(|| "two numbers, the first one less: 1..101".to_owned())
}
