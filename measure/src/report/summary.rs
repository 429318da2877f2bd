//! The summary for the terminal: the faults, their cost, and whether anything was lost.

use std::time::Duration;

use crate::measurement::{Fault, Measurement, Phases, Totals};
use crate::outage::{Apart, Attribution, FaultCost, Spread};
use crate::report::Latencies;

/// How many of the longest outages are printed if the run had no faults.
const LONGEST_PRINTED: usize = 3;

/// The summary of `measurement`.
pub fn summary(measurement: &Measurement) -> String {
    let attribution = measurement.attribution();
    let faults = measurement.faults.iter().zip(&attribution.faults);
    let faults: Vec<_> = faults
        .enumerate()
        .map(|(index, (fault, cost))| fault_lines(index + 1, fault, cost))
        .collect();
    let Measurement { length, writes, reads, .. } = measurement;
    let rate = |name, totals: &Totals| {
        let latencies = Latencies::of(&totals.latencies);
        format!(
            "  {name:<7} {:>7} a second   p50 {} ms   p99 {} ms   max {} ms{}\n",
            thousands(totals.per_second(*length).round() as u64),
            latencies.p50,
            latencies.p99,
            latencies.max,
            late(totals),
        )
    };
    format!(
        "\n{}\n{} over {} regions\n{}{}\n{}\n{}",
        measurement.cluster,
        duration(*length),
        measurement.regions.len(),
        rate("writes", writes),
        rate("reads", reads),
        faults.join("\n"),
        verdict(measurement, &attribution),
    )
}

/// Describes one fault in a few lines; `number` counts from 1.
pub fn fault_lines(number: usize, fault: &Fault, cost: &FaultCost) -> String {
    let regions = fault.window.affected.len();
    let mut lines = format!(
        "{number:>3}. {:>7}  {}: {}{}\n",
        duration(fault.window.at),
        fault.victim,
        fault.kind.description(),
        match regions {
            0 => String::new(),
            _ => format!(", {regions} regions{}", in_log(fault.wal_bytes)),
        }
    );
    let whose = if regions == 0 { "any region" } else { "its regions" };
    lines += &format!(
        "              writes of {whose} unavailable for {}; reads {}; failed elsewhere: {}\n",
        spread(cost.writes),
        spread(cost.reads),
        cost.bystander_failures
    );
    if cost.already_out > 0 {
        lines += &format!(
            "              {} of these outages had begun before the fault, and count from then \
             on\n",
            cost.already_out
        );
    }
    if let Some(timeline) = cost.timeline {
        lines += &format!("              timeline reads unavailable for {}\n", spread(timeline));
    }
    if let Some(phases) = &fault.phases {
        lines += &format!("              {}\n", phases_in_words(phases));
    }
    if fault.window.recovered_at.is_none() {
        lines += "              NOT recovered\n";
    }
    lines
}

/// A duration in readable form.
pub fn duration(duration: Duration) -> String {
    match duration.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        ms @ 1000..60_000 => format!("{:.2} s", ms as f64 / 1e3),
        ms => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// A number with a comma as the thousands separator.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The phases of a recovery in one line.
pub(super) fn phases_in_words(phases: &Phases) -> String {
    let named = phases.named().into_iter();
    let mut words: Vec<_> =
        named.filter_map(|(name, length)| Some(format!("{name} {}", duration(length?)))).collect();
    match (phases.total, words.is_empty()) {
        (Some(total), true) => words.push(format!("taken over after {}", duration(total))),
        (Some(total), false) => words.push(format!("total {}", duration(total))),
        (None, _) => {}
    }
    words.join(", ")
}

/// A number of bytes in the largest unit that fits.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.0} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// The median and the maximum.
pub(super) fn spread(spread: Spread) -> String {
    if spread.max.is_zero() {
        return "no time".to_owned();
    }
    format!("{} (longest {})", duration(spread.p50), duration(spread.max))
}

fn in_log(wal_bytes: Option<u64>) -> String {
    wal_bytes.map_or(String::new(), |count| format!(", {} of WAL", bytes(count)))
}

fn late(totals: &Totals) -> String {
    match totals.late.count() {
        0 => String::new(),
        count => {
            let latencies = Latencies::of(&totals.late);
            format!("   and {} late: p50 {} ms   max {} ms", count, latencies.p50, latencies.max)
        }
    }
}

/// The outages that belong to no fault, in words.
pub(super) fn apart(apart: Apart) -> String {
    match apart.count {
        0 => "none".to_owned(),
        count => format!("{} (longest {})", thousands(count), duration(apart.max)),
    }
}

fn verdict(measurement: &Measurement, attribution: &Attribution) -> String {
    let audit = measurement.audit;
    let mut lines = format!(
        "Region server faults: writes unavailable for {}; reads {}\n\
         Outages that belong to no fault: writes {}; reads {}\n\
         Failed requests in other regions: {}\n\
         Writes: {} acknowledged, {} unknown, {} lost\n",
        spread(attribution.writes),
        spread(attribution.reads),
        apart(attribution.writes_apart),
        apart(attribution.reads_apart),
        attribution.bystander_failures,
        thousands(audit.acked),
        thousands(audit.unknown),
        thousands(audit.lost),
    );
    if measurement.faults.is_empty() {
        lines = lines.replace("Region server faults", "Outages seen");
        // Without faults, only these lines show when to look into which server's log.
        for (region, outage) in measurement.longest_write_outages(LONGEST_PRINTED) {
            lines += &format!(
                "  writes of region {region} at {} for {}\n",
                duration(outage.start),
                duration(outage.length())
            );
        }
    }
    for violation in measurement.violations() {
        lines += &format!("BROKEN: {violation}\n");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;

    #[test]
    fn a_newcomer_can_read_it() {
        let text = summary(&fixtures::small());
        assert!(
            text.contains("regionserver-1: region server killed (SIGKILL), 1 regions"),
            "{text}"
        );
        assert!(text.contains("writes of its regions unavailable for 250 ms"), "{text}");
        assert!(text.contains("detect 40 ms, fence 10 ms"), "{text}");
        assert!(text.contains("20 acknowledged, 1 unknown, 0 lost"), "{text}");
        assert!(text.contains("and 1 late: p50 900 ms"), "{text}");
        assert!(
            text.contains("belong to no fault: writes 1 (longest 20 ms); reads none"),
            "{text}"
        );
    }

    #[test]
    fn an_outage_under_way_at_a_fault_is_printed() {
        let mut measurement = fixtures::small();
        measurement.regions[0].reads[0].start = Duration::from_millis(300);
        let text = summary(&measurement);
        assert!(text.contains("1 of these outages had begun before the fault"), "{text}");
    }

    #[test]
    fn a_loss_is_reported_prominently() {
        let mut measurement = fixtures::small();
        measurement.audit.lost = 3;
        assert!(summary(&measurement).contains("BROKEN: 3 of 20 acknowledged writes were lost"));
    }

    #[test]
    fn without_faults_the_longest_outages_are_printed_with_their_time() {
        let mut measurement = fixtures::small();
        measurement.faults.clear();
        let text = summary(&measurement);
        let printed: Vec<_> =
            text.lines().filter(|line| line.contains("writes of region")).collect();
        assert_eq!(printed.len(), LONGEST_PRINTED.min(measurement.longest_write_outages(99).len()));
        assert!(printed[0].ends_with("for 250 ms"), "{text}");
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands(999), "999");
        assert_eq!(duration(Duration::from_millis(1500)), "1.50 s");
        assert_eq!(duration(Duration::from_secs(61)), "1 min 1 s");
        assert_eq!(bytes(2 << 20), "2 MiB");
    }
}
