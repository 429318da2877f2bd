//! The colours of the page and the pictures, in light and dark, and the styles of figures.

use crate::timeline::Kind;

/// Colours by name, light and dark. Colour-blind readers can distinguish reads and writes.
pub(super) const COLOURS: &str = "\
:root{color-scheme:light dark;--page:#f6f7f9;--card:#ffffff;--ink:#1c2430;--soft:#5d6878;\
--line:#dfe3e9;--writes:#2563c9;--reads:#d07a12;--failed:#c8323c;--good:#1c7f4d;\
--detect:#8a93a1;--fence:#8a5cc7;--split:#c79a12;--assign:#1793a5;--replay:#2f9a58}\
@media(prefers-color-scheme:dark){:root{--page:#14181e;--card:#1c222b;--ink:#e6eaf0;\
--soft:#97a3b4;--line:#323b48;--writes:#6ea3ff;--reads:#f0a64b;--failed:#ff6b70;--good:#55c98a;\
--detect:#a0a9b6;--fence:#b592ec;--split:#e2bd4a;--assign:#4fc3d4;--replay:#62cd8c}}";

/// The styles of a figure.
pub(super) const FIGURE: &str = "\
svg.figure{display:block;width:100%;height:auto;font:12px system-ui,-apple-system,'Segoe UI',\
Roboto,'Helvetica Neue',Arial,sans-serif}\
.figure text{fill:var(--soft)}.figure .heading{fill:var(--ink);font-weight:600}\
.figure .grid{stroke:var(--line);stroke-width:1}.figure .axis{stroke:var(--soft);stroke-width:1}\
.figure path{fill:none;stroke-width:1.6;stroke-linejoin:round}\
.figure .thin{stroke-width:1.1;stroke-dasharray:3 2.5}\
.figure .writes{stroke:var(--writes)}.figure .reads{stroke:var(--reads)}\
.figure .failed{stroke:var(--failed)}\
.figure path.area{stroke:none}.figure path.area.writes{fill:var(--writes);fill-opacity:.1}\
.figure path.area.failed{fill:var(--failed);fill-opacity:.25}\
.figure .marker{stroke:var(--failed);stroke-width:1.5}\
.figure text.mark{fill:var(--failed);font-weight:600}\
.figure .band{fill-opacity:.2}.figure .swatch{stroke-width:3}\
.figure .detect{fill:var(--detect)}.figure .fence{fill:var(--fence)}\
.figure .split{fill:var(--split)}.figure .assign{fill:var(--assign)}\
.figure .replay{fill:var(--replay)}.figure .outage{fill:var(--failed);fill-opacity:.75}\
.figure .row{fill:var(--line);fill-opacity:.55}\
.figure .hover{fill:transparent}.figure .hover:hover{fill:var(--soft);fill-opacity:.18}";

/// The CSS class of a kind of request.
pub(super) fn class_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Write => "writes",
        Kind::Read | Kind::TimelineRead => "reads",
    }
}
