//! `basalt bench`: runs YCSB's workloads against clusters, one after the other, and compares them.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use basalt_api::Timespan;
use basalt_measure::Target;
use basalt_measure::bench::{self, BenchConfig, BenchProgress, BenchTarget, Mix};
use basalt_measure::report::thousands;
use basalt_model::TableName;
use basalt_runtime::Seams;

use crate::progress::Progress;
use crate::role::Signals;

/// The arguments of `basalt bench`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A cluster: NAME=zk:HOST:PORT,…/ZNODE or NAME=bootstrap:HOST:PORT,…; the first one is
    /// compared with each of the others
    #[arg(long = "target", value_name = "NAME=CLUSTER", required = true)]
    targets: Vec<NamedTarget>,
    /// Process ids of a target's region servers on this machine, to measure what they use
    #[arg(long, value_name = "NAME=PID,PID,…")]
    pids: Vec<NamedPids>,
    /// Process ids of a target's storage, such as DataNodes: their CPU time counts, too
    #[arg(long, value_name = "NAME=PID,PID,…")]
    storage_pids: Vec<NamedPids>,
    /// The workload mixes to run, in order: load, A, B, C, E, F
    #[arg(long, value_name = "MIX,…", value_delimiter = ',', value_parser = mix,
        default_value = "load,A,B,C,F,E")]
    mixes: Vec<Mix>,
    /// Number of rows of 1 KB to load
    #[arg(long, value_name = "N", default_value_t = 300_000)]
    rows: u64,
    /// Maximum number of operations of each mix
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    ops: u64,
    /// Maximum duration of each mix after loading
    #[arg(long, value_name = "TIME", default_value = "30s")]
    time: Timespan,
    /// Number of concurrent requests
    #[arg(long, value_name = "N", default_value_t = 16)]
    streams: usize,
    /// How many times to repeat all of it
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: u32,
    /// The table to use; it is deleted and created again
    #[arg(long, value_name = "TABLE", default_value = "basalt_bench")]
    table: TableName,
    /// Number of regions of the table
    #[arg(long, value_name = "N", default_value_t = 12)]
    regions: u32,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A cluster, and its name in the result tables.
#[derive(Clone, Debug)]
struct NamedTarget {
    name: String,
    target: Target,
}

/// The processes of a cluster.
#[derive(Clone, Debug)]
struct NamedPids {
    name: String,
    pids: Vec<u32>,
}

/// Runs the benchmark.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = config(arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let mut progress = Progress::new();
        let seams = Seams::system();
        let mut show = |step: BenchProgress<'_>| show_step(&mut progress, &step);
        tokio::select! {
            biased;
            () = signals.next() => bail!("interrupted; the table {} still exists", config.table),
            report = bench::run(&config, &seams, &mut show) => Ok(report?),
        }
    })?;
    print_line!("\n{}", report.summary());
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn config(arguments: &Arguments) -> anyhow::Result<BenchConfig> {
    let mut targets = Vec::new();
    for NamedTarget { name, target } in &arguments.targets {
        let of_target = |pids: &[NamedPids]| {
            let named = pids.iter().filter(|pids| pids.name == *name);
            named.flat_map(|named| named.pids.iter().copied()).collect()
        };
        targets.push(BenchTarget {
            name: name.clone(),
            target: target.clone(),
            pids: of_target(&arguments.pids),
            storage_pids: of_target(&arguments.storage_pids),
        });
    }
    let known = |name: &str| targets.iter().any(|target| target.name == name);
    let mut all_pids = arguments.pids.iter().chain(&arguments.storage_pids);
    if let Some(stray) = all_pids.find(|pids| !known(&pids.name)) {
        bail!("--pids or --storage-pids {}: there is no --target with that name", stray.name);
    }
    Ok(BenchConfig {
        targets,
        mixes: arguments.mixes.clone(),
        rows: arguments.rows.max(1),
        operations: arguments.ops,
        mix_time_max: arguments.time.into(),
        streams: arguments.streams.max(1),
        rounds: arguments.rounds.max(1),
        table: arguments.table.clone(),
        regions: arguments.regions,
    })
}

fn show_step(progress: &mut Progress, step: &BenchProgress<'_>) {
    let seconds = step.elapsed.as_secs_f64().max(Duration::from_millis(1).as_secs_f64());
    let rate = thousands((step.done as f64 / seconds) as u64);
    let of = match step.operations {
        u64::MAX => String::new(),
        operations => format!(" of {}", thousands(operations)),
    };
    let BenchProgress { target, round, .. } = step;
    progress.show(
        &format!("{target} {round} {}", step.mix.name()),
        &format!(
            "round {round}, {target}, {}: {}{of} operations, {rate} a second",
            step.mix.name(),
            thousands(step.done)
        ),
    );
}

fn mix(name: &str) -> Result<Mix, String> {
    Mix::of_name(name).ok_or_else(|| {
        let names: Vec<_> = Mix::ALL.iter().map(|mix| mix.name()).collect();
        format!("the mixes are {}", names.join(", "))
    })
}

// === impl NamedTarget ===

impl FromStr for NamedTarget {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, target) = text.split_once('=').context("write NAME=zk:HOST:PORT/ZNODE")?;
        Ok(Self { name: name.to_owned(), target: target.parse()? })
    }
}

// === impl NamedPids ===

impl FromStr for NamedPids {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, pids) = text.split_once('=').context("write NAME=PID,PID")?;
        let pids = pids.split(',').map(|pid| pid.trim().parse().context("a PID is a number"));
        Ok(Self { name: name.to_owned(), pids: pids.collect::<anyhow::Result<_>>()? })
    }
}
