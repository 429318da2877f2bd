//! Figures: stacked panels over a common time axis, as self-contained SVG.

#![expect(clippy::let_unit_value, reason = "maud runs statements only after `@let`")]

use maud::{Markup, PreEscaped, html};

/// A figure.
#[derive(Debug)]
pub(super) struct Figure {
    /// The title, which screen readers read out.
    pub(super) title: String,
    /// The start of the time axis in seconds.
    pub(super) from_s: f64,
    /// The end of the time axis in seconds.
    pub(super) to_s: f64,
    /// The panels, from top to bottom.
    pub(super) panels: Vec<Panel>,
    /// Coloured time intervals.
    pub(super) bands: Vec<Band>,
    /// Marked moments.
    pub(super) markers: Vec<Marker>,
    /// Tooltips for time intervals.
    pub(super) hovers: Vec<Hover>,
    /// The legend of the bands: class and text.
    pub(super) key: Vec<(&'static str, String)>,
}

/// One panel.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) heading: String,
    pub(super) height: f64,
    pub(super) content: Content,
}

/// The content of a panel.
#[derive(Debug)]
pub(super) enum Content {
    /// Values over time.
    Lines { scale: Scale, lines: Vec<Line> },
    /// Rows of bars, such as outages by region.
    Rows(Vec<Row>),
}

/// How values are scaled.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scale {
    /// From 0.
    Linear,
    /// Logarithmic, in powers of ten.
    Logarithmic,
}

/// One line of a panel.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: &'static str,
    /// Its CSS classes, which determine its colour.
    pub(super) class: &'static str,
    /// Whether the area down to the axis is filled.
    pub(super) area: bool,
    /// A value holds from its time until the time of the next one. `None` is a gap.
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// One row of bars.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: String,
    /// Start, end and tooltip.
    pub(super) bars: Vec<(f64, f64, String)>,
}

/// A coloured time interval.
#[derive(Debug)]
pub(super) struct Band {
    pub(super) from_s: f64,
    pub(super) to_s: f64,
    pub(super) class: &'static str,
    pub(super) tip: String,
}

/// A marked moment.
#[derive(Debug)]
pub(super) struct Marker {
    pub(super) at_s: f64,
    pub(super) label: String,
    pub(super) tip: String,
}

/// The tooltip of a time interval.
#[derive(Debug)]
pub(super) struct Hover {
    pub(super) from_s: f64,
    pub(super) to_s: f64,
    pub(super) tip: String,
}

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 26.0;
const HEADING: f64 = 24.0;
const GAP: f64 = 14.0;
const BOTTOM: f64 = 26.0;
const KEY: f64 = 24.0;
/// The approximate width of a character.
const CHARACTER: f64 = 6.4;

// === impl Figure ===

impl Figure {
    /// Draws the SVG. `style` is embedded if no page around the SVG contains it.
    pub(super) fn draw(&self, style: Option<&str>) -> Markup {
        let height = self.height();
        let mut top = TOP;
        let mut panels = Vec::new();
        for panel in &self.panels {
            top += HEADING;
            panels.push(self.panel(panel, top));
            top += panel.height + GAP;
        }
        let bottom = top - GAP;
        html! {
            svg class="figure" xmlns="http://www.w3.org/2000/svg" role="img"
                viewBox=(format!("0 0 {WIDTH} {height}")) {
                title { (self.title) }
                @if let Some(style) = style {
                    style { (PreEscaped(style)) }
                    rect width=(WIDTH) height=(height) rx="8" style="fill:var(--card)" {}
                }
                @for band in &self.bands { (self.band(band, bottom)) }
                @for panel in &panels { (panel) }
                (self.time_axis(bottom))
                (self.markers(bottom))
                @for hover in &self.hovers { (self.hover(hover, bottom)) }
                (self.key(bottom + BOTTOM + 14.0))
            }
        }
    }

    fn height(&self) -> f64 {
        let panels = self.panels.iter();
        let panels: f64 = panels.map(|panel| HEADING + panel.height + GAP).sum();
        let key = if self.key.is_empty() { 0.0 } else { KEY };
        TOP + panels - GAP + BOTTOM + key
    }

