//! `qus`: registers QEMU's emulators with the kernel, checks, explains and removes them.
//!
//! One file per command. Data goes to standard output, talk to standard error. Arguments of other such
//! tools are understood too, see [`qus_core::compat`].

mod context;
mod doctor;
mod explain;
mod export;
mod generate;
mod install;
mod output;
mod platforms;
mod probe;
mod remove;
mod run;
mod status;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use qus_core::binfmt::MOUNT_POINT;
use qus_core::compat;

use context::Context;

/// Run programs and containers of other architectures
#[derive(Parser)]
#[command(name = "qus", version, after_help = AFTER_HELP, subcommand_required = true)]
struct Cli {
    /// Where binfmt_misc is mounted
    #[arg(long, value_name = "PATH", default_value = MOUNT_POINT)]
    mount: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Install(install::Args),
    Remove(remove::Args),
    Status(status::Args),
    Doctor(doctor::Args),
    Explain(explain::Args),
    Run(run::Args),
    Export(export::Args),
    Probe(probe::Args),
    Platforms(platforms::Args),
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
    #[command(hide = true)]
    MapIds(run::MapIdsArgs),
}

const AFTER_HELP: &str = "\
Architectures may be spelt as QEMU, Docker, Debian, GNU or uname spell them: aarch64, linux/arm64, arm64v8.
Arguments of dbhi/qus, tonistiigi/binfmt and multiarch/qemu-user-static are understood too; without any,
`qus` prints what `qus platforms` does.

Environment:
  QEMU_BIN_DIR      folder with emulators, as --dir; QEMU_BINARY_PATH means the same

Exit status:
  0  all that was asked for is true now
  1  something is not; standard error says what, why and what to do
  2  wrong usage
  `qus run` ends as its command does: 126 if that cannot be run, 127 if it is not found";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let commands = match old_form(&args) {
        None => vec![args],
        Some(Ok(commands)) => commands,
        Some(Err(unclear)) => {
            output::say(format_args!("error: {unclear}"));
            return ExitCode::from(2);
        }
    };
    let mut status = ExitCode::SUCCESS;
    for args in commands {
        let done = match Cli::try_parse_from(std::iter::once("qus".into()).chain(args)) {
            Ok(cli) => dispatch(&cli),
            Err(wrong) if wrong.use_stderr() => {
                output::say(wrong.to_string().trim_end());
                return ExitCode::from(2);
            }
            Err(help) => output::out(help.to_string()),
        };
        if let Err(error) = done {
            output::fail(&error);
            status = ExitCode::FAILURE;
        }
    }
    status
}

fn old_form(args: &[OsString]) -> Option<Result<Vec<Vec<OsString>>, compat::Unclear>> {
    let text: Option<Vec<String>> = args.iter().map(|arg| arg.to_str().map(str::to_owned)).collect();
    let commands = compat::translate(&text?)?;
    Some(commands.map(|commands| {
        commands.into_iter().map(|command| command.into_iter().map(OsString::from).collect()).collect()
    }))
}

fn dispatch(cli: &Cli) -> Result<()> {
    let context = Context::new(&cli.mount);
    match &cli.command {
        Command::Install(args) => install::run(&context, args),
        Command::Remove(args) => remove::run(&context, args),
        Command::Status(args) => status::run(&context, args),
        Command::Doctor(args) => doctor::run(&context, args),
        Command::Explain(args) => explain::run(&context, args),
        Command::Run(args) => run::run(args),
        Command::Export(args) => export::run(args),
        Command::Probe(args) => probe::run(args),
        Command::Platforms(args) => platforms::run(&context, args),
        Command::Completions(args) => generate::completions(args),
        Command::Man(args) => generate::man(args),
        Command::MapIds(args) => run::map_ids(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn old_forms_become_commands_that_exist() {
        for (_, line, _) in compat::FORMS {
            let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            for command in old_form(&args).unwrap().unwrap() {
                let parsed = Cli::try_parse_from(std::iter::once("qus".into()).chain(command));
                assert!(parsed.is_ok(), "{line}: {}", parsed.err().unwrap());
            }
        }
    }
}
