//! The figures of a measurement: the whole run, and one recovery in detail.

use std::time::Duration;

use super::chart::{Band, Content, Figure, Hover, Line, Marker, Panel, Row, Scale};
use super::palette::{COLOURS, FIGURE, class_of};
use super::summary::{duration, thousands};
use crate::measurement::{Fault, Measurement};
use crate::outage::Outage;
use crate::timeline::{BUCKET_MS, Bucket, Kind, Tally};

/// Maximum columns of a figure; with more buckets than this, buckets are merged.
const COLUMNS_MAX: usize = 450;
/// Maximum number of regions that are drawn one by one.
const ROWS_MAX: usize = 60;
/// The time shown before the fault and after the recovery: as long as the recovery took, within
/// these bounds.
const AROUND_S_MIN: f64 = 0.15;
const AROUND_S_MAX: f64 = 0.8;

/// A self-contained SVG of fault number `index` and the recovery from it. Returns `None` if there
/// is no such fault.
pub fn picture(measurement: &Measurement, index: usize) -> Option<String> {
    let fault = measurement.faults.get(index)?;
    let style = format!("{COLOURS}{FIGURE}");
    Some(recovery(measurement, fault).draw(Some(&style)).into_string())
}

/// The figure of the whole run.
pub(super) fn whole(measurement: &Measurement) -> Figure {
    let length = measurement.length.as_secs_f64();
    let window = Window::new(measurement, 0.0, length, 0.0);
    Figure {
        title: "Throughput and latency over the whole run".to_owned(),
        panels: window.panels(false),
        bands: measurement.faults.iter().flat_map(|f| bands(f, 0.0)).collect(),
        markers: measurement.faults.iter().map(|f| marker(f, 0.0)).collect(),
        hovers: window.hovers(),
        key: key(&measurement.faults, false),
        from_s: 0.0,
        to_s: length,
    }
}

/// The figure of one fault. Times are relative to the fault.
pub(super) fn recovery(measurement: &Measurement, fault: &Fault) -> Figure {
    let at = fault.window.at.as_secs_f64();
    let until = fault.window.recovered_at.unwrap_or(measurement.length);
    let phases_end = bands(fault, at).last().map_or(0.0, |band| band.to_s);
    let felt = (until.as_secs_f64() - at).max(phases_end);
    let around = felt.clamp(AROUND_S_MIN, AROUND_S_MAX);
    let from = -around.min(at);
    let to = (felt + around).min(measurement.length.as_secs_f64() - at).max(AROUND_S_MIN);
    let window = Window::new(measurement, from, to, at);
    Figure {
        title: format!("{}: {}", fault.victim, fault.kind.description()),
        panels: window.panels(true),
        bands: bands(fault, at),
        markers: vec![marker(fault, at)],
        hovers: window.hovers(),
        key: key(std::slice::from_ref(fault), true),
        from_s: from,
        to_s: to,
    }
}

/// A part of the run, divided into columns.
struct Window<'a> {
    measurement: &'a Measurement,
    columns: Vec<Column>,
    from_s: f64,
    to_s: f64,
    /// Subtracted from the times of the run.
    origin_s: f64,
}

/// Several buckets, merged.
struct Column {
    from_s: f64,
    to_s: f64,
    writes: Merged,
    reads: Merged,
}

#[derive(Default)]
struct Merged {
    succeeded: u64,
    failed: u64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

// === impl Window ===

impl<'a> Window<'a> {
    fn new(measurement: &'a Measurement, from_s: f64, to_s: f64, origin_s: f64) -> Self {
        let bucket_s = BUCKET_MS as f64 / 1e3;
        let index = |seconds: f64| ((seconds + origin_s).max(0.0) / bucket_s).floor() as usize;
        let last = (index(to_s) + 1).min(measurement.buckets.len());
        let first = index(from_s).min(last);
        let buckets = &measurement.buckets[first..last];
        let merge = buckets.len().div_ceil(COLUMNS_MAX).max(1);
        let columns = buckets.chunks(merge).enumerate().map(|(chunk, buckets)| {
            let start = (first + chunk * merge) as f64 * bucket_s - origin_s;
            let column_s = buckets.len() as f64 * bucket_s;
            Column {
                from_s: start,
                to_s: start + column_s,
                writes: Merged::of(buckets, |bucket| bucket.writes),
                reads: Merged::of(buckets, |bucket| bucket.reads),
            }
        });
        Self { measurement, columns: columns.collect(), from_s, to_s, origin_s }
    }

