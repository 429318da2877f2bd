//! Logging: one line per event on standard error, filtered by level.
//!
//! A line that cannot be written is dropped and counted (`basalt_log_lines_lost_total`). A process
//! continues when its disk is full or when the reader of its log has ended.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Writes to standard error, and drops lines that cannot be written. If the error were returned,
/// the subscriber would report it with `eprintln!`, which panics for the same reason.
struct Lossy<W>(W);

/// Makes a [`Lossy`] standard error for each event.
struct LossyStderr;

/// The consensus library's own messages are for its authors, and it warns about each answer that no
/// caller waits for. The coordinator logs the leader itself.
const QUIET: &str = "openraft=warn,openraft::raft::responder=error";

/// Starts logging to standard error. `level` is a filter in the syntax of `RUST_LOG` (`info`,
/// `basalt_master=debug,info`). If the environment variable `RUST_LOG` is set, it takes precedence.
///
/// # Errors
/// `level` is not a valid filter (the message contains it), or logging was started before.
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
        // Each event is one line, written by one call.
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
