//! The whole cluster in one process under a seed.
//!
//! A scenario (`scenarios/`) starts a [`cluster`] of the roles' own `run` functions on a simulated
//! network, lets a [`workload`] write and read, and injects faults at moments that the seed
//! chooses. `invariants/` say what must hold whatever was done. What happened is the [`trace`].
//!
//! Clock, randomness, network and files of a role are the four seams; nothing else reaches it.
//! The libraries below ask the operating system all the same (the order in which tokio wakes the
//! readers of a `watch`, the keys of a `HashMap`); the program `basalt-sim` puts that under the
//! seed too, which can be done once in a process. So the same seed gives the same trace in two
//! runs of the program, not in two runs within one process.
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
