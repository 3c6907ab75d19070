//! Renders results as an HTML page: one file without scripts, which needs no network.

use std::collections::BTreeSet;

use qemu_src::GuestRun;

use crate::bench::plot::escape;

/// The colours have words beside them. On narrow screens only the table scrolls.
const STYLE: &str = "\
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; margin: 1em 0; }
th, td { padding: 3px 8px; text-align: left; border: 1px solid #8884; white-space: nowrap; }
th:first-child { position: sticky; left: 0; background: Canvas; }
.passed { background: #2a24; }
.failed { background: #d224; font-weight: bold; }
.known { background: #da24; }
.skipped { background: #8882; }
dd { overflow-wrap: anywhere; margin: 0 0 .7em 1em; }
";

pub(super) fn html(runs: &[GuestRun]) -> String {
    let mut seen = BTreeSet::new();
    let names = runs.iter().flat_map(|run| &run.cells).map(|cell| &*cell.name);
    let names: Vec<_> = names.filter(|name| seen.insert(*name)).collect();
    let heads: String = runs
        .iter()
        .map(|run| format!("<th>{}<br>{}</th>", escape(&run.guest), escape(&run.emulator)))
        .collect();
    let mut rows = format!("<tr><th>cell</th>{heads}</tr>\n");
    for name in names {
        rows += &format!("<tr><th>{}</th>", escape(name));
        for run in runs {
            let word = run.outcome(name).map_or("", |outcome| outcome.word());
            rows += &format!("<td class=\"{word}\">{word}</td>");
        }
        rows += "</tr>\n";
    }
    let mut reasons = String::new();
    for run in runs {
        for cell in &run.cells {
            if let Some(why) = cell.outcome.why() {
                let word = cell.outcome.word();
                let title = format!("{}, {}, {}: {word}", cell.name, run.guest, run.emulator);
                reasons += &format!("<dt class=\"{word}\">{}</dt><dd>{}</dd>\n", escape(&title), escape(why));
            }
        }
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>What runs in guests</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<h1>What runs in guests</h1>\n<div class=\"scroll\"><table>\n{rows}</table></div>\n\
         <dl>\n{reasons}</dl>\n</body>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use qemu_src::{CellOutcome, CellRun};

    #[test]
    fn reasons_are_escaped() {
        let cell = |name: &str, outcome| CellRun { name: name.to_owned(), outcome, seconds: 1 };
        let cells = vec![
            cell("git", CellOutcome::Failed("<script> & more".to_owned())),
            cell("perl", CellOutcome::Passed),
        ];
        let [guest, suite, emulator] = ["arm64", "trixie", "a<b"].map(str::to_owned);
        let page = html(&[GuestRun { guest, suite, emulator, cells }]);
        assert!(page.contains("<dd>&lt;script&gt; &amp; more</dd>"), "{page}");
        assert!(page.contains("<td class=\"passed\">passed</td>") && page.contains("a&lt;b"), "{page}");
        assert!(!page.contains("<script"), "{page}");
    }
}
