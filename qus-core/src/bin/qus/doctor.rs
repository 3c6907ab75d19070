//! `qus doctor`: what is wrong with this machine's handlers, why, and what to do about it.

use std::fmt::Write;

use anyhow::{Result, bail};
use qus_core::binfmt::Binfmt;
use qus_core::doctor::{Machine, Severity, findings};
use qus_core::text::Show;

use crate::context::required_archs;
use crate::output::{print_json, print_text};

/// Report what is wrong, why, and which command fixes it
///
/// Inspects the kernel, the mount and every handler, and starts a small program through each. Architectures that are
/// named must work. The exit status is 1 if an error is found; warnings and notes do not change it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Architectures that must work; `all` are those of all emulators in the directory
    #[arg(value_name = "ARCH")]
    archs: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(binfmt: &Binfmt, args: &Args) -> Result<()> {
    let archs = required_archs(&args.archs)?;
    let machine = Machine::inspect(binfmt, &archs);
    let findings = findings(&machine, &archs);
    if args.json {
        print_json(&findings)?;
    } else {
        let mut text = String::new();
        for finding in &findings {
            writeln!(text, "{}: {}: {}", finding.severity, finding.subject.shown(), finding.what.shown())?;
            writeln!(text, "  reason: {}", finding.why.shown())?;
            if let Some(hint) = &finding.hint {
                writeln!(text, "  hint: {}", hint.shown())?;
            }
        }
        let results = machine.results();
        let count = |result| results.iter().filter(|&&other| other == result).count();
        write!(text, "{} handlers, {} working", results.len(), count(Some(true)))?;
        match count(None) {
            0 => writeln!(text)?,
            untested => writeln!(text, ", {untested} not tested")?,
        }
        print_text(&text)?;
    }
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if errors > 0 {
        bail!("{errors} {} found", if errors == 1 { "error" } else { "errors" });
    }
    Ok(())
}
