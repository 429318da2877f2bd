//! The HTML page: one self-contained file, with light and dark colours.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::palette::{COLOURS, FIGURE};
use super::picture::{recovery, whole};
use super::summary::{bytes, duration, phases_in_words, thousands};
use crate::measurement::{Fault, Measurement};
use crate::outage::{Attribution, FaultCost, Spread};
use crate::report::Latencies;
use crate::timeline::BUCKET_MS;

const PAGE: &str = "\
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);\
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}\
main{max-width:1120px;margin:0 auto;padding:32px 24px 64px}h1{font-size:24px;margin:0}\
h2{font-size:17px;margin:36px 0 10px}p{margin:4px 0 0;color:var(--soft)}\
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;\
margin-top:22px}.card,.tile{background:var(--card);border:1px solid var(--line);\
border-radius:8px}.tile{padding:12px 16px}.tile b{display:block;font-size:24px;\
font-variant-numeric:tabular-nums;line-height:1.3}.tile span{color:var(--soft);font-size:13px}\
.tile .note{display:block}.good b{color:var(--good)}.bad b{color:var(--failed)}\
.card{padding:14px 14px 8px;overflow-x:auto}table{border-collapse:collapse;width:100%;\
font-size:14px;font-variant-numeric:tabular-nums}th{color:var(--soft);font-weight:500;\
text-align:left;vertical-align:bottom}th,td{padding:6px 10px;border-bottom:1px solid var(--line)}\
tr:last-child td{border-bottom:0}td.n,th.n{text-align:right}td.n{white-space:nowrap}\
td small{color:var(--soft)}\
details{margin-top:12px}summary{cursor:pointer;font-weight:600;padding-bottom:8px}\
summary span{font-weight:400;color:var(--soft);margin-left:8px}\
.broken{border:1px solid var(--failed);color:var(--failed);border-radius:8px;\
padding:10px 16px;margin-top:18px;background:var(--card)}footer{margin-top:36px;font-size:13px;\
color:var(--soft)}";

/// Renders the page for `measurement`.
pub fn page(measurement: &Measurement) -> String {
    let attribution = measurement.attribution();
    let styles = [COLOURS, PAGE, FIGURE].concat();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Basalt probe: " (measurement.cluster) }
                style { (PreEscaped(styles)) }
            }
            body { main {
                h1 { (measurement.cluster) }
                p {
                    (duration(measurement.length)) " of writes and strong reads to "
                    (measurement.regions.len()) " regions, "
                    (counted(measurement.faults.len(), "fault"))
                }
                @for violation in measurement.violations() {
                    div class="broken" { (violation) }
                }
                (tiles(measurement, &attribution))
                @if !measurement.faults.is_empty() {
                    h2 { "Faults and what they cost" }
                    (fault_table(measurement, &attribution))
                }
                h2 { "The whole run" }
                div class="card" {
                    (whole(measurement).draw(None))
                }
                @if !measurement.faults.is_empty() {
                    h2 { "Each fault in detail" }
                    @for (index, fault) in measurement.faults.iter().enumerate() {
                        (close_by(measurement, fault, &attribution.faults[index], index))
                    }
                }
                (footer())
            } }
        }
    }
    .into_string()
}

fn tiles(measurement: &Measurement, attribution: &Attribution) -> Markup {
    let Measurement { audit, length, .. } = measurement;
    let rate = |totals: &crate::measurement::Totals| thousands(totals.per_second(*length) as u64);
    let write = Latencies::of(&measurement.writes.latencies);
    let read = Latencies::of(&measurement.reads.latencies);
    let acked = format!("of {} acknowledged", thousands(audit.acked));
    let longest = |spread: Spread| format!("longest {}", duration(spread.max));
    html! {
        div class="tiles" {
            (tile(good_if(audit.lost == 0), &thousands(audit.lost), "writes lost", &acked))
            (tile("", &duration(attribution.writes.p50), "write outage, median",
                &longest(attribution.writes)))
            (tile("", &duration(attribution.reads.p50), "read outage, median",
                &longest(attribution.reads)))
            @if let Some(timeline) = attribution.timeline {
                (tile("", &duration(timeline.p50), "timeline outage, median", &longest(timeline)))
            }
            (tile(good_if(attribution.bystander_failures == 0),
                &thousands(attribution.bystander_failures), "failed requests",
                "in other regions"))
            (tile("", &thousands(attribution.writes_apart.count), "write outages without a fault",
                &format!("longest {}", duration(attribution.writes_apart.max))))
            (tile("", &rate(&measurement.writes), "writes a second",
                &format!("p50 {} ms, p99 {} ms", write.p50, write.p99)))
            (tile("", &rate(&measurement.reads), "reads a second",
                &format!("p50 {} ms, p99 {} ms", read.p50, read.p99)))
        }
    }
}

