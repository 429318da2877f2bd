//! The benchmark: YCSB's workloads against one or more clusters, one after the other.
//!
//! A *round* goes once through all targets, each with all mixes on a table that is made anew. What
//! is compared are the medians of the rounds.

mod report;
mod run;
mod workload;

pub use report::{BenchReport, Machine, Median, MixResult, Ratio, TargetReport};
pub use run::{BenchConfig, BenchProgress, BenchTarget, run};
pub use workload::{Mix, Operation, Zipfian};
