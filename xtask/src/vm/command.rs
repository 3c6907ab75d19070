//! `cargo xtask vm`: runs images on whole machines of their architecture.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use qemu_src::Machine;
use qus_core::arch::Host;
use qus_core::hint;
use qus_core::machine::Run;
use qus_core::table::Table;
use qus_core::terminal::width as terminal_width;
use serde_json::json;

use crate::base::context::Context;
use crate::base::error::Usage;
use crate::base::output::{out, out_json};
use crate::base::progress;
use crate::vm::engine;
use crate::vm::image::{self, Image};
use crate::vm::session::{self, CannotRun};
use crate::vm::shape::{Published, Shape};
use crate::vm::volumes::Volume;
use crate::vm::wanted::Wanted;
use crate::vm::{disk, disks, import, start, terminal};

/// Run a container image on a whole machine of its architecture
///
/// A machine has its own kernel: for what user-mode emulation cannot do, such as ptrace, seccomp, kernel modules or
/// isolation. Needs no root, and installs nothing: emulators and kernels come from Debian's packages, unpacked into the
/// cache.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Run(Box<RunArgs>),
    Engine(engine::command::Args),
    Disk(disk::Args),
    Import(import::Args),
    /// List the machines
    Boards {
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
}

/// Run the program of an image on a machine, and end with its exit status
///
/// IMAGE is an image of the engine or a registry, an OCI layout, an archive of one or of `docker image save`, a tar archive
/// of a root filesystem, a directory with one, or a disk (qcow2, raw, ext4, erofs, squashfs and others). The image is not changed; the machine's memory has all changes, which are
/// lost at its end. If stdin and stdout are a terminal, the program gets one.
///
/// Exit status: that of the program; 125 if the machine fails, 126 if the program cannot be executed, 127 if it does not
/// exist, 2 for invalid arguments.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask vm run --arch riscv64 debian:trixie uname -m
  cargo xtask vm run --volume .:/work --workdir /work ./image.tar make check
  cargo xtask vm run --publish 8080:80 --memory 1024 example.com/server:1")]
struct RunArgs {
    /// Architecture, such as arm64, arm/v7 or s390x [default: that of the image]
    #[arg(long)]
    arch: Option<&'static Host>,
    /// Run the image on this board instead of a machine that exists in QEMU only; `vm boards` lists them
    #[arg(long)]
    board: Option<String>,
    /// Memory in MiB [default: see `vm boards`]
    #[arg(long, short, value_name = "MIB", value_parser = clap::value_parser!(u32).range(64..))]
    memory: Option<u32>,
    /// Number of processors [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: Option<u32>,
    /// Set an environment variable
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_variable)]
    env: Vec<String>,
    /// User and group, by name or number [default: those of the image]
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory [default: that of the image]
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// Let the program use a directory of this machine
    #[arg(long, short, value_name = "HERE:MACHINE[:ro]")]
    volume: Vec<Volume>,
    /// Make a port of the machine reachable at one of this machine's; for its own programs only, unless an address is given
    #[arg(long, short, value_name = "[ADDRESS:]PORT:PORT[/udp]")]
    publish: Vec<Published>,
    /// Network of the machine: `user` reaches what this machine reaches, and its own services at 10.0.2.2 [default: user,
    /// unless the board has none]
    #[arg(long, value_enum)]
    network: Option<Network>,
    /// End the machine if the program has not ended after this time in seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// End the machine if it has not started after this time in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    boot_timeout: u64,
    /// Print the kernel's messages to stderr
    #[arg(long)]
    console: bool,
    /// Image, archive or directory
    image: String,
    /// Program and arguments [default: those of the image]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Network {
    User,
    None,
}

/// The exit status if the machine fails, as of `docker run`.
const MACHINE_FAILED: u8 = 125;

pub(crate) fn run(cx: &Context, args: &Args) -> Result<ExitCode> {
    match &args.command {
        Command::Boards { json } => print_boards(cx, *json).map(|()| ExitCode::SUCCESS),
        Command::Engine(args) => engine::command::run(cx, args),
        Command::Disk(args) => disk::run(cx, args).map(|()| ExitCode::SUCCESS),
        Command::Import(args) => import::run(cx, args).map(|()| ExitCode::SUCCESS),
        Command::Run(args) => {
            let status = run_image(cx, args).or_else(|error| {
                if hint::find::<Usage>(&error).is_some() {
                    return Err(error);
                }
                progress::fail(&error);
                Ok(hint::find::<CannotRun>(&error).map_or(MACHINE_FAILED, |failed| failed.status))
            })?;
            Ok(ExitCode::from(status))
        }
    }
}

