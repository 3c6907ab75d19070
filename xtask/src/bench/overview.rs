//! Renders the plot of the README: a bar for each guest and each other emulator. Its length is the geometric mean of the
//! run times of all workloads, relative to the bundle's emulator. The axis starts at 0 and is linear.
//!
//! The plot is readable at a width of 400 pixels. Bars beyond the end of the axis are cut, so that one slow emulator does
//! not make all others short. Like the plot of the report, it has no external references and follows the colour scheme.

use std::fmt::Write as _;

use crate::bench::plot::{COLOURS, STYLE, escape};
use crate::bench::results::{GuestResults, Results};
use crate::bench::statistics::Spread;
use crate::bench::table::factor;

const WIDTH: f64 = 400.0;
/// The start of the bars.
const LEFT: f64 = 74.0;
/// The end of the axis; the numbers of the longest bars are to its right.
const RIGHT: f64 = WIDTH - 50.0;
const BAR: f64 = 11.0;
const STEP: f64 = 14.0;
const GAP: f64 = 12.0;
const LINE: f64 = 18.0;
/// How many times the median a bar can be, before it is cut.
const LIMIT: f64 = 3.0;

/// Renders the plot.
pub(super) fn svg(results: &Results) -> String {
    let means: Vec<Vec<Option<f64>>> = results.guests.iter().map(|guest| means(results, guest)).collect();
    let end = end(&means);
    let x = |factor: f64| LEFT + (RIGHT - LEFT) * (factor / end).min(1.0);
    let title = results.emulators.first().map_or("", |ours| &ours.label);
    let title = format!("Run time relative to {title}");
    let mut body = String::new();
    text(&mut body, (0.0, 16.0), "title", &title);
    text(&mut body, (0.0, 34.0), "quiet", "Mean over all workloads of a guest; shorter is faster");
    let mut y = 46.0;
    for (other, emulator) in results.emulators.iter().skip(1).enumerate() {
        bar(&mut body, (0.0, y), BAR, other);
        text(&mut body, (18.0, y + BAR - 1.0), "", &emulator.label);
        y += LINE;
    }
    let top = y + LINE;
    let bottom = top + means.iter().map(|of_guest| of_guest.len() as f64 * STEP + GAP).sum::<f64>();
    for tick in 0..=(end * 2.0).round() as u32 {
        let at = f64::from(tick) / 2.0;
        let class = if tick == 2 { "one" } else { "grid" };
        let _ = writeln!(body, "<path d=\"M{:.1} {top:.1}V{bottom:.1}\" class=\"{class}\"/>", x(at));
        if tick % 2 == 0 || end <= 3.0 {
            text(&mut body, (x(at), top - 5.0), "quiet tick", &format!("{at}x"));
        }
    }
    y = top + GAP / 2.0;
    for (guest, of_guest) in results.guests.iter().zip(&means) {
        text(&mut body, (0.0, y + of_guest.len() as f64 * STEP / 2.0 + 3.0), "", &guest.guest);
        for (other, mean) in of_guest.iter().enumerate() {
            let label = mean.map_or("not measured".to_owned(), factor);
            let length = mean.map_or(0.0, |mean| x(mean) - LEFT);
            bar(&mut body, (LEFT, y), length, other);
            if mean.is_some_and(|mean| mean > end) {
                let _ = writeln!(body, "<path d=\"M{:.1} {y:.1}l-5 {BAR}\" class=\"cut\"/>", RIGHT - 10.0);
            }
            // Keeps the number clear of the line at 1.
            text(&mut body, ((LEFT + length).max(x(1.0)) + 5.0, y + BAR - 1.0), "", &label);
            y += STEP;
        }
        y += GAP;
    }
    let height = bottom + 6.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"qb\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {WIDTH} \
         {height}\" role=\"img\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n{body}</svg>\n",
        WIDTH * 1.25,
        height * 1.25,
        escape(&title),
    )
}

fn means(results: &Results, guest: &GuestResults) -> Vec<Option<f64>> {
    (1..results.emulators.len()).map(|other| guest.mean(results.clock, other)).collect()
}

/// The end of the axis: the longest bar, but not much more than the others, and always beyond 1.
fn end(means: &[Vec<Option<f64>>]) -> f64 {
    let all = || means.iter().flatten().flatten().copied();
    let longest = all().fold(1.0, f64::max);
    let limit = Spread::of(all()).map_or(longest, |all| all.median * LIMIT);
    (longest.min(limit).max(1.5) * 2.0).ceil() / 2.0
}

fn text(body: &mut String, (x, y): (f64, f64), class: &str, text: &str) {
    let _ = writeln!(body, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escape(text));
}

fn bar(body: &mut String, (x, y): (f64, f64), width: f64, colour: usize) {
    let colour = COLOURS[colour % COLOURS.len()];
    let _ = writeln!(
        body,
        "<rect x=\"{x}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"1.5\" fill=\"{colour}\"/>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plot::tests::widths_at;
    use crate::bench::results::tests::{results, samples};
    use crate::bench::results::{Outcome, Results};

    #[test]
    fn a_bar_is_as_long_as_its_mean() {
        let widths = widths_at(LEFT, &svg(&results()));
        // The square root of 6, and 2.
        assert!((widths[0] / widths[1] * 2.0 - 6f64.sqrt()).abs() < 0.01, "{widths:?}");
        assert_eq!(widths.len(), 2);
    }

    fn slow(times: u64) -> Results {
        let mut results = results();
        results.guests[0].workloads.truncate(1);
        results.guests[0].workloads[0].outcomes[1] = Outcome::Measured(samples(&[100 * times, 200 * times]));
        results.guests.extend(super::tests::results().guests);
        results
    }

    #[test]
    fn one_slow_emulator_does_not_squeeze_the_others() {
        let svg = svg(&slow(90));
        let widths = widths_at(LEFT, &svg);
        assert_eq!(widths[0], RIGHT - LEFT, "{widths:?}");
        assert!(widths[1] > (RIGHT - LEFT) / 5.0, "{widths:?}");
        assert!(svg.contains("class=\"cut\"") && svg.contains("90"), "{svg}");
    }

    #[test]
    fn it_is_readable_at_400_pixels() {
        let svg = svg(&results());
        assert!(svg.contains("viewBox=\"0 0 400 "), "one unit is one pixel at that width");
        let sizes = STYLE.split("px").filter_map(|part| part.rsplit([' ', ':']).next()?.parse::<f64>().ok());
        assert!(sizes.fold(f64::MAX, f64::min) >= 11.0, "{STYLE}");
    }
}