fn tile(class: &str, figure: &str, name: &str, note: &str) -> Markup {
    html! {
        div class={ "tile " (class) } {
            b { (figure) }
            span { (name) }
            span class="note" { (note) }
        }
    }
}

fn good_if(condition: bool) -> &'static str {
    if condition { "good" } else { "bad" }
}

fn fault_table(measurement: &Measurement, attribution: &Attribution) -> Markup {
    let faults = measurement.faults.iter().zip(&attribution.faults);
    html! {
        div class="card" { table {
            tr {
                th class="n" { "at" } th { "fault" } th class="n" { "regions" }
                th class="n" { "WAL" } th class="n" { "write outage" }
                th class="n" { "read outage" }
                th class="n" { "failed elsewhere" } th { "recovery" }
            }
            @for (fault, cost) in faults {
                tr {
                    td class="n" { (duration(fault.window.at)) }
                    td { (fault.victim) br; small { (fault.kind.description()) } }
                    td class="n" { (fault.window.affected.len()) }
                    td class="n" { (fault.wal_bytes.map_or("–".to_owned(), bytes)) }
                    td class="n" { (cell(cost.writes)) }
                    td class="n" { (cell(cost.reads)) }
                    td class="n" { (cost.bystander_failures) }
                    td { small {
                        (recovery_in_words(fault))
                        @if cost.already_out > 0 {
                            br; (cost.already_out) " outages had begun before the fault"
                        }
                    } }
                }
            }
        } }
    }
}

fn cell(spread: Spread) -> Markup {
    html! {
        @if spread.max.is_zero() { "–" } @else {
            (duration(spread.p50)) br; small { "max " (duration(spread.max)) }
        }
    }
}

fn recovery_in_words(fault: &Fault) -> String {
    match (&fault.phases, fault.window.recovered_at) {
        (_, None) => "not recovered".to_owned(),
        (Some(phases), _) => phases_in_words(phases),
        (None, Some(at)) => {
            let after = at.saturating_sub(fault.window.at);
            format!("all served again after {}", duration(after))
        }
    }
}

fn close_by(measurement: &Measurement, fault: &Fault, cost: &FaultCost, index: usize) -> Markup {
    html! {
        details open[index < 3] {
            summary {
                (index + 1) ". " (fault.victim) ", " (fault.kind.description())
                span {
                    "at " (duration(fault.window.at)) ", writes unavailable for up to "
                    (duration(cost.writes.max))
                }
            }
            div class="card" {
                (recovery(measurement, fault).draw(None))
            }
        }
    }
}

fn footer() -> Markup {
    html! {
        footer {
            "Each region gets a write and a strong read at a fixed pace, from streams that never \
             wait for another region. An attempt times out after 250 ms and is repeated until one \
             succeeds; a request fails if no attempt succeeds within 2 s. An outage runs from the \
             start of the first attempt that failed or was late to the end of the first that \
             succeeded. Every acknowledged write was read back at the end. Curves are in steps of "
            (BUCKET_MS) " ms, or of several such steps with their highest p99."
        }
    }
}

fn counted(count: usize, noun: &str) -> String {
    match count {
        0 => format!("no {noun}s"),
        1 => format!("one {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = page(&fixtures::large());
        assert!(page.len() < 3 << 20, "{} bytes", page.len());
        for outside in ["src=", "<script", "@import", "<link"] {
            assert!(!page.contains(outside), "{outside}");
        }
        let links = page.matches("http").count();
        assert_eq!(links, page.matches("http://www.w3.org/2000/svg").count());
    }

    #[test]
    fn each_fault_is_on_the_page() {
        let measurement = fixtures::large();
        let page = page(&measurement);
        for fault in &measurement.faults {
            assert!(page.contains(&fault.victim));
            assert!(page.contains(fault.kind.description()));
        }
    }

    /// Writes the page and a picture to a folder for visual inspection:
    /// `BASALT_LOOK=/tmp cargo test -p basalt-measure look`.
    #[test]
    fn to_be_looked_at() {
        let Ok(folder) = std::env::var("BASALT_LOOK") else {
            return;
        };
        let measurement = fixtures::large();
        std::fs::write(format!("{folder}/page.html"), page(&measurement)).unwrap();
        let picture = super::super::picture(&measurement, 0).unwrap();
        std::fs::write(format!("{folder}/picture.svg"), picture).unwrap();
    }
}
