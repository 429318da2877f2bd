//! The report of a benchmark: every run, the medians of the rounds, and how the targets compare.

use serde::Serialize;

use super::run::BenchConfig;
use crate::process::{machine_memory_bytes, processor_name};
use crate::report::{Latencies, thousands};

/// The results of a benchmark.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchReport {
    /// The machine that ran the benchmark.
    pub machine: Machine,
    /// The settings of the benchmark.
    pub settings: Settings,
    /// The targets.
    pub targets: Vec<TargetReport>,
    /// Every run of a mix.
    pub runs: Vec<MixResult>,
    /// The medians of the rounds.
    pub medians: Vec<Median>,
    /// The first target's medians, divided by those of each other target.
    pub ratios: Vec<Ratio>,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// How many processors this process may use.
    pub cores: usize,
    /// Their name.
    pub processor: String,
    /// Its memory.
    pub memory_bytes: u64,
}

/// The settings of a benchmark.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// Rows loaded, each of 1,000 bytes in ten fields.
    pub rows: u64,
    /// Maximum operations of a mix.
    pub operations: u64,
    /// Maximum seconds of a mix.
    pub seconds: f64,
    /// Concurrent requests.
    pub streams: usize,
    /// The number of rounds.
    pub rounds: u32,
    /// Regions of the table.
    pub regions: u32,
}

/// A target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetReport {
    /// Its name.
    pub name: String,
    /// The target as it was given.
    pub target: String,
    /// The version that it reports.
    pub version: String,
    /// The number of server processes that were watched.
    pub processes: usize,
}

/// One run of a mix.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MixResult {
    /// The round, from 1.
    pub round: u32,
    /// The target.
    pub target: String,
    /// The mix.
    pub mix: &'static str,
    /// Operations that succeeded.
    pub operations: u64,
    /// Operations that failed.
    pub errors: u64,
    /// How long the run took.
    pub seconds: f64,
    /// Throughput.
    pub operations_per_s: f64,
    /// Latencies of the successful operations.
    pub latency_ms: Latencies,
    /// Processor time of the watched processes.
    pub cpu_seconds: Option<f64>,
    /// Operations per second of processor time.
    pub operations_per_cpu_s: Option<f64>,
    /// Peak resident memory of the largest watched process.
    pub resident_bytes: Option<u64>,
}

/// The medians of one mix over the rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Median {
    /// The target.
    pub target: String,
    /// The mix.
    pub mix: &'static str,
    /// As in [`MixResult`], like the fields that follow.
    pub operations_per_s: f64,
    #[expect(missing_docs, reason = "see MixResult")]
    pub p50_ms: f64,
    #[expect(missing_docs, reason = "see MixResult")]
    pub p99_ms: f64,
    #[expect(missing_docs, reason = "see MixResult")]
    pub operations_per_cpu_s: Option<f64>,
    #[expect(missing_docs, reason = "see MixResult")]
    pub resident_bytes: Option<f64>,
    /// Operations that failed, in all rounds.
    pub errors: u64,
}

/// The first target relative to another one: above 1, the first target's value is higher.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The mix.
    pub mix: &'static str,
    /// The other target.
    pub to: String,
    /// Operations per second.
    pub throughput: f64,
    /// Operations per second of processor time.
    pub operations_per_cpu_s: Option<f64>,
    /// Resident memory.
    pub resident: Option<f64>,
}

// === impl Machine ===

impl Machine {
    /// The machine that this process runs on.
    pub fn this() -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: processor_name(),
            memory_bytes: machine_memory_bytes(),
        }
    }
}

// === impl BenchReport ===

impl BenchReport {
    /// Makes the report of `runs`.
    pub fn new(
        machine: Machine,
        config: &BenchConfig,
        targets: Vec<TargetReport>,
        runs: Vec<MixResult>,
    ) -> Self {
        let mut medians = Vec::new();
        for mix in config.mixes.iter().map(|mix| mix.name()) {
            for target in &targets {
                let of = |run: &&MixResult| run.mix == mix && run.target == target.name;
                let rounds: Vec<_> = runs.iter().filter(of).collect();
                medians.extend(Median::of(&rounds));
            }
        }
        let ratios = ratios(&targets, &medians);
        let settings = Settings {
            rows: config.rows,
            operations: config.operations,
            seconds: config.mix_time_max.as_secs_f64(),
            streams: config.streams,
            rounds: config.rounds,
            regions: config.regions,
        };
        Self { machine, settings, targets, runs, medians, ratios }
    }

    /// The medians and ratios as a table for the terminal.
    pub fn summary(&self) -> String {
        let Self { machine, settings, .. } = self;
        let mut text = format!(
            "{} cores ({}), {} GiB; {} rows of 1 KB in {} regions, {} streams, {} rounds\n",
            machine.cores,
            machine.processor,
            machine.memory_bytes >> 30,
            thousands(settings.rows),
            settings.regions,
            settings.streams,
            settings.rounds,
        );
        for target in &self.targets {
            text += &format!("{}: {} ({})\n", target.name, target.version, target.target);
        }
        text += &format!(
            "\n{:<5} {:<12} {:>9} {:>9} {:>9} {:>10} {:>9} {:>7}\n",
            "mix", "target", "ops/s", "p50 ms", "p99 ms", "ops/cpu s", "RSS MiB", "errors"
        );
        for median in &self.medians {
            let number = |value: Option<f64>| {
                value.map_or("–".to_owned(), |value| thousands(value.round() as u64))
            };
            text += &format!(
                "{:<5} {:<12} {:>9} {:>9.2} {:>9.2} {:>10} {:>9} {:>7}\n",
                median.mix,
                median.target,
                number(Some(median.operations_per_s)),
                median.p50_ms,
                median.p99_ms,
                number(median.operations_per_cpu_s),
                number(median.resident_bytes.map(|bytes| bytes / 1_048_576.0)),
                median.errors
            );
        }
        text + &self.ratio_lines()
    }

