//! The benchmark: YCSB's workloads against one or more clusters, one after the other.
//!
//! A *round* runs all mixes against each target once, on a table created for it. Targets are
//! compared by the medians of their rounds.

mod report;
mod run;
mod workload;

pub use report::{BenchReport, Machine, Median, MixResult, Ratio, TargetReport};
pub use run::{BenchConfig, BenchProgress, BenchTarget, run};
pub use workload::{Mix, Operation, Zipfian};
