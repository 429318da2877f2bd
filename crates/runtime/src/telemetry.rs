//! Logging: one line an event on standard error, filtered by level.

use tracing_subscriber::EnvFilter;

/// What the consensus library tells of its own doings is for its authors, and it warns of each
/// answer that nobody waits for. The coordinator tells who leads.
const QUIET: &str = "openraft=warn,openraft::raft::responder=error";

/// Starts logging to standard error. `level` is a filter as `RUST_LOG` takes it (`info`,
/// `basalt_master=debug,info`); the environment's `RUST_LOG` wins where it is set.
///
/// # Errors
/// `level` is not a valid filter; the message names it.
pub fn init_telemetry(level: &str) -> Result<(), String> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(from_environment) => from_environment,
        Err(_) => format!("{QUIET},{level}"),
    };
    let filter = EnvFilter::try_new(&filter)
        .map_err(|error| format!("log level {filter:?} is not a filter: {error}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init()
        .map_err(|error| format!("logging was started twice: {error}"))
}