fn run_image(cx: &Context, args: &RunArgs) -> Result<u8> {
    let board = args.board.as_deref().map(|name| find_board(cx, name)).transpose()?;
    let network = network(args, board)?;
    let mut shape = Shape {
        memory: args.memory,
        processors: args.cpus,
        disks: &[],
        driver: None,
        target: None,
        data: None,
        network,
        volumes: &args.volume,
        verbose: args.console,
    };
    if let Some(board) = board {
        shape.check(board)?;
    }
    let image = image::open(cx, &args.image, Wanted { arch: args.arch, board, converts: false })?;
    let request = program(args, &image, network.is_some())?;
    let card = board.map(|_| disks::card(cx, image.kind.programs(), &image.disks)).transpose()?;
    shape.disks = card.as_ref().map_or(&image.disks, std::slice::from_ref);
    shape.driver = image.driver;
    let mut machine = start::start(cx, &image.kind, &shape, Duration::from_secs(args.boot_timeout))?;
    session::run(&mut machine, request, args.timeout.map(Duration::from_secs))
}

/// The ports that lead to the machine; `None` without a network.
fn network<'a>(args: &'a RunArgs, board: Option<&Machine>) -> Result<Option<&'a [Published]>> {
    let has_network = board.and_then(Machine::board).is_none_or(|board| board.network.is_some());
    let default = if has_network { Network::User } else { Network::None };
    let wanted = args.network.unwrap_or(default);
    ensure!(
        has_network || (wanted == Network::None && args.publish.is_empty()),
        Usage("this board has no network; omit --network and --publish".to_owned())
    );
    ensure!(
        wanted == Network::User || args.publish.is_empty(),
        Usage("--publish needs a network; omit `--network none`".to_owned())
    );
    Ok((wanted == Network::User).then_some(&args.publish[..]))
}

fn find_board<'a>(cx: &'a Context, name: &str) -> Result<&'a Machine> {
    let boards = &cx.data.machines;
    let known = || boards.boards().map(Machine::name).collect::<Vec<_>>().join(", ");
    boards.board(name).ok_or_else(|| Usage(format!("unknown board {name}; there are {}", known())).into())
}

fn parse_variable(given: &str) -> Result<String, String> {
    match given.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(given.to_owned()),
        _ => Err("it has no name and value, as in A=b".to_owned()),
    }
}

/// The program of an image with the options of the command.
fn program(args: &RunArgs, image: &Image, network: bool) -> Result<Run> {
    let given = |option: &Option<String>, own: &Option<String>| {
        option.clone().or_else(|| own.clone()).unwrap_or_default()
    };
    let execution = &image.execution;
    Ok(Run {
        argv: execution.argv(&args.command)?,
        env: execution.env.iter().flatten().cloned().chain(args.env.iter().cloned()).collect(),
        user: given(&args.user, &execution.user),
        directory: given(&args.workdir, &execution.working_dir),
        hostname: image.kind.data().name().to_owned(),
        root: image.root(None),
        volumes: args.volume.iter().enumerate().map(|(index, volume)| volume.mount(index)).collect(),
        network,
        terminal: terminal::size(io::stdout()).filter(|_| io::stdin().is_terminal()),
        data: None,
        socket: None,
        renewal: start::renewal()?,
    })
}

fn print_boards(cx: &Context, json: bool) -> Result<()> {
    let machines = &cx.data.machines.machines;
    let platform = |machine: &Machine| format!("linux/{}", machine.host.platform);
    let description = |machine: &Machine| machine.board().map(|board| board.description.clone());
    if json {
        let list: Vec<_> = machines
            .iter()
            .map(|machine| {
                json!({
                    "name": machine.name(), "platform": platform(machine), "board": machine.board().is_some(),
                    "description": description(machine), "memory": machine.memory, "kernel": machine.kernel,
                })
            })
            .collect();
        return out_json(&list);
    }
    let mut table = Table::new(["name", "platform", "memory", "kernel", "board"]);
    for machine in machines {
        table.row([
            machine.name().to_owned(),
            platform(machine),
            format!("{} MiB", machine.memory),
            machine.kernel.clone(),
            description(machine).unwrap_or_default(),
        ]);
    }
    out(&table.fit(terminal_width(io::stdout())))
}
