//! Renders results as an SVG plot. Each workload has a bar for each other emulator. Its length is the run time relative
//! to the bundle's emulator, with quartiles. The axis starts at 0 and is linear, so that a bar of twice the length means
//! twice the time.
//!
//! The plot depends only on the results, has no scripts and no external references, and follows the reader's light or
//! dark colour scheme.

use std::fmt::Write as _;

use crate::bench::results::{Clock, GuestResults, Outcome, Results};
use crate::bench::statistics::Spread;
use crate::bench::table::{factor, time};

const WIDTH: f64 = 860.0;
/// The start of the bars; names and the bundle's times are to its left.
const LEFT: f64 = 180.0;
/// The end of the axis; the numbers of the longest bars are to its right.
const RIGHT: f64 = WIDTH - 60.0;
const BAR: f64 = 9.0;
const STEP: f64 = 12.0;
const GAP: f64 = 10.0;

/// Distinguishable on white and on black, and with colour blindness.
pub(super) const COLOURS: [&str; 6] = ["#4c8fd6", "#e69f00", "#2fa37c", "#cc79a7", "#8c8c8c", "#d55e00"];

pub(super) const STYLE: &str = "\
.qb text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.qb .title { font-size: 15px; font-weight: 600; }
.qb .quiet { fill: #656d76; font-size: 11px; }
.qb .tick { text-anchor: middle; }
.qb .grid { stroke: #d0d7de; }
.qb .one { stroke: #1f2328; stroke-width: 1.5; }
.qb .spread { stroke: #1f2328; stroke-width: 1.2; }
.qb .cut { stroke: #fff; stroke-width: 3; }
@media (prefers-color-scheme: dark) {
.qb text { fill: #e6edf3; }
.qb .quiet { fill: #9198a1; }
.qb .grid { stroke: #3d444d; }
.qb .one, .qb .spread { stroke: #e6edf3; }
}
";

/// Renders the plot.
pub(super) fn svg(results: &Results) -> String {
    let mut plot = Plot { scale: Scale::of(results), body: String::new(), y: 0.0 };
    plot.head(results);
    for guest in &results.guests {
        plot.guest(results, guest);
    }
    let height = plot.y + 8.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"qb\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n{}</svg>\n",
        escape(&title(results)),
        plot.body
    )
}

fn title(results: &Results) -> String {
    let ours = results.emulators.first().map_or("ours", |ours| &ours.label);
    format!("Run time relative to {ours}")
}

/// Maps factors to coordinates.
struct Scale {
    most: f64,
    tick: f64,
}

impl Scale {
    /// Reaches to the longest bar, and always beyond 1.
    fn of(results: &Results) -> Self {
        let clock = results.clock;
        let rows = results.guests.iter().flat_map(|guest| &guest.workloads);
        let ratios = rows.flat_map(|row| (1..row.outcomes.len()).filter_map(|other| row.ratio(clock, other)));
        let most = ratios.map(|ratio| ratio.upper).fold(1.5, f64::max);
        let tick = [0.5, 1.0, 2.0, 5.0, 10.0, 50.0, 100.0].into_iter().find(|tick| most / tick <= 10.0);
        let tick = tick.unwrap_or(most);
        Self { most: (most / tick).ceil() * tick, tick }
    }

    fn x(&self, factor: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * factor / self.most
    }
}

struct Plot {
    scale: Scale,
    body: String,
    /// The position of the next line.
    y: f64,
}

impl Plot {
    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let _ =
            writeln!(self.body, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escape(text));
    }

    fn vertical(&mut self, x: f64, from: f64, to: f64, class: &str) {
        let _ = writeln!(self.body, "<path d=\"M{x:.1} {from:.1}V{to:.1}\" class=\"{class}\"/>");
    }

    fn bar(&mut self, length: f64, y: f64, colour: usize) {
        let colour = COLOURS[colour % COLOURS.len()];
        let _ = writeln!(
            self.body,
            "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"1.5\" fill=\"{colour}\"/>",
            length - LEFT
        );
    }

    fn head(&mut self, results: &Results) {
        let clock = match results.clock {
            Clock::Wall => "time",
            Clock::Cpu => "CPU time",
        };
        self.text(0.0, 18.0, "title", &title(results));
        let machine = &results.machine;
        let subtitle = format!(
            "Medians of {} rounds and their quartiles, {clock}; {} processors of {}, Linux {}. Shorter bars are faster.",
            results.rounds, machine.processors, machine.processor, machine.kernel
        );
        self.text(0.0, 36.0, "quiet", &subtitle);
        let mut x = 0.0;
        for (other, emulator) in results.emulators.iter().enumerate().skip(1) {
            let colour = COLOURS[(other - 1) % COLOURS.len()];
            let _ = writeln!(
                self.body,
                "<rect x=\"{x:.1}\" y=\"48\" width=\"10\" height=\"10\" rx=\"1.5\" fill=\"{colour}\"/>"
            );
            self.text(x + 15.0, 57.0, "", &emulator.label);
            x += 35.0 + 7.0 * emulator.label.chars().count() as f64;
        }
        self.y = 84.0;
    }

    fn guest(&mut self, results: &Results, guest: &GuestResults) {
        let others = results.emulators.len().saturating_sub(1).max(1) as f64;
        let rows = guest.workloads.len() as f64 + 1.0;
        let (top, bottom) = (self.y + 26.0, self.y + 26.0 + rows * (others * STEP + GAP));
        self.text(0.0, self.y + 2.0, "title", &guest.guest);
        self.text(LEFT, self.y + 2.0, "quiet", guest.system.as_deref().unwrap_or_default());
        // Counts ticks instead of adding them up, to avoid rounding errors.
        for tick in 0..=(self.scale.most / self.scale.tick).round() as u32 {
            let factor = f64::from(tick) * self.scale.tick;
            let x = self.scale.x(factor);
            self.vertical(x, top, bottom, "grid");
            self.text(x, top - 6.0, "quiet tick", &format!("{factor}x"));
        }
        self.y = top + GAP / 2.0;
        for row in &guest.workloads {
            self.text(0.0, self.y + BAR, "", &row.name);
            self.text(80.0, self.y + BAR, "quiet", &time(row.milliseconds(results.clock, 0)));
            for other in 1..row.outcomes.len() {
                match (&row.outcomes[other], row.ratio(results.clock, other)) {
                    (_, Some(ratio)) => self.ratio(ratio, other - 1),
                    (Outcome::Failed(_), None) => self.text(LEFT + 6.0, self.y + BAR, "quiet", "failed"),
                    _ => self.text(LEFT + 6.0, self.y + BAR, "quiet", "not measured"),
                }
                self.y += STEP;
            }
            self.y += GAP;
        }
        self.text(0.0, self.y + BAR, "", "geometric mean");
        for other in 1..results.emulators.len() {
            if let Some(mean) = guest.mean(results.clock, other) {
                self.ratio(Spread { lower: mean, median: mean, upper: mean }, other - 1);
            }
            self.y += STEP;
        }
        self.vertical(self.scale.x(1.0), top, bottom, "one");
        self.y = bottom + 26.0;
    }

    /// Draws a bar, its quartiles if it has any, and its number.
    fn ratio(&mut self, ratio: Spread, colour: usize) {
        let y = self.y;
        self.bar(self.scale.x(ratio.median), y, colour);
        let (from, to) = (self.scale.x(ratio.lower), self.scale.x(ratio.upper));
        if to > from {
            let middle = y + BAR / 2.0;
            let _ = writeln!(self.body, "<path d=\"M{from:.1} {middle:.1}H{to:.1}\" class=\"spread\"/>");
        }
        // Keeps the number clear of the line at 1.
        let one = self.scale.x(1.0);
        let end = if to < one { one } else { to };
        self.text(end + 5.0, y + BAR, "quiet", &factor(ratio.median));
    }
}

/// Escapes text for SVG and HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    /// The widths of the bars that start at the axis, which has this position.
    pub(in crate::bench) fn widths_at(axis: f64, svg: &str) -> Vec<f64> {
        let bars = svg.split("<rect ").filter(|part| part.starts_with(&format!("x=\"{axis}\"")));
        bars.map(|bar| bar.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect()
    }

    #[test]
    fn a_bar_is_as_long_as_its_factor() {
        let widths = widths_at(LEFT, &svg(&results()));
        // exit: 4 and 2; gcc: 1.5; means: the square root of 6, and 2.
        let factors: Vec<_> = widths.iter().map(|width| width / widths[1] * 2.0).collect();
        for (factor, expected) in factors.iter().zip([4.0, 2.0, 1.5, 6f64.sqrt(), 2.0]) {
            assert!((factor - expected).abs() < 0.01, "{factors:?}");
        }
        assert_eq!(widths.len(), 5);
    }

    #[test]
    fn it_stands_alone_and_is_well_formed() {
        let svg = svg(&results());
        assert!(
            svg.contains("old &amp; good") && svg.contains("A &lt;fast&gt; one") && svg.contains(">failed<")
        );
        assert!(svg.contains("prefers-color-scheme: dark"));
        let addresses = svg.matches("http").count();
        assert_eq!(addresses, 1, "only the name space has an address");
        assert!(!svg.contains("<script") && !svg.contains("NaN") && !svg.contains("inf"));
        for element in ["text", "style", "title", "svg"] {
            let opened = svg.matches(&format!("<{element}")).count();
            assert_eq!(opened, svg.matches(&format!("</{element}>")).count(), "{element}");
        }
    }

    #[test]
    fn ticks_do_not_crowd() {
        let scale = |most: u64| {
            let mut results = results();
            let slow = crate::bench::results::tests::samples(&[100 * most, 200 * most]);
            results.guests[0].workloads[0].outcomes[1] = Outcome::Measured(slow);
            let Scale { most, tick } = Scale::of(&results);
            (most, tick)
        };
        assert_eq!(scale(4), (4.0, 0.5));
        assert_eq!(scale(7), (7.0, 1.0));
        assert_eq!(scale(93), (100.0, 10.0));
    }
}
