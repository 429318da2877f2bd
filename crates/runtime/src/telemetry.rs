//! Logging: one line an event on standard error, filtered by level.
//!
//! A line that cannot be written is dropped and counted (`basalt_log_lines_lost_total`): a process
//! whose disk is full, or whose log's reader has ended, goes on.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Writes to standard error, and drops what cannot be written. Were the error returned, the
/// subscriber would report it with `eprintln!`, which panics for the same reason.
struct Lossy<W>(W);

/// Gives each event a [`Lossy`] standard error.
struct LossyStderr;

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
        .with_writer(LossyStderr)
        .with_ansi(false)
        .try_init()
        .map_err(|error| format!("logging was started twice: {error}"))
}

// === impl Lossy ===

impl<W: Write> Write for Lossy<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // An event is one line, and one call.
        if self.0.write_all(line).is_err() {
            metrics::counter!("basalt_log_lines_lost_total").increment(1);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl LossyStderr ===

impl MakeWriter<'_> for LossyStderr {
    type Writer = Lossy<io::StderrLock<'static>>;

    fn make_writer(&self) -> Self::Writer {
        Lossy(io::stderr().lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_cannot_be_written_is_dropped() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut log = Lossy(full);
        assert_eq!(log.write(b"a line\n").unwrap(), 7);
        log.flush().unwrap();
    }
}
