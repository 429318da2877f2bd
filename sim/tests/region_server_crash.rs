//! The first simulation: a region server dies under load, nothing is lost, and the same seed gives
//! the same trace. Each run is a process of its own, see `main.rs`.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::Command;

/// What a run printed, and its trace.
struct Run {
    printed: String,
    trace: String,
}

fn run(seed: u64, folder: &Path, name: &str) -> Run {
    let trace = folder.join(name);
    let output = Command::new(env!("CARGO_BIN_EXE_basalt-sim"))
        .args(["--seed", &seed.to_string(), "--seconds", "3"])
        .arg("--trace")
        .arg(&trace)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "seed {seed}: {}\n{printed}{errors}", output.status);
    Run { printed, trace: std::fs::read_to_string(trace).unwrap() }
}

/// What a run prints whose disks forget what they said to have synced.
fn run_on_lying_disks(seed: u64) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_basalt-sim"))
        .args(["--seed", &seed.to_string(), "--seconds", "1", "--lying-disks"])
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The number that follows `word` at the beginning of a line.
fn figure(run: &Run, word: &str) -> u64 {
    let line = run.printed.lines().find_map(|line| line.strip_prefix(word)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn nothing_is_lost_when_a_region_server_dies_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let mut traces = Vec::new();
    for seed in 1..=3 {
        let run = run(seed, folder.path(), "trace");
        assert_eq!(figure(&run, "lost"), 0, "{}", run.printed);
        assert!(figure(&run, "writes") > 100, "too little was written:\n{}", run.printed);
        assert!(figure(&run, "reads") > 100, "too little was read:\n{}", run.printed);
        let outage_ms = figure(&run, "write outage at most");
        assert!(outage_ms <= 3_000, "longer than the promise (simulated time):\n{}", run.printed);
        for event in ["is killed", "recovered server=", "is started again"] {
            assert!(run.trace.contains(event), "no {event:?} in the trace:\n{}", run.printed);
        }
        assert!(!traces.contains(&run.trace), "another seed must give another trace");
        traces.push(run.trace);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (run(7, folder.path(), "first"), run(7, folder.path(), "second"));
    let lines = first.trace.lines().zip(second.trace.lines());
    for (number, (one, other)) in lines.enumerate() {
        assert_eq!(one, other, "line {} of the traces", number + 1);
    }
    assert_eq!(first.trace.len(), second.trace.len(), "one trace goes on where the other ends");
    assert_eq!(first.printed, second.printed);
}

/// The harness is believed because it catches what is planted.
#[test]
fn writes_lost_by_a_lying_disk_are_found() {
    let (succeeded, printed) = run_on_lying_disks(1);
    assert!(
        !succeeded && printed.contains("was acknowledged, but a read found nothing"),
        "{printed}"
    );
}
