//! `qus`: registers QEMU's emulators with the kernel, checks, explains and removes them.
//!
//! One file per command. Data goes to standard output, messages to standard error. Arguments of similar
//! tools are accepted too, see [`qus_core::compat`].

mod context;
mod doctor;
mod explain;
mod export;
mod generate;
mod install;
mod output;
mod own;
mod platforms;
mod probe;
mod remove;
mod run;
mod status;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use qus_core::binfmt::{Binfmt, MOUNT_POINT};
use qus_core::compat;
use qus_core::text::Show;

/// Run programs and containers of other architectures
#[derive(Parser)]
#[command(name = "qus", version, after_help = AFTER_HELP, subcommand_required = true)]
struct Cli {
    /// Where binfmt_misc is mounted
    #[arg(long, value_name = "PATH", default_value = MOUNT_POINT)]
    mount: PathBuf,
    /// With --version, also print the commit, the profile and the patches of the emulators
    #[arg(id = "verbose", long = VERBOSE, requires = "version")]
    _verbose: bool,
    #[command(subcommand)]
    command: Command,
}

const VERBOSE: &str = "verbose";

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
    #[command(name = "self")]
    Own(own::Args),
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
}

/// What `qus run` starts itself. It is not among the commands, so that neither completions nor manual pages have it.
#[derive(Parser)]
struct MapIds {
    #[command(flatten)]
    args: run::MapIdsArgs,
}

const AFTER_HELP: &str = "\
Architectures have the names of QEMU, Docker, Debian, GNU and uname: aarch64, linux/arm64, arm64v8.
Arguments of dbhi/qus, tonistiigi/binfmt and multiarch/qemu-user-static are accepted too; without arguments, `qus` is the same as `qus platforms`.

Environment:
  QEMU_BIN_DIR      directory with emulators, like --dir; QEMU_BINARY_PATH is the same
  NO_COLOR          no colours
  CLICOLOR_FORCE    colours even if output is not a terminal

Exit status:
  0  success
  1  failure, also if an architecture is unknown; standard error has the error and, where there is one, a hint
  2  wrong usage
  `qus run` exits with the status of its command: 126 if it cannot be run, 127 if it is not found

Examples:
  qus install all
  qus status
  qus explain ./a-program
  qus remove all";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|first| first == "map-ids") {
        let mapped =
            MapIds::try_parse_from(&args).map_err(Into::into).and_then(|this| run::map_ids(&this.args));
        return match mapped {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                output::print_error(&error);
                ExitCode::FAILURE
            }
        };
    }
    let commands = match old_form(&args) {
        None => vec![args],
        Some(Ok(commands)) => commands,
        Some(Err(unclear)) => {
            output::message(format_args!("error: {unclear}"));
            return ExitCode::from(2);
        }
    };
    let mut status = ExitCode::SUCCESS;
    for args in commands {
        let verbose =
            args.iter().any(|arg| arg.to_str().and_then(|arg| arg.strip_prefix("--")) == Some(VERBOSE));
        let done = match Cli::try_parse_from(std::iter::once("qus".into()).chain(args)) {
            Ok(cli) => dispatch(&cli),
            Err(wrong) if wrong.use_stderr() => {
                output::message(wrong.to_string().trim_end());
                return ExitCode::from(2);
            }
            Err(wrong) if wrong.kind() == ErrorKind::DisplayVersion => output::print_data(version(verbose)),
            Err(help) => output::print_text(&help.to_string()),
        };
        if let Err(error) = done {
            output::print_error(&error);
            status = ExitCode::FAILURE;
        }
    }
    status
}

/// The version of this program, and of the emulators that it uses.
fn version(verbose: bool) -> String {
    let own = concat!("qus ", env!("CARGO_PKG_VERSION"));
    // `cargo xtask build-qus` sets it.
    let commit = option_env!("QUS_COMMIT");
    let dir = context::EmulatorDirArgs::default().try_open().ok();
    let bundle = dir.as_ref().and_then(|dir| dir.bundle.as_ref());
    let qemu = bundle.map(|bundle| ("QEMU", bundle.recipe.qemu.to_string()));
    let release = bundle.and_then(|bundle| Some(("release", bundle.release.as_ref()?.to_string())));
    let commit = commit.map(|commit| ("commit", commit.to_owned()));
    let mut facts: Vec<(&str, String)> = qemu.into_iter().chain(release).chain(commit).collect();
    if !verbose {
        let facts: Vec<_> = facts.iter().map(|(name, value)| format!("{name} {value:.12}")).collect();
        let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
        return format!("{own}{facts}\n");
    }
    if let (Some(dir), Some(bundle)) = (&dir, bundle) {
        facts.push(("emulators", format!("{} in {}", bundle.emulators.len(), dir.dir.shown())));
        facts.push(("profile", bundle.recipe.profile.to_string()));
        let series: Vec<_> = bundle.recipe.series().map(|(name, count)| format!("{count} {name}")).collect();
        facts.push(("patches", series.join(", ")));
    }
    let lines: String = facts.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    format!("{own}\n{lines}")
}

