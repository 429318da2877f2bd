//! `basalt-sim`: simulates a cluster by a seed and says what came of it.
//!
//! Its output, and its trace, are the same for the same seed. To that end the operating system's
//! randomness and clocks are put under the seed as well, for the libraries that ask for them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use basalt_sim::disk::Syncs;
use basalt_sim::plan::Layout;
use basalt_sim::scenarios::{Outcome, region_server_crash};
use basalt_sim::seed::Seed;
use basalt_sim::trace::Trace;
use clap::Parser;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Simulate a cluster that loses a region server under load
#[derive(Debug, Parser)]
struct Arguments {
    /// What everything follows from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long the load lasts, in simulated seconds
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Let disks say that they have synced what they have not: writes must be found lost
    #[arg(long)]
    lying_disks: bool,
    /// Write the trace to this file, one event a line
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// Debug builds of all roles' state machines need room.
const STACK_BYTES: usize = 64 << 20;

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    println!("seed {}", arguments.seed);
    let (seed, load) = (Seed(arguments.seed), Duration::from_secs(arguments.seconds));
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed.0));
    let _clocks = mad_turmoil::time::SimClocksGuard::init();
    let syncs = if arguments.lying_disks { Syncs::Lying } else { Syncs::Honest };
    let layout = Layout { syncs, ..Layout::default() };
    let trace = Trace::default();
    let simulated = trace.clone();
    // A thread of its own has asked for no randomness yet.
    let simulation = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || region_server_crash(seed, layout, load, &simulated))?;
    let outcome = simulation.join().map_err(|_| anyhow!("the simulation panicked"));
    if let Some(path) = &arguments.trace {
        let text = trace.lines().join("\n") + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("trace {:016x}, {} network writes", trace.digest().0, trace.network_writes());
    Ok(report(&outcome??))
}

fn report(outcome: &Outcome) -> ExitCode {
    println!("killed {}", outcome.victim);
    println!(
        "writes {} acknowledged, {} unknown and {} failed attempts",
        outcome.acknowledged, outcome.unknown, outcome.failed
    );
    println!("reads {}", outcome.reads);
    println!("write outage at most {} ms", outcome.write_outage_max.as_millis());
    println!("simulated {:.3} s", outcome.elapsed.as_secs_f64());
    println!("lost {}", outcome.violations.len());
    for violation in &outcome.violations {
        println!("  {violation}");
    }
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
