//! Simulates a whole cluster in one process, determined by a seed.
//!
//! A scenario (`scenarios/`) starts a [`cluster`] of the roles' own `run` functions on a simulated
//! network, lets a [`workload`] write and read, and injects faults at moments that the seed
//! chooses. `invariants/` define what must hold whatever faults are injected. The [`trace`] records
//! what happened.
//!
//! Clock, randomness, network and files of a role are the four seams; nothing else reaches it. Yet
//! the libraries below ask the operating system: for the order in which tokio wakes the readers of
//! a `watch`, or the keys of a `HashMap`. The program `basalt-sim` puts those requests under the
//! seed too, which is possible once per process. So the same seed yields the same trace in two runs
//! of the program, but not in two runs within one process.
//!
//! ```text
//! cargo run --release -p basalt-sim -- chaos --seed 7 --trace trace.txt
//! cargo run --release -p basalt-sim -- all --seeds 1..101
//! ```

pub mod actors;
pub mod clock;
pub mod cluster;
pub mod disk;
mod drain;
pub mod faults;
pub mod folder;
pub mod hdfs;
pub mod invariants;
mod links;
mod lost_logs;
pub mod network;
pub mod plan;
mod process;
pub mod scenarios;
pub mod seed;
mod simulate;
pub mod sweep;
mod threads;
pub mod trace;
pub mod witness;
pub mod workload;

pub use simulate::{Settings, SimulationOutcome, simulate};
