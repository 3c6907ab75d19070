//! `qus doctor`: what is wrong with this machine's handlers, why, and what to do about it.

use std::fmt::Write;

use anyhow::{Result, bail};
use qus_core::binfmt::Binfmt;
use qus_core::doctor::{Machine, Severity, findings};
use qus_core::text::{Show, count};

use crate::context::required_archs;
use crate::output::{print_json, print_text};

/// Report what is wrong, why, and which command fixes it
///
/// Inspects the kernel, the mount and every handler, and starts a small program through each. Architectures that are
/// named must work. The exit status is 1 if an error is found; warnings and notes do not change it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  qus doctor
  qus doctor all")]
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
        let working = results.iter().filter(|result| **result == Some(true)).count();
        write!(text, "{}, {working} working", count(results.len(), "handler"))?;
        match results.iter().filter(|result| result.is_none()).count() {
            0 => writeln!(text)?,
            untested => writeln!(text, ", {untested} not tested")?,
        }
        print_text(&text)?;
    }
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if errors > 0 {
        bail!("{} found", count(errors, "error"));
    }
    Ok(())
}
