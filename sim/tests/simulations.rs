//! Simulations with a few seeds: nothing is lost, and the same seed yields the same trace. Each run
//! is a separate process, see `main.rs`.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::Command;

/// The output and the trace of a run.
struct Run {
    printed: String,
    trace: String,
}

fn basalt_sim(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_basalt-sim")).args(arguments).output().unwrap();
    let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
    printed.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), printed)
}

fn run(scenario: &str, seed: u64, folder: &Path, name: &str) -> Run {
    let trace = folder.join(name);
    let (seed, path) = (seed.to_string(), trace.to_str().unwrap());
    let (succeeded, printed) = basalt_sim(&[scenario, "--seed", &seed, "--trace", path]);
    assert!(succeeded, "{scenario}, seed {seed}:\n{printed}");
    Run { printed, trace: std::fs::read_to_string(trace).unwrap() }
}

/// The number after `word` at the beginning of a line.
fn figure(run: &Run, word: &str) -> u64 {
    let line = run.printed.lines().find_map(|line| line.strip_prefix(word)).unwrap();
    let number = line.split_whitespace().next().unwrap();
    number.trim_end_matches(',').parse().unwrap()
}

#[test]
fn nothing_is_lost_when_a_region_server_dies_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let mut traces = Vec::new();
    for seed in 1..=3 {
        let run = run("region-server-crash", seed, folder.path(), "trace");
        for (word, least) in [("writes", 100), ("reads", 100), ("counted", 50), ("observed", 1_000)]
        {
            assert!(figure(&run, word) > least, "too few {word}:\n{}", run.printed);
        }
        let outage_ms = figure(&run, "write outage at most");
        assert!(outage_ms <= 3_000, "longer than the promise (simulated time):\n{}", run.printed);
        for event in ["is killed", "recovered server=", "was killed"] {
            assert!(run.trace.contains(event), "no {event:?} in the trace:\n{}", run.printed);
        }
        assert!(!traces.contains(&run.trace), "another seed must give another trace");
        traces.push(run.trace);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let folder = tempfile::tempdir().unwrap();
    let first = run("chaos", 7, folder.path(), "first");
    let second = run("chaos", 7, folder.path(), "second");
    let lines = first.trace.lines().zip(second.trace.lines());
    for (number, (one, other)) in lines.enumerate() {
        assert_eq!(one, other, "line {} of the traces", number + 1);
    }
    assert_eq!(first.trace.len(), second.trace.len(), "one trace goes on where the other ends");
    assert_eq!(first.printed, second.printed);
}

/// One scenario of each kind, with assertions and overflow checks. `.ci/run` runs all scenarios in
/// a release build, which takes a tenth of the time.
#[test]
fn scenarios_of_each_kind_hold() {
    let scenarios = [
        "coordinator-full-disk",
        "coordinator-rolling-crashes",
        "clock-steps",
        "disk-faults",
        "hdfs-chaos",
        "killed-after-seal",
        "partition-region-server",
        "rolling-restart",
        "rolling-upgrade",
        "standstill",
        "strangers",
        "tables-chaos",
    ];
    for scenario in scenarios {
        let (succeeded, printed) = basalt_sim(&[scenario, "--seeds", "1..3"]);
        assert!(succeeded, "{printed}");
    }
}

/// Shows that the harness detects a planted bug.
#[test]
fn writes_lost_by_a_lying_disk_are_found() {
    let (succeeded, printed) = basalt_sim(&["region-server-crash", "--seed", "1", "--lying-disks"]);
    assert!(
        !succeeded && printed.contains("was acknowledged, but a read found nothing"),
        "{printed}"
    );
}

/// For each rule that is turned off, a scenario fails within 200 seeds.
#[cfg(feature = "planted-bugs")]
#[test]
fn every_planted_bug_is_found() {
    let (succeeded, printed) = basalt_sim(&["planted"]);
    assert!(succeeded, "{printed}");
}
