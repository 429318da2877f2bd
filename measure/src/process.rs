//! Resources used by processes of this machine, from `/proc`.

use std::fs;
use std::time::Duration;

use crate::{Error, Result};

/// Resources used by some processes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Processor time since each of them started.
    pub cpu: Duration,
    /// Resident memory of the largest of them, in bytes.
    pub resident_bytes_max: u64,
}

/// The unit in which `/proc` counts processor time, on every Linux architecture that Basalt
/// supports.
const TICK: Duration = Duration::from_millis(10);

// === impl Usage ===

impl Usage {
    /// The resources used by the processes `pids`.
    ///
    /// # Errors
    /// One of them does not run, or its figures cannot be read.
    pub fn of(pids: &[u32]) -> Result<Self> {
        let mut usage = Self::default();
        for &pid in pids {
            let read = |name: &str| {
                fs::read_to_string(format!("/proc/{pid}/{name}"))
                    .map_err(|error| Error::NoProcess { pid, reason: error.to_string() })
            };
            let bad = |reason: &str| Error::NoProcess { pid, reason: reason.to_owned() };
            let ticks = cpu_ticks(&read("stat")?).ok_or_else(|| bad("unreadable stat"))?;
            let resident = resident(&read("status")?).ok_or_else(|| bad("it has no memory"))?;
            usage.cpu += TICK * ticks;
            usage.resident_bytes_max = usage.resident_bytes_max.max(resident);
        }
        Ok(usage)
    }
}

/// The memory of this machine in bytes.
pub(crate) fn machine_memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kilobytes(&text, "MemTotal:").unwrap_or(0)
}

/// The name of this machine's processor.
pub(crate) fn processor_name() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    let name = line.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim());
    name.unwrap_or("unknown").to_owned()
}

/// User and system time. The name of the program precedes them and may contain anything.
fn cpu_ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

fn resident(status: &str) -> Option<u64> {
    kilobytes(status, "VmRSS:")
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_may_hold_anything() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 120 30 0 0 20 0";
        assert_eq!(cpu_ticks(stat), Some(150));
        assert_eq!(cpu_ticks("7 (x) S 1"), None);
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = Usage::of(&[std::process::id()]).unwrap();
        assert!(usage.resident_bytes_max > 1 << 20);
        assert!(Usage::of(&[u32::MAX]).is_err());
    }
}
