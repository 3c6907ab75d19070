//! Renders results as an HTML page: the plot, and tables with the rest. The page is one file without scripts and needs no
//! network.

use crate::bench::plot::{escape, svg};
use crate::bench::results::{Outcome, Results};
use crate::bench::table;

const STYLE: &str = "\
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; margin: 1em 0; }
th, td { padding: 3px 10px; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
";

/// Renders the page.
pub(super) fn html(results: &Results) -> String {
    let mut body = format!("<h1>Comparison of emulators</h1>\n{}", svg(results));
    body += "<p>A factor is the run time of an emulator relative to that of the first one: the median over all rounds, \
             then the quartiles. Only runs of the same round are compared.</p>\n";
    for guest in &results.guests {
        let system = guest.system.as_ref().map(|system| format!(", {system}")).unwrap_or_default();
        body += &format!("<h2>{}{}</h2>\n", escape(&guest.guest), escape(&system));
        body += &html_table(&table::times(results, guest));
        body += &html_table(&table::resources(results, guest));
        body += "<dl>\n";
        for row in &guest.workloads {
            body += &format!("<dt>{}</dt><dd>{}</dd>\n", escape(&row.name), escape(&row.what));
            for (emulator, outcome) in results.emulators.iter().zip(&row.outcomes) {
                if let Outcome::Failed(why) = outcome {
                    let (label, why) = (escape(&emulator.label), escape(why));
                    body += &format!("<dd><strong>failed under {label}</strong>: {why}</dd>\n");
                }
            }
        }
        body += "</dl>\n";
    }
    if let Some(size) = results.everything {
        body += &format!("<p>{}</p>\n", escape(&table::everything(size)));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>Comparison of emulators</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n{body}</body>\n</html>\n"
    )
}

/// Renders a table whose first row is the header; a table without other rows is left out.
fn html_table(rows: &[Vec<String>]) -> String {
    if rows.len() < 2 {
        return String::new();
    }
    let line = |(at, row): (usize, &Vec<String>)| {
        let element = if at == 0 { "th" } else { "td" };
        let cells: String =
            row.iter().map(|cell| format!("<{element}>{}</{element}>", escape(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let lines: String = rows.iter().enumerate().map(line).collect();
    format!("<div class=\"scroll\"><table>\n{lines}</table></div>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn failures_are_shown() {
        let page = html(&results());
        assert!(page.contains("<strong>failed under new</strong>: exit status 1"), "{page}");
        assert!(page.contains("<th>old &amp; good</th>"), "{page}");
        assert!(!page.contains("<script") && !page.contains("src="), "{page}");
    }
}