    fn ratio_lines(&self) -> String {
        let Some(first) = self.targets.first().filter(|_| !self.ratios.is_empty()) else {
            return String::new();
        };
        let mut text = format!("\n{} relative to the other:\n", first.name);
        text += &format!(
            "{:<5} {:<12} {:>9} {:>10} {:>7}\n",
            "mix", "other", "ops/s", "ops/cpu s", "RSS"
        );
        for ratio in &self.ratios {
            let number =
                |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.2}"));
            text += &format!(
                "{:<5} {:<12} {:>9} {:>10} {:>7}\n",
                ratio.mix,
                ratio.to,
                number(Some(ratio.throughput)),
                number(ratio.operations_per_cpu_s),
                number(ratio.resident)
            );
        }
        text
    }
}

// === impl Median ===

impl Median {
    fn of(rounds: &[&MixResult]) -> Option<Self> {
        let first = rounds.first()?;
        let median_of = |value: &dyn Fn(&MixResult) -> Option<f64>| {
            median(rounds.iter().filter_map(|run| value(run)).collect())
        };
        Some(Self {
            target: first.target.clone(),
            mix: first.mix,
            operations_per_s: median_of(&|run| Some(run.operations_per_s))?,
            p50_ms: median_of(&|run| Some(run.latency_ms.p50))?,
            p99_ms: median_of(&|run| Some(run.latency_ms.p99))?,
            operations_per_cpu_s: median_of(&|run| run.operations_per_cpu_s),
            resident_bytes: median_of(&|run| run.resident_bytes.map(|bytes| bytes as f64)),
            errors: rounds.iter().map(|run| run.errors).sum(),
        })
    }
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    match values.len() % 2 {
        0 => Some(f64::midpoint(values[values.len() / 2 - 1], *upper)),
        _ => Some(*upper),
    }
}

fn ratios(targets: &[TargetReport], medians: &[Median]) -> Vec<Ratio> {
    let Some(first) = targets.first() else {
        return Vec::new();
    };
    let mut ratios = Vec::new();
    for mine in medians.iter().filter(|median| median.target == first.name) {
        let others = medians.iter().filter(|m| m.mix == mine.mix && m.target != first.name);
        for other in others {
            let both = |one: Option<f64>, two: Option<f64>| Some(one? / two?);
            ratios.push(Ratio {
                mix: mine.mix,
                to: other.target.clone(),
                throughput: mine.operations_per_s / other.operations_per_s,
                operations_per_cpu_s: both(mine.operations_per_cpu_s, other.operations_per_cpu_s),
                resident: both(mine.resident_bytes, other.resident_bytes),
            });
        }
    }
    ratios
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{BenchTarget, Mix};
    use std::time::Duration;

    fn target(name: &str) -> TargetReport {
        TargetReport {
            name: name.to_owned(),
            target: "zk:a:1/hbase".to_owned(),
            version: "1".to_owned(),
            processes: 1,
        }
    }

    fn result(round: u32, target: &str, operations_per_s: f64, resident: u64) -> MixResult {
        MixResult {
            round,
            target: target.to_owned(),
            mix: "load",
            operations: 10,
            errors: 1,
            seconds: 1.0,
            operations_per_s,
            latency_ms: Latencies { p50: 1.0, p99: 2.0, max: 3.0 },
            cpu_seconds: Some(2.0),
            operations_per_cpu_s: Some(5.0),
            resident_bytes: Some(resident),
        }
    }

    #[test]
    fn medians_of_rounds_are_compared() {
        let targets: Vec<BenchTarget> = Vec::new();
        let config = BenchConfig {
            targets,
            mixes: vec![Mix::Load, Mix::A],
            rows: 1,
            operations: 1,
            mix_time_max: Duration::from_secs(1),
            streams: 16,
            rounds: 3,
            table: "t".parse().unwrap(),
            regions: 1,
        };
        let runs = vec![
            result(1, "basalt", 100.0, 40),
            result(1, "hbase", 90.0, 100),
            result(2, "basalt", 900.0, 50),
            result(2, "hbase", 50.0, 100),
            result(3, "basalt", 200.0, 60),
            result(3, "hbase", 100.0, 100),
        ];
        let machine = Machine { cores: 2, processor: "x".to_owned(), memory_bytes: 1 << 30 };
        let targets = vec![target("basalt"), target("hbase")];
        let report = BenchReport::new(machine, &config, targets, runs);
        assert_eq!(report.medians.len(), 2);
        assert_eq!(report.medians[0].operations_per_s, 200.0);
        assert_eq!(report.medians[0].errors, 3);
        assert_eq!(report.ratios.len(), 1);
        assert!((report.ratios[0].throughput - 200.0 / 90.0).abs() < 1e-9);
        assert_eq!(report.ratios[0].resident, Some(0.5));
        assert!(report.summary().contains("2.22"), "{}", report.summary());
    }

    #[test]
    fn the_median_of_two_lies_between() {
        assert_eq!(median(vec![1.0, 4.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
