//! `qus status`: every handler, ours and others', and what is known of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use qus_core::arch::Arch;
use qus_core::binfmt::{Entry, State};
use qus_core::emulator::version;
use qus_core::explain::{handler_of, readable};
use qus_core::handler::arch_of;
use qus_core::owner::{Configured, Owner};
use qus_core::table::Table;
use qus_core::text::Show;
use qus_core::{mount, probe};
use serde::Serialize;

use crate::context::{Context, at_hand};
use crate::output::{json, say, show};

/// Show all handlers
///
/// Those of others are shown too, with whose they are. With architectures: only theirs, and exit status 1
/// if one of them neither has a handler nor is run by the machine itself. With --probe also if a program
/// does not run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Architectures; `all` are those of all emulators at hand
    #[arg(value_name = "ARCH")]
    archs: Vec<String>,
    /// Start a tiny program through each handler, and ask emulators for their version
    #[arg(long)]
    probe: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    mount: String,
    state: &'static str,
    switched_on: Option<bool>,
    handlers: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    arch: Option<&'static str>,
    enabled: Option<bool>,
    owner: String,
    /// The file from which its owner registers it.
    file: Option<String>,
    interpreter: Option<String>,
    flags: Option<String>,
    flags_in_words: Option<String>,
    emulator_version: Option<String>,
    files: Option<String>,
    /// `None` if it was not tried.
    probe: Option<bool>,
    why: Option<String>,
    unknown: Vec<String>,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<()> {
    let archs = at_hand(&args.archs)?;
    let seen = mount::look(&context.binfmt)?;
    let state = match seen.state {
        State::Absent => "absent",
        State::NotMounted => "not mounted",
        State::ReadOnly(_) => "read-only",
        State::Writable => "writable",
    };
    let mut report = Report {
        mount: context.binfmt.root().display().to_string(),
        state,
        switched_on: seen.switched_on,
        handlers: Vec::new(),
    };
    let mut missing = archs.clone();
    if report.switched_on.is_some() {
        let listed = seen.handlers;
        let configured = Configured::read(Path::new("/"));
        let mut versions = BTreeMap::new();
        for (name, entry) in &listed {
            let arch = arch_of(name);
            if archs.is_empty() || arch.is_some_and(|arch| archs.contains(&arch)) {
                let name = name.to_string_lossy().into_owned();
                report.handlers.push(match entry {
                    Ok(entry) => row(name, arch, entry, &configured, &mut versions, args.probe),
                    Err(error) => garbage(name, error.to_string()),
                });
            }
        }
        let entries = readable(listed);
        let served = |arch: &Arch| {
            report.switched_on == Some(true) && handler_of(probe::image(arch), &entries).is_some()
        };
        missing.retain(|arch| !served(arch));
    } else {
        // Handlers that cannot be seen may work.
        missing.retain(|arch| probe::run(arch).is_err());
    }
    if args.json {
        json(&report)?
    } else {
        print(&report)?
    }
    missing.retain(|arch| !probe::is_native(arch));
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|arch| arch.name).collect();
        bail!("no handler for {}\nremedy: qus install {0}", names.join(" "));
    }
    let failing = report.handlers.iter().filter(|row| row.probe == Some(false)).count();
    ensure!(failing == 0, "{failing} of {} handlers do not work; see `qus doctor`", report.handlers.len());
    Ok(())
}

fn row(
    name: String,
    arch: Option<&'static Arch>,
    entry: &Entry,
    configured: &Configured,
    versions: &mut BTreeMap<PathBuf, Option<String>>,
    run: bool,
) -> Row {
    let rule = &entry.rule;
    let owner = configured.owner(entry);
    let file = match &owner {
        Owner::Systemd(file) | Owner::Debian(file) => Some(file.display().to_string()),
        Owner::Qus | Owner::Other => None,
    };
    let dir = rule.interpreter.parent().unwrap_or(Path::new("/")).to_owned();
    let told =
        versions.entry(dir).or_insert_with_key(|dir| version(dir).map(|version| version.to_string())).clone();
    let asked = || probe::version_of(&rule.interpreter).filter(|_| run && arch.is_some());
    let probed = arch.filter(|_| run && entry.enabled).map(probe::run);
    Row {
        name,
        arch: arch.map(|arch| arch.name),
        enabled: Some(entry.enabled),
        owner: owner.to_string(),
        file,
        interpreter: Some(rule.interpreter.display().to_string()),
        flags: Some(rule.flags.to_string()),
        flags_in_words: Some(rule.flags.in_words()),
        emulator_version: told.or_else(|| if run { asked() } else { None }),
        files: Some(rule.files.to_string()),
        probe: probed.as_ref().map(Result::is_ok),
        why: probed.and_then(Result::err),
        unknown: entry.unknown.iter().map(|line| line.to_string_lossy().into_owned()).collect(),
    }
}

fn garbage(name: String, why: String) -> Row {
    Row {
        name,
        arch: None,
        enabled: None,
        owner: Owner::Other.to_string(),
        file: None,
        interpreter: None,
        flags: None,
        flags_in_words: None,
        emulator_version: None,
        files: None,
        probe: None,
        why: Some(why),
        unknown: Vec::new(),
    }
}

fn print(report: &Report) -> Result<()> {
    if report.switched_on.is_none() {
        say(format_args!("binfmt_misc at {}: {}; see `qus doctor`", report.mount, report.state));
        return Ok(());
    }
    if report.switched_on == Some(false) {
        say("binfmt_misc is switched off: the kernel uses no handler; see `qus doctor`");
    }
    if report.handlers.is_empty() {
        say("no handler is registered");
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
    show(&table.to_string())?;
    for row in report.handlers.iter().filter_map(|row| Some((&row.name, row.why.as_ref()?))) {
        say(format_args!("{}: {}", row.0.shown(), row.1.shown()));
    }
    Ok(())
}