fn old_form(args: &[OsString]) -> Option<Result<Vec<Vec<OsString>>, compat::CompatError>> {
    let text: Option<Vec<String>> = args.iter().map(|arg| arg.to_str().map(str::to_owned)).collect();
    let commands = compat::translate(&text?)?;
    Some(commands.map(|commands| {
        commands.into_iter().map(|command| command.into_iter().map(OsString::from).collect()).collect()
    }))
}

fn dispatch(cli: &Cli) -> Result<()> {
    let binfmt = &Binfmt::at(&cli.mount);
    match &cli.command {
        Command::Install(args) => match args.watch {
            Some(seconds) => watch::run(binfmt, args, Duration::from_secs(seconds)),
            None => install::run(binfmt, args),
        },
        Command::Remove(args) => remove::run(binfmt, args),
        Command::Status(args) => status::run(binfmt, args),
        Command::Doctor(args) => doctor::run(binfmt, args),
        Command::Explain(args) => explain::run(binfmt, args),
        Command::Run(args) => run::run(args),
        Command::Export(args) => export::run(args),
        Command::Probe(args) => probe::run(binfmt, args),
        Command::Platforms(args) => platforms::run(binfmt, args),
        Command::Own(args) => own::run(args),
        Command::Completions(args) => generate::completions(args, Cli::command()),
        Command::Man(args) => generate::man(args, Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use nix::errno::Errno;
    use qus_core::arch::Arch;
    use qus_core::binfmt::{BinfmtError, MountState};
    use qus_core::bundle::BundleError;
    use qus_core::emulator::UnfitEmulator;
    use qus_core::handler::HandlerError;
    use qus_core::install::{ArchFailure, InstallError};
    use qus_core::mount::MountError;
    use qus_core::namespace::NamespaceError;
    use qus_core::persist::PersistError;
    use qus_core::trust::TrustError;

    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    /// Each error of the library that has a hint, as far as it can be made here.
    fn hints() -> Vec<Option<String>> {
        let (path, arch) = (|| PathBuf::from("/p"), "alpha".parse().expect("it has a row"));
        let io = || io::Error::other("?");
        let mount = [
            MountError::NoProc,
            MountError::NotSupported,
            MountError::NoMountPoint(path()),
            MountError::Mount(path(), Errno::EPERM),
            MountError::Mount(path(), Errno::EBUSY),
            MountError::ReadOnly(path(), Errno::EROFS),
            MountError::ReadOnly(path(), Errno::EACCES),
            MountError::Test(BinfmtError::Io("register", path(), io::Error::from(Errno::EPERM))),
            MountError::WouldNotLast,
            MountError::Busy,
        ];
        let namespace = [
            NamespaceError::Unshare(Errno::EPERM),
            NamespaceError::Map("uid_map", io()),
            NamespaceError::Mount(MOUNT_POINT.into(), Errno::EPERM),
            NamespaceError::Root(path(), Errno::EPERM),
        ];
        let persist = [
            PersistError::NoService,
            PersistError::Root(path(), io()),
            PersistError::Manifest(path(), String::new()),
            PersistError::NotOurs(path()),
            PersistError::Unsafe(path(), ""),
            PersistError::WouldDrop(vec!["alpha"]),
        ];
        let differs = |foreign| HandlerError::Differs { foreign, differences: Vec::new() };
        let failures = [
            ArchFailure::NoEmulator(arch, path()),
            ArchFailure::Trust(TrustError::Owner(path(), 1)),
            ArchFailure::Unfit(path(), UnfitEmulator::NotExecutable),
            ArchFailure::Unfit(path(), UnfitEmulator::NoExec),
            ArchFailure::Handler(differs(true)),
            ArchFailure::Handler(differs(false)),
            ArchFailure::Probe(String::new()),
        ];
        let install = InstallError::SwitchedOff(MOUNT_POINT.into(), MountState::Writable);
        let bundle = BundleError::Damaged(path(), String::new());
        [
            mount.iter().map(MountError::hint).collect::<Vec<_>>(),
            namespace.iter().map(NamespaceError::hint).collect(),
            persist.iter().map(PersistError::hint).collect(),
            failures.iter().map(ArchFailure::hint).collect(),
            vec![install.hint(), bundle.hint(), "vax".parse::<&Arch>().unwrap_err().hint()],
        ]
        .concat()
    }

    #[test]
    fn every_command_in_a_hint_is_one() {
        let mut found = 0;
        for hint in hints() {
            let hint = hint.expect("each of these has one");
            assert!(hint.contains('`'), "no command: {hint}");
            let quoted = hint.split('`').skip(1).step_by(2).flat_map(|text| text.split("&&"));
            for command in quoted.filter(|text| text.trim_start().starts_with("qus ")) {
                let parsed = Cli::try_parse_from(command.split_whitespace());
                let is_help = |error: &clap::Error| error.kind() == clap::error::ErrorKind::DisplayHelp;
                assert!(parsed.as_ref().err().is_none_or(is_help), "{command}: {}", parsed.err().unwrap());
                found += 1;
            }
        }
        assert!(found > 5, "only {found} commands were found");
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
