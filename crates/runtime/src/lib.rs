//! The seams between Basalt and the machine it runs on.
//!
//! Three of the four seams are in this crate: [`Clock`], [`Random`] and [`Network`]. The fourth,
//! the file system, is `basalt_fs`. A role receives [`Seams`] in its `run` function and reaches the
//! machine only through them. The simulation can therefore control a whole cluster by one seed.
//! Sleeping and timeouts are `tokio::time`, which the simulation's paused runtime controls.

mod clock;
pub mod grpc;
mod network;
mod random;
mod telemetry;
mod threads;
mod witness;

pub use clock::{Clock, ClockSource, SystemClock};
pub use network::{Connection, Listener, Network, NetworkSource, Stream, TcpNetwork};
pub use random::Random;
pub use telemetry::init_telemetry;
pub use threads::{Dropped, Executor, LongSteps, Spawn, Threads, long_step, until_stuck};
/// The signal that stops a role: cancelled once, seen by all its tasks.
pub use tokio_util::sync::CancellationToken as Shutdown;
pub use witness::WITNESS;

/// The machine as a role may use it, except for its file system.
#[derive(Clone, Debug)]
pub struct Seams {
    /// Where time is read.
    pub clock: Clock,
    /// Where randomness comes from.
    pub random: Random,
    /// Where connections are opened and accepted.
    pub network: Network,
    /// Where tasks run.
    pub threads: Threads,
}

// === impl Seams ===

impl Seams {
    /// The seams of a real machine: its clocks, the operating system's randomness, TCP. All tasks
    /// run on the caller's threads.
    pub fn system() -> Self {
        Self {
            clock: Clock::new(SystemClock),
            random: Random::from_system(),
            network: Network::new(TcpNetwork),
            threads: Threads::default(),
        }
    }
}
