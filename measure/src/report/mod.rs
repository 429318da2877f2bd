//! Reports of a measurement: JSON for programs, a summary for the terminal, a page with the
//! timeline, and a picture of one recovery.

mod chart;
mod json;
mod page;
mod palette;
mod picture;
mod summary;

#[cfg(test)]
mod fixtures;

pub use json::{FaultReport, Latencies, Operations, PhasesMs, Report, SpreadMs, Summary};
pub use page::page;
pub use picture::picture;
pub use summary::{bytes, duration, fault_lines, summary, thousands};