    fn x(&self, seconds: f64) -> f64 {
        let fraction = (seconds - self.from_s) / (self.to_s - self.from_s).max(1e-9);
        LEFT + fraction.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn panel(&self, panel: &Panel, top: f64) -> Markup {
        let legend = match &panel.content {
            Content::Lines { lines, .. } => legend(&panel.heading, lines, top),
            Content::Rows(_) => html! {},
        };
        html! {
            text class="heading" x=(LEFT) y=(top - 9.0) { (panel.heading) }
            (legend)
            @match &panel.content {
                Content::Lines { scale, lines } => (self.lines(*scale, lines, top, panel.height)),
                Content::Rows(rows) => (self.rows(rows, top, panel.height)),
            }
        }
    }

    fn lines(&self, scale: Scale, lines: &[Line], top: f64, height: f64) -> Markup {
        let values = lines.iter().flat_map(|line| &line.points);
        let values = values.filter_map(|(_, value)| *value);
        let axis = Axis::of(scale, values, height);
        let y = |value: f64| top + height - axis.at(value) * height;
        html! {
            @for tick in &axis.ticks {
                line class="grid" x1=(LEFT) x2=(WIDTH - RIGHT) y1=(short(y(*tick)))
                    y2=(short(y(*tick))) {}
                text x=(LEFT - 7.0) y=(short(y(*tick) + 4.0)) text-anchor="end" {
                    (number(*tick))
                }
            }
            line class="axis" x1=(LEFT) x2=(WIDTH - RIGHT) y1=(top + height) y2=(top + height) {}
            @for line in lines {
                @if line.area {
                    path class={ "area " (line.class) }
                        d=(self.path(line, &y, Some(top + height))) {}
                }
                path class=(line.class) d=(self.path(line, &y, None)) {}
            }
        }
    }

    /// A path of steps: horizontal from each point to the next, then vertical.
    fn path(&self, line: &Line, y: &impl Fn(f64) -> f64, floor: Option<f64>) -> String {
        let mut path = String::new();
        let mut drawing = false;
        for (index, (at, value)) in line.points.iter().enumerate() {
            let until = line.points.get(index + 1).map_or(self.to_s, |next| next.0);
            let (from, to) = (short(self.x(*at)), short(self.x(until)));
            match value {
                Some(value) => {
                    let y = short(y(*value));
                    match (drawing, floor) {
                        (false, Some(floor)) => path += &format!("M{from} {}V{y}", short(floor)),
                        (false, None) => path += &format!("M{from} {y}"),
                        (true, _) => path += &format!("V{y}"),
                    }
                    path += &format!("H{to}");
                    drawing = true;
                }
                None if drawing => {
                    drop_to(&mut path, floor);
                    drawing = false;
                }
                None => {}
            }
        }
        if drawing {
            drop_to(&mut path, floor);
        }
        path
    }

    fn rows(&self, rows: &[Row], top: f64, height: f64) -> Markup {
        let step = height / rows.len().max(1) as f64;
        let bar = (step * 0.72).min(step - 1.0).max(0.8);
        let labelled = step >= 10.0;
        html! {
            @for (index, row) in rows.iter().enumerate() {
                @let y = top + step * index as f64;
                rect class="row" x=(LEFT) width=(WIDTH - LEFT - RIGHT) y=(short(y))
                    height=(short(bar)) {}
                @if labelled {
                    text x=(LEFT - 7.0) y=(short(y + bar / 2.0 + 4.0)) text-anchor="end" {
                        (row.name)
                    }
                }
                @let bars = row.bars.iter();
                @for (from, to, tip) in bars.filter(|(from, to, _)| self.shows(*from, *to)) {
                    @let x = self.x(*from);
                    rect class="outage" x=(short(x)) y=(short(y)) height=(short(bar))
                        width=(short((self.x(*to) - x).max(1.5))) { title { (tip) } }
                }
            }
        }
    }

    fn shows(&self, from_s: f64, to_s: f64) -> bool {
        to_s >= self.from_s && from_s <= self.to_s
    }

    fn band(&self, band: &Band, bottom: f64) -> Markup {
        if !self.shows(band.from_s, band.to_s) {
            return html! {};
        }
        let x = self.x(band.from_s);
        html! {
            rect class={ "band " (band.class) } x=(short(x)) y=(TOP)
                width=(short((self.x(band.to_s) - x).max(0.5))) height=(short(bottom - TOP)) {
                title { (band.tip) }
            }
        }
    }

    /// Draws the markers. A label that would overlap the previous one is omitted; its marker has a
    /// tooltip.
    fn markers(&self, bottom: f64) -> Markup {
        let mut free_from = 0.0;
        html! {
            @let markers = self.markers.iter();
            @for marker in markers.filter(|marker| self.shows(marker.at_s, marker.at_s)) {
                @let x = self.x(marker.at_s);
                line class="marker" x1=(short(x)) x2=(short(x)) y1=(TOP - 6.0)
                    y2=(short(bottom)) { title { (marker.tip) } }
                @let half = marker.label.chars().count() as f64 * CHARACTER / 2.0;
                @let middle = x.clamp(half, WIDTH - half);
                @if middle - half >= free_from {
                    text class="mark" x=(short(middle)) y=(TOP - 11.0) text-anchor="middle" {
                        (marker.label)
                    }
                    @let _ = free_from = middle + half + 8.0;
                }
            }
        }
    }

    fn hover(&self, hover: &Hover, bottom: f64) -> Markup {
        let x = self.x(hover.from_s);
        html! {
            rect class="hover" x=(short(x)) y=(TOP) height=(short(bottom - TOP))
                width=(short(self.x(hover.to_s) - x)) { title { (hover.tip) } }
        }
    }

    /// Colour swatches of the bands with their meaning, in a row.
    fn key(&self, y: f64) -> Markup {
        let mut x = LEFT;
        html! {
            @for (class, text) in &self.key {
                rect class={ "band " (class) } x=(short(x)) y=(y - 10.0) width="12" height="12"
                    rx="2" style="fill-opacity:.6" {}
                text x=(short(x + 18.0)) y=(y) { (text) }
                @let _ = x += 42.0 + text.chars().count() as f64 * CHARACTER;
            }
        }
    }

    fn time_axis(&self, bottom: f64) -> Markup {
        let step = nice_step((self.to_s - self.from_s) / 10.0);
        let first = (self.from_s / step).ceil() as i64;
        let last = (self.to_s / step + 1e-9).floor() as i64;
        let digits = if step < 0.1 { 2 } else { usize::from(step < 1.0) };
        html! {
            @for index in first..=last {
                @let seconds = index as f64 * step;
                @let x = short(self.x(seconds));
                line class="axis" x1=(x) x2=(x) y1=(short(bottom)) y2=(short(bottom + 4.0)) {}
                text x=(x) y=(short(bottom + 18.0)) text-anchor="middle" {
                    (format!("{seconds:.digits$} s"))
                }
            }
        }
    }
}

/// The value axis of a panel.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

// === impl Axis ===

impl Axis {
    fn of(scale: Scale, values: impl Iterator<Item = f64>, height: f64) -> Self {
        let (mut low, mut high) = (f64::MAX, 0.0_f64);
        for value in values {
            low = low.min(value);
            high = high.max(value);
        }
        match scale {
            Scale::Linear => {
                let step = nice_step(high.max(1.0) / (height / 30.0).max(2.0));
                let count = (high / step).ceil().max(1.0) as u32;
                Self {
                    scale,
                    low: 0.0,
                    high: step * f64::from(count),
                    ticks: (0..=count).map(|index| f64::from(index) * step).collect(),
                }
            }
            Scale::Logarithmic => {
                let low = low.clamp(0.01, 1.0).log10().floor();
                let high = high.max(10.0).log10().ceil();
                Self {
                    scale,
                    low,
                    high,
                    ticks: (low as i32..=high as i32).map(|power| 10_f64.powi(power)).collect(),
                }
            }
        }
    }