    fn panels(&self, close_by: bool) -> Vec<Panel> {
        let mut panels = vec![self.throughput(), self.latency()];
        if self.measurement.regions.len() <= ROWS_MAX {
            panels.push(self.outages_by_region(close_by));
        } else {
            panels.push(self.regions_out());
        }
        panels
    }

    fn throughput(&self) -> Panel {
        let rate = |count: u64, column: &Column| count as f64 / (column.to_s - column.from_s);
        let ok = |kind| self.line(move |column| Some(rate(column.of(kind).succeeded, column)));
        let failed = self.line(|column| {
            let failed = column.writes.failed + column.reads.failed;
            (failed > 0).then(|| rate(failed, column))
        });
        let lines = vec![
            line("writes", class_of(Kind::Write), true, ok(Kind::Write)),
            line("reads", class_of(Kind::Read), false, ok(Kind::Read)),
            line("attempts without success", "failed", true, failed),
        ];
        panel("Requests per second", 130.0, Scale::Linear, lines)
    }

    fn latency(&self) -> Panel {
        let p50 = |kind| self.line(move |column| column.of(kind).p50_ms);
        let p99 = |kind| self.line(move |column| column.of(kind).p99_ms);
        let lines = vec![
            line("writes p50", "writes", false, p50(Kind::Write)),
            line("p99", "writes thin", false, p99(Kind::Write)),
            line("reads p50", "reads", false, p50(Kind::Read)),
            line("p99", "reads thin", false, p99(Kind::Read)),
        ];
        panel("Latency in ms", 120.0, Scale::Logarithmic, lines)
    }

    fn outages_by_region(&self, close_by: bool) -> Panel {
        let regions = self.measurement.regions.iter().enumerate();
        let rows: Vec<_> = regions
            .map(|(index, region)| Row {
                name: index.to_string(),
                bars: region.writes.iter().map(|outage| self.bar(outage)).collect(),
            })
            .collect();
        let step = if close_by { 11.0 } else { 7.0 };
        Panel {
            heading: "Writes out, by region".to_owned(),
            height: (rows.len() as f64 * step).max(24.0),
            content: Content::Rows(rows),
        }
    }

    fn bar(&self, outage: &Outage) -> (f64, f64, String) {
        let seconds = |moment: Duration| moment.as_secs_f64() - self.origin_s;
        let tip = format!("writes unavailable for {}", duration(outage.length()));
        (seconds(outage.start), seconds(outage.end), tip)
    }

    /// The number of regions that accept no writes.
    fn regions_out(&self) -> Panel {
        let mut changes: Vec<(f64, f64)> = Vec::new();
        for region in &self.measurement.regions {
            for outage in &region.writes {
                changes.push((outage.start.as_secs_f64() - self.origin_s, 1.0));
                changes.push((outage.end.as_secs_f64() - self.origin_s, -1.0));
            }
        }
        changes.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut out = 0.0;
        let mut points = vec![(self.from_s, Some(0.0))];
        for (at, change) in changes {
            out += change;
            if at <= self.from_s {
                points[0].1 = Some(out);
            } else if at < self.to_s {
                points.push((at, Some(out)));
            }
        }
        let lines = vec![line("regions", "failed", true, points)];
        panel("Regions that accept no writes", 80.0, Scale::Linear, lines)
    }

    fn line(&self, value: impl Fn(&Column) -> Option<f64>) -> Vec<(f64, Option<f64>)> {
        let columns = self.columns.iter();
        let mut points: Vec<_> = columns.map(|c| (c.from_s.max(self.from_s), value(c))).collect();
        if let Some(last) = self.columns.last() {
            points.push((last.to_s.min(self.to_s), None));
        }
        points
    }

