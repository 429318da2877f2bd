//! How much memory each process uses in the course of a run.
//!
//! A process is killed about once a minute, and starts with little memory each time. So this
//! compares two time spans instead of two moments: in each span it takes the largest memory that
//! the process used in any of its lives.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use basalt_measure::Usage;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::local::{ProcessState, Supervisor};

/// The memory use of each process, by name.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// How long the run lasts.
    time: Duration,
    processes: BTreeMap<String, ProcessMemory>,
}

/// The memory use of one process: the maximum in each of the spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct ProcessMemory {
    /// In the five minutes before minute 20. `None` if it was not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    minute_20_bytes: Option<u64>,
    /// In the last five minutes.
    end_bytes: u64,
}

/// When the caches are full.
const FULL_AT: Duration = Duration::from_mins(20);
/// The length of a span.
const SPAN: Duration = Duration::from_mins(5);
/// The shortest run that says anything about growth.
const TIME_MIN: Duration = Duration::from_mins(40);
/// The maximum memory at the end, as a multiple of the memory at minute 20.
const GROWTH_MAX: f64 = 1.5;
/// The interval between two measurements.
const LOOK_PAUSE: Duration = Duration::from_secs(2);

/// Measures all processes of a run that lasts for `time`, until it is dropped.
pub(super) async fn watch(supervisor: &Supervisor, memory: &RefCell<Memory>) -> Infallible {
    let begun = Instant::now();
    loop {
        for (name, state) in supervisor.states() {
            let (ProcessState::Starting { pid } | ProcessState::Ready { pid }) = state else {
                continue;
            };
            // The process may just have died.
            if let Ok(usage) = Usage::of(&[pid]) {
                memory.borrow_mut().note(&name, begun.elapsed(), usage.resident_bytes_max);
            }
        }
        sleep(LOOK_PAUSE).await;
    }
}

// === impl Memory ===

impl Memory {
    /// Nothing measured yet, in a run that lasts for `time`.
    pub(super) fn new(time: Duration) -> Self {
        Self { time, processes: BTreeMap::new() }
    }

    /// Records that `process` used `bytes` at the time `at` after the start of the run.
    fn note(&mut self, process: &str, at: Duration, bytes: u64) {
        let own = self.processes.entry(process.to_owned()).or_default();
        if at <= FULL_AT && at + SPAN >= FULL_AT {
            own.minute_20_bytes = own.minute_20_bytes.max(Some(bytes));
        }
        if at + SPAN >= self.time {
            own.end_bytes = own.end_bytes.max(bytes);
        }
    }

    /// The memory use of each process.
    pub(super) fn processes(&self) -> &BTreeMap<String, ProcessMemory> {
        &self.processes
    }

    /// Describes the processes that used too much memory at the end.
    pub(super) fn grown(&self) -> Vec<String> {
        if self.time < TIME_MIN {
            return Vec::new();
        }
        let grown = self.processes.iter().filter_map(|(name, own)| {
            let growth = own.growth().filter(|growth| *growth > GROWTH_MAX)?;
            Some(format!("{name} used {growth:.2} times its memory of minute 20 at the end"))
        });
        grown.collect()
    }
}

// === impl ProcessMemory ===

impl ProcessMemory {
    /// The memory at the end as a multiple of the memory at minute 20.
    fn growth(&self) -> Option<f64> {
        let before = self.minute_20_bytes.filter(|bytes| *bytes > 0)?;
        Some(self.end_bytes as f64 / before as f64)
    }

    /// The memory use as text.
    pub(super) fn describe(&self) -> String {
        let mebibytes = self.end_bytes >> 20;
        match (self.minute_20_bytes, self.growth()) {
            (Some(before), Some(growth)) => {
                format!("{mebibytes} MiB, {growth:.2} times the {} MiB of minute 20", before >> 20)
            }
            _ => format!("{mebibytes} MiB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn memory(minutes: u32, looks: &[(u32, u64)]) -> Memory {
        let mut memory = Memory::new(MINUTE * minutes);
        looks.iter().for_each(|(minute, bytes)| memory.note("master-0", MINUTE * *minute, *bytes));
        memory
    }

    #[test]
    fn the_end_is_compared_with_minute_20_by_the_largest_life_of_each() {
        // Low values are those of processes that have just started. Minutes 14 and 50 are in no
        // span.
        let looks = [(14, 900), (16, 100), (19, 10), (21, 500), (50, 900), (56, 150), (60, 20)];
        let held = memory(60, &looks);
        let expected = ProcessMemory { minute_20_bytes: Some(100), end_bytes: 150 };
        assert_eq!(held.processes()["master-0"], expected);
        assert_eq!(held.grown(), Vec::<String>::new());
        let grown = memory(60, &[(16, 100), (56, 151)]).grown();
        assert!(grown[0].starts_with("master-0 used 1.51 times"), "{grown:?}");
        assert_eq!(grown.len(), 1);
    }

    #[test]
    fn a_short_run_says_nothing_about_growth() {
        assert_eq!(memory(39, &[(16, 100), (36, 900)]).grown(), Vec::<String>::new());
        let short = memory(3, &[(1, 7 << 20)]);
        assert_eq!(short.processes()["master-0"].minute_20_bytes, None);
        assert_eq!(short.processes()["master-0"].describe(), "7 MiB");
    }
}
