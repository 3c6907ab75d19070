//! `qus status`: every handler, ours and other programs', and what is known of it.

use std::io;

use anyhow::Result;
use qus_core::arch::Arch;
use qus_core::binfmt::Binfmt;
use qus_core::hint::hinted;
use qus_core::mount::enable_command;
use qus_core::status::{HandlerStatus, StatusReport};
use qus_core::table::Table;
use qus_core::terminal;
use qus_core::text::Show;

use crate::context::{required_archs, warn_switched_off};
use crate::output::{message, print_json, print_text};

/// Show all handlers
///
/// Handlers of other programs are shown too, with their owner. With architectures, shows only their handlers; the exit
/// status is 1 if one of them neither has a handler nor runs natively. With --probe, it is also 1 if a handler does not
/// work.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  qus status
  qus status aarch64 --probe")]
pub(crate) struct Args {
    /// Architectures; `all` are those of all emulators in the directory
    #[arg(value_name = "ARCH")]
    archs: Vec<String>,
    /// Start a small program through each handler, and ask emulators for their version
    #[arg(long)]
    probe: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(binfmt: &Binfmt, args: &Args) -> Result<()> {
    let report = StatusReport::collect(binfmt, &required_archs(&args.archs)?, args.probe)?;
    if report.switched_on == Some(false) {
        warn_switched_off(binfmt, binfmt.state(), report.missing.is_empty());
    }
    if args.json {
        print_json(&report)?
    } else {
        print_table(&report)?
    }
    if !report.missing.is_empty() {
        let names: Vec<_> = report.missing.iter().map(|arch| arch.name).collect();
        let names = names.join(" ");
        return Err(hinted(format!("no handler for {names}"), missing_hint(binfmt, &report)));
    }
    let failing: Vec<_> = report.failing().map(|handler| handler.name.shown().to_string()).collect();
    if !failing.is_empty() {
        let what = format!("not working: {}", failing.join(" "));
        return Err(hinted(what, "`qus doctor` looks for the reason"));
    }
    Ok(())
}

/// What to do about architectures without a handler that the kernel uses.
fn missing_hint(binfmt: &Binfmt, report: &StatusReport) -> String {
    let has = |arch: &Arch, enabled: bool| {
        let is = |handler: &HandlerStatus| handler.arch == Some(arch.name) && handler.enabled == Some(true);
        report.handlers.iter().any(|handler| handler.arch == Some(arch.name) && (!enabled || is(handler)))
    };
    let is_off = report.switched_on == Some(false);
    let mut commands = Vec::new();
    if is_off {
        commands.push(enable_command(binfmt.root(), binfmt.state(), "status".as_ref()));
    }
    // Where it is switched on, an enabled handler is for other files.
    let missing: Vec<_> = report.missing.iter().filter(|arch| !is_off || !has(arch, true)).collect();
    if !missing.is_empty() {
        // It is disabled, or for other files: only a replacement helps.
        let force = if missing.iter().any(|arch| has(arch, false)) { " --force" } else { "" };
        let names: Vec<_> = missing.iter().map(|arch| arch.name).collect();
        commands.push(format!("qus install {}{force}", names.join(" ")));
    }
    format!("as root: `{}`", commands.join(" && "))
}

fn print_table(report: &StatusReport) -> Result<()> {
    if report.switched_on.is_none() {
        message(format_args!("binfmt_misc at {}: {}; see `qus doctor`", report.mount, report.state));
        return Ok(());
    }
    if report.handlers.is_empty() {
        message("no handler is registered");
        return Ok(());
    }
    let mut table = Table::new(["handler", "state", "owner", "version", "probe", "interpreter", "flags"]);
    for row in &report.handlers {
        let state = match row.enabled {
            Some(true) => "enabled",
            Some(false) => "disabled",
            None => "unreadable",
        };
        let probe = match row.probe {
            Some(true) => "passed".to_owned(),
            Some(false) => "FAILED".to_owned(),
            None => "-".to_owned(),
        };
        let or_dash = |text: &Option<String>| text.clone().unwrap_or("-".to_owned());
        table.row([
            row.name.clone(),
            state.to_owned(),
            row.owner.clone(),
            or_dash(&row.emulator_version),
            probe,
            or_dash(&row.interpreter),
            or_dash(&row.flags_in_words),
        ]);
    }
    print_text(&table.fit(terminal::width(io::stdout())))?;
    for (name, why) in report.handlers.iter().filter_map(|row| Some((&row.name, row.why.as_ref()?))) {
        message(format_args!("{}: {}", name.shown(), why.shown()));
    }
    Ok(())
}
