//! `qus doctor`: what is wrong with this machine's handlers, why, and what to do.

use std::fmt::Write;

use anyhow::{Result, bail};
use qus_core::doctor::{Machine, Severity, findings};
use qus_core::text::Show;

use crate::context::{Context, at_hand};
use crate::output::{json, show};

/// Find out what is wrong, why, and which command mends it
///
/// Looks at the kernel, the mount and every handler, and starts a tiny program through each. With
/// architectures, these have to work. Exit status 1 if something cannot work.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Architectures that have to work; `all` are those of all emulators at hand
    #[arg(value_name = "ARCH")]
    archs: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<()> {
    let archs = at_hand(&args.archs)?;
    let machine = Machine::look(&context.binfmt, &archs);
    let findings = findings(&machine, &archs);
    if args.json {
        json(&findings)?;
    } else {
        let mut text = String::new();
        for finding in &findings {
            writeln!(text, "{}: {}: {}", finding.severity, finding.subject.shown(), finding.what.shown())?;
            writeln!(text, "  because: {}", finding.why.shown())?;
            if let Some(fix) = &finding.fix {
                writeln!(text, "  remedy: {}", fix.shown())?;
            }
        }
        let working = machine.probes.values().filter(|probe| probe.is_ok()).count();
        writeln!(
            text,
            "{} handlers; programs of {working} architectures run through them",
            machine.handlers.len()
        )?;
        show(&text)?;
    }
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if errors > 0 {
        bail!("{errors} of {} findings keep programs from running", findings.len());
    }
    Ok(())
}