    /// The position of `value` on the axis, from 0 to 1.
    fn at(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(1e-6).log10(),
        };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

/// A stroke and a name for each line, to the right of the heading.
fn legend(heading: &str, lines: &[Line], top: f64) -> Markup {
    let mut x = LEFT + heading.chars().count() as f64 * (CHARACTER + 0.6) + 22.0;
    html! {
        @for line in lines {
            line class={ "swatch " (line.class) } x1=(short(x)) x2=(short(x + 18.0))
                y1=(top - 13.0) y2=(top - 13.0) {}
            text x=(short(x + 24.0)) y=(top - 9.0) { (line.name) }
            @let _ = x += 44.0 + line.name.chars().count() as f64 * CHARACTER;
        }
    }
}

fn drop_to(path: &mut String, floor: Option<f64>) {
    if let Some(floor) = floor {
        *path += &format!("V{}", short(floor));
    }
}

/// The smallest 1, 2 or 5 times a power of ten that is at least `least`.
fn nice_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-9).log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= least * 0.999)
        .unwrap_or(10.0);
    factor * power
}

/// A coordinate, rounded to the visible digits.
fn short(coordinate: f64) -> f64 {
    (coordinate * 10.0).round() / 10.0
}

fn number(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{} k", value / 1000.0),
        value => format!("{}", (value * 1000.0).round() / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        assert_eq!(nice_step(0.7), 1.0);
        assert_eq!(nice_step(13.0), 20.0);
        assert_eq!(nice_step(500.0), 500.0);
        assert_eq!(nice_step(501.0), 1000.0);
    }

    #[test]
    fn an_axis_reaches_beyond_all_values() {
        let axis = Axis::of(Scale::Linear, [3.0, 1180.0].into_iter(), 120.0);
        assert!(axis.high >= 1180.0 && axis.ticks.len() <= 7, "{:?}", axis.ticks);
        assert_eq!(axis.at(0.0), 0.0);
        let axis = Axis::of(Scale::Logarithmic, [0.4, 260.0].into_iter(), 120.0);
        assert_eq!(axis.ticks, [0.1, 1.0, 10.0, 100.0, 1000.0]);
        assert!((axis.at(10.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_gap_breaks_the_line() {
        let figure = Figure {
            title: String::new(),
            from_s: 0.0,
            to_s: 4.0,
            panels: Vec::new(),
            bands: Vec::new(),
            markers: Vec::new(),
            hovers: Vec::new(),
            key: Vec::new(),
        };
        let line = Line {
            name: "writes",
            class: "writes",
            area: false,
            points: vec![(0.0, Some(1.0)), (1.0, None), (2.0, Some(2.0)), (3.0, Some(2.0))],
        };
        let path = figure.path(&line, &|value| value, None);
        assert_eq!(path.matches('M').count(), 2, "{path}");
    }
}
