//! `cargo xtask chaos`: commands that are killed at random moments, or lack space, and are run again.
//!
//! Each command is disturbed in a sandbox. Run again, it must succeed and leave exactly what an undisturbed run leaves: the
//! same files, byte for byte, the same handlers, and no mounts, processes or temporary files. Faults of servers and networks
//! are checks of the smoke levels `build` and `engine`.

mod builds;
mod campaign;
mod commands;
mod handlers;
mod images;
mod sandbox;
mod snapshot;
mod subject;

use anyhow::{Context as _, Result, ensure};
use qus_core::hint::{self, WithHint};
use qus_core::table::Table;
use serde::Serialize;

use crate::base::context::Context;
use crate::base::error::{Skip, Usage};
use crate::base::output::{out, out_json};
use crate::base::progress::{Bar, say};
use crate::check::chaos::campaign::Campaign;
use crate::check::chaos::commands::{COMMANDS, Command, Work, distribute};
use crate::check::chaos::subject::Fault;
use crate::check::report::{self, Report};

/// Kill commands at random moments, and check that they recover
///
/// Runs build-qemu, build-qus, tarballs, release, `images --push` and forms of `qus install` in namespaces of their own.
/// Each is killed at random moments; its disk is full or read-only; its files get other times; or it runs twice at once.
/// Then the same command must succeed, and leave exactly what an undisturbed run leaves. Otherwise it counts as lost, and
/// the exit status is 1.
///
/// Requires root, Linux 6.7, and emulators and qus in target/qus/bundle. Without emulators in the cache, or after a change
/// of qus that is not built, commands are skipped or compile for minutes.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask chaos
  cargo xtask chaos --kills 40 --only install,tarballs
  cargo xtask chaos --seed 1234")]
pub(crate) struct Args {
    /// How many commands are killed; other faults are a sixteenth as frequent
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    kills: u32,
    /// Repeat the random moments of a run that printed this [default: a random number]
    #[arg(long)]
    seed: Option<u64>,
    /// Disturb only commands whose name contains one of these
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    only: Vec<String>,
    /// Print results as JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// The level of the smoke tests, and how many commands it kills.
const LEVEL: &str = "chaos";
const KILLS: u32 = 20;

/// How a command took a fault.
#[derive(Serialize)]
struct Tally {
    fault: &'static str,
    tried: u32,
    recovered: u32,
    /// Why the others are lost.
    lost: Vec<String>,
}

/// How a command took all faults, or why it was not disturbed.
#[derive(Serialize)]
struct Row {
    command: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
    faults: Vec<Tally>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Results {
    seed: u64,
    kills: u32,
    commands: Vec<Row>,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<()> {
    let commands: Vec<_> = COMMANDS.iter().zip(distribute(args.kills)).collect();
    for text in &args.only {
        ensure!(
            commands.iter().any(|(command, _)| command.name.contains(text)),
            Usage(format!("no command contains `{text}`; commands are {}", names().join("; ")))
        );
    }
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let work = Work::new(cx)
        .context("commands cannot be disturbed here")
        .hint("run it as root, on Linux 6.7 or newer")?;
    say(format_args!("seed {seed}"));
    let is_selected = |name: &str| args.only.is_empty() || args.only.iter().any(|text| name.contains(text));
    let selected = commands.into_iter().filter(|(command, kills)| *kills > 0 && is_selected(command.name));
    let rows =
        selected.map(|(command, kills)| disturb(&work, command, seed, kills)).collect::<Result<_>>()?;
    Results { seed, kills: args.kills, commands: rows }.print(args.json)
}

fn names() -> Vec<&'static str> {
    COMMANDS.iter().map(|command| command.name).collect()
}

/// Disturbs a command with all faults that are possible.
fn disturb(work: &Work<'_>, command: &Command, seed: u64, kills: u32) -> Result<Row> {
    let mut row = Row { command: command.name, skipped: None, faults: Vec::new() };
    let subject = match command.setup(work) {
        Ok(subject) => subject,
        Err(error) => {
            let Some(Skip(why)) = hint::find(&error) else { return Err(error.context(command.name)) };
            say(format_args!("{}: skipped: {why}", command.name));
            row.skipped = Some(why.clone());
            return Ok(row);
        }
    };
    let campaign = Campaign::new(command.name, &*subject, seed, work.dir()).context(command.name)?;
    for &fault in subject.faults() {
        let count = if fault == Fault::Kill { kills } else { kills.div_ceil(16) };
        let mut tally = Tally { fault: fault.name(), tried: count, recovered: 0, lost: Vec::new() };
        let mut bar = Bar::new(format!("{}: {}, {count} times", command.name, fault.name()));
        for index in 0..count {
            match campaign.disturb(fault, index, count) {
                Ok(()) => tally.recovered += 1,
                Err(error) => {
                    say(format_args!("lost: {}, {} {index}: {error:#}", command.name, fault.name()));
                    tally.lost.push(format!("{error:#}"));
                }
            }
            bar.set((index + 1).into(), count.into());
        }
        bar.finish();
        row.faults.push(tally);
    }
    Ok(row)
}

/// Kills commands as a level of `cargo xtask smoke`.
pub(crate) fn check(cx: &Context, report: &mut Report) -> Result<()> {
    let (work, seed) = (Work::new(cx), fastrand::u64(..));
    for (command, kills) in COMMANDS.iter().zip(distribute(KILLS)).filter(|(_, kills)| *kills > 0) {
        let name = command.name;
        report.check(LEVEL, format!("{name}: killed {kills} times, and run again"), || {
            let work = work.as_ref().map_err(report::copy_error)?;
            let subject = command.setup(work)?;
            let repeat =
                format!("`cargo xtask chaos --kills {KILLS} --seed {seed} --only '{name}'` repeats it");
            let campaign = Campaign::new(name, &*subject, seed, work.dir())?;
            (0..kills).try_for_each(|index| campaign.disturb(Fault::Kill, index, kills)).context(repeat)
        })?;
    }
    Ok(())
}

impl Results {
    fn print(&self, json: bool) -> Result<()> {
        let all = || self.commands.iter().flat_map(|row| &row.faults);
        if json {
            out_json(self)?;
        } else {
            out(&self.table().to_string())?;
        }
        let (tried, lost) =
            (all().map(|tally| tally.tried).sum::<u32>(), all().map(|tally| tally.lost.len()).sum::<usize>());
        let killed: u32 =
            all().filter(|tally| tally.fault == Fault::Kill.name()).map(|tally| tally.tried).sum();
        say(format_args!("chaos: {tried} faults, {killed} of them kills; {lost} lost; seed {}", self.seed));
        ensure!(tried > 0, "no command was disturbed");
        ensure!(lost == 0, "{lost} of {tried} faults were not recovered from");
        Ok(())
    }

    fn table(&self) -> Table {
        let heads = Fault::ALL.map(Fault::name);
        let mut table = Table::new([&["command"], &heads[..], &["recovered", "lost"]].concat());
        for row in &self.commands {
            let tried = |fault: &&str| {
                let tally = row.faults.iter().find(|tally| tally.fault == *fault);
                tally.map_or("-".to_owned(), |tally| tally.tried.to_string())
            };
            let mut cells = vec![row.command.to_owned()];
            cells.extend(heads.iter().map(tried));
            cells.push(row.faults.iter().map(|tally| tally.recovered).sum::<u32>().to_string());
            cells.push(row.faults.iter().map(|tally| tally.lost.len()).sum::<usize>().to_string());
            table.row(cells);
        }
        table.numbers_from(1)
    }
}
