//! The record of a simulation, in order: its events, log lines of the roles, and a digest of the
//! network traffic. Two runs with equal traces were the same.

use std::fmt::Arguments;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use basalt_runtime::WITNESS;
use parking_lot::Mutex;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::{Layer, prelude::*};

use crate::seed::Digest;
use crate::witness::Witness;

/// Maximum lines that are kept; the digest covers all lines.
const LINES_MAX: usize = 1_000_000;

/// The trace of one simulation; a cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<Events>>);

#[derive(Debug, Default)]
struct Events {
    lines: Vec<String>,
    digest: Digest,
    network_writes: u64,
    network_digest: Digest,
    /// The time of the last event, for events where the time cannot be read.
    last: Duration,
}

/// Receives one log line.
#[derive(Debug)]
pub struct LogLine(Trace);

// === impl Trace ===

impl Trace {
    /// Adds an event at the current simulated time.
    pub fn record(&self, event: Arguments<'_>) {
        let now = turmoil::sim_elapsed();
        let mut events = self.0.lock();
        events.last = now.unwrap_or(events.last);
        let line = format!("{:10.6} {event}", events.last.as_secs_f64());
        events.add(line);
    }

    /// Adds an event that happened outside of all processes, at `now`.
    pub fn record_at(&self, now: Duration, event: Arguments<'_>) {
        let mut events = self.0.lock();
        events.last = now;
        let line = format!("{:10.6} {event}", now.as_secs_f64());
        events.add(line);
    }

    /// Adds a write of `length` bytes from `from` to `to` to the network digest.
    pub(crate) fn note_network_write(&self, from: &str, to: &str, length: usize) {
        let now = turmoil::sim_elapsed().unwrap_or_default();
        let mut events = self.0.lock();
        events.network_writes += 1;
        let digest = &mut events.network_digest;
        digest.add(&now.as_nanos().to_le_bytes());
        digest.add(from.as_bytes());
        digest.add(to.as_bytes());
        digest.add(&length.to_le_bytes());
    }

    /// Adds a line with the network traffic so far.
    pub(crate) fn record_network(&self, now: Duration) {
        let (writes, digest) = {
            let events = self.0.lock();
            (events.network_writes, events.network_digest.0)
        };
        self.record_at(now, format_args!("network: {writes} writes, {digest:016x}"));
    }

    /// The digest of all lines.
    pub fn digest(&self) -> Digest {
        self.0.lock().digest
    }

    /// The number of writes to the network, not of packets.
    pub fn network_writes(&self) -> u64 {
        self.0.lock().network_writes
    }

    /// The lines, one event each.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().lines.clone()
    }

    /// Runs `simulation`. Its log becomes a part of the trace, and the events of its roles go to
    /// `witness`.
    pub fn with_log<T>(&self, witness: &Witness, simulation: impl FnOnce() -> T) -> T {
        // The spans and events of `turmoil` name the process of a line, and report bound ports.
        let log = tracing_subscriber::fmt::layer()
            .with_writer(self.clone())
            .without_time()
            .with_ansi(false)
            .with_filter(EnvFilter::new("basalt=info,turmoil=info"));
        let witnessed = Targets::new()
            .with_target(WITNESS, LevelFilter::TRACE)
            .with_target("turmoil", LevelFilter::INFO);
        let subscriber =
            tracing_subscriber::registry().with(log).with(witness.clone().with_filter(witnessed));
        tracing::subscriber::with_default(subscriber, simulation)
    }
}

impl<'a> MakeWriter<'a> for Trace {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine(self.clone())
    }
}

// === impl Events ===

impl Events {
    fn add(&mut self, line: String) {
        self.digest.add(line.as_bytes());
        if self.lines.len() < LINES_MAX {
            self.lines.push(line);
        }
    }
}

// === impl LogLine ===

impl io::Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0.record(format_args!("{}", text.trim_end()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_becomes_a_part_of_the_trace() {
        let trace = Trace::default();
        trace.record_at(Duration::from_millis(1_500), format_args!("a fault"));
        trace.with_log(
            &Witness::default(),
            || tracing::info!(target: "basalt_master", answer = 42, "active"),
        );
        let lines = trace.lines();
        assert_eq!(lines[0], "  1.500000 a fault");
        assert!(lines[1].contains("active answer=42"), "{lines:?}");
    }

    #[test]
    fn traces_of_different_events_have_different_digests() {
        let digest = |event: &str| {
            let trace = Trace::default();
            trace.record_at(Duration::ZERO, format_args!("{event}"));
            trace.digest()
        };
        assert_eq!(digest("one"), digest("one"));
        assert_ne!(digest("one"), digest("two"));
    }
}