    fn hovers(&self) -> Vec<Hover> {
        let columns = self.columns.iter();
        columns
            .map(|column| Hover { from_s: column.from_s, to_s: column.to_s, tip: column.tip() })
            .collect()
    }
}

// === impl Column ===

impl Column {
    fn of(&self, kind: Kind) -> &Merged {
        match kind {
            Kind::Write => &self.writes,
            Kind::Read | Kind::TimelineRead => &self.reads,
        }
    }

    fn tip(&self) -> String {
        let of = |name, merged: &Merged| {
            let rate = merged.succeeded as f64 / (self.to_s - self.from_s);
            let ms = |value: Option<f64>| {
                value.map_or("–".to_owned(), |value| format!("{value:.1} ms"))
            };
            format!(
                "\n{name}: {} a second, p50 {}, p99 {}, {} without success",
                thousands(rate.round() as u64),
                ms(merged.p50_ms),
                ms(merged.p99_ms),
                merged.failed
            )
        };
        let (writes, reads) = (of("writes", &self.writes), of("reads", &self.reads));
        format!("{:.2} s{writes}{reads}", self.from_s)
    }
}

// === impl Merged ===

impl Merged {
    /// Merges buckets. The median latency is a weighted mean. The high percentile is the maximum of
    /// the buckets, so that a spike does not vanish.
    fn of(buckets: &[Bucket], tally: impl Fn(&Bucket) -> Tally) -> Self {
        let mut merged = Self::default();
        let mut weighted = 0.0;
        for tally in buckets.iter().map(tally) {
            merged.succeeded += u64::from(tally.succeeded);
            merged.failed += u64::from(tally.failed);
            if tally.succeeded > 0 {
                weighted += f64::from(tally.p50_us) * f64::from(tally.succeeded);
                let p99_ms = f64::from(tally.p99_us) / 1e3;
                merged.p99_ms = Some(merged.p99_ms.map_or(p99_ms, |high| high.max(p99_ms)));
            }
        }
        if merged.succeeded > 0 {
            merged.p50_ms = Some(weighted / merged.succeeded as f64 / 1e3);
        }
        merged
    }
}

fn panel(heading: &str, height: f64, scale: Scale, lines: Vec<Line>) -> Panel {
    Panel { heading: heading.to_owned(), height, content: Content::Lines { scale, lines } }
}

fn line(
    name: &'static str,
    class: &'static str,
    area: bool,
    points: Vec<(f64, Option<f64>)>,
) -> Line {
    Line { name, class, area, points }
}

fn marker(fault: &Fault, origin_s: f64) -> Marker {
    Marker {
        at_s: fault.window.at.as_secs_f64() - origin_s,
        label: fault.victim.clone(),
        tip: format!("{}: {}", fault.victim, fault.kind.description()),
    }
}

/// The colours of the phases, if any recovery reports them. For a single fault also their
/// durations.
fn key(faults: &[Fault], with_lengths: bool) -> Vec<(&'static str, String)> {
    let mut phased = faults.iter().filter_map(|fault| fault.phases);
    let Some(phases) = phased.find(|phases| phases.detect.is_some()) else {
        return Vec::new();
    };
    let named = phases.named().into_iter();
    named
        .filter_map(|(name, length)| {
            let length = length?;
            let text =
                if with_lengths { format!("{name} {}", duration(length)) } else { name.to_owned() };
            Some((name, text))
        })
        .collect()
}

/// The phases of the recovery from `fault`, in order.
fn bands(fault: &Fault, origin_s: f64) -> Vec<Band> {
    let mut from_s = fault.window.at.as_secs_f64() - origin_s;
    let Some(phases) = &fault.phases else {
        return Vec::new();
    };
    let mut bands = Vec::new();
    for (name, length) in phases.named() {
        let Some(length) = length else { continue };
        let to_s = from_s + length.as_secs_f64();
        bands.push(Band {
            from_s,
            to_s,
            class: name,
            tip: format!("{name}: {}", duration(length)),
        });
        from_s = to_s;
    }
    bands
}
