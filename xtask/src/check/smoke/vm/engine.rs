//! Checks a container engine in a machine: used by docker and buildx, ended in every way.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use nix::sys::signal::Signal;
use tempfile::TempDir;
use xshell::{Cmd, cmd};

use crate::base::context::Context;
use crate::base::exec::{self, sh};
use crate::check::report::Report;
use crate::check::smoke::fixture::command_output::CommandOutput;
use crate::check::smoke::fixture::process::{BackgroundProcess, until};
use crate::debian::guests;
use crate::engine::client::Client;
use crate::engine::programs::Programs;

const LEVEL: &str = "vm";

/// The machine that the checks start.
const GUEST: &str = "arm64";

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    report.check(LEVEL, "engine: run, build, second start, end", || Engine::new(cx)?.used())
}

/// What takes longer.
pub(crate) fn run_slow(cx: &Context, report: &mut Report) -> Result<()> {
    report
        .check(LEVEL, "engine: killed while it starts and later, nothing stays", || Engine::new(cx)?.killed())
}

/// An engine of its own, which is ended when this is dropped.
struct Engine<'a> {
    cx: &'a Context,
    /// Instead of the workspace's, so that an engine of the user is not affected.
    target: TempDir,
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        let _ = self.xtask(&["down"]);
    }
}

impl<'a> Engine<'a> {
    fn new(cx: &'a Context) -> Result<Self> {
        Ok(Self { cx, target: tempfile::tempdir()? })
    }

    fn dir(&self) -> PathBuf {
        self.target.path().join("qus/vm-engine/arm64v8")
    }

    fn cmd(&self, args: &[&str]) -> Result<Cmd<'static>> {
        let xtask = std::env::current_exe()?;
        Ok(cmd!(sh(), "{xtask} vm engine {args...}").env("CARGO_TARGET_DIR", self.target.path()))
    }

    fn xtask(&self, args: &[&str]) -> Result<CommandOutput> {
        let ended = exec::output(self.cmd(args)?)?;
        Ok(CommandOutput::new(format!("vm engine {}", args.join(" ")), ended))
    }

    /// Starts it, and returns what it prints.
    fn up(&self) -> Result<String> {
        self.xtask(&["up", "--arch", GUEST])?.succeeds()
    }

    fn used(&self) -> Result<()> {
        let none = self.xtask(&["env"])?;
        none.exits(1, &["no engine is running in a machine", "`cargo xtask vm engine up`"])?;
        let printed = self.up()?;
        let socket = self.dir().join("docker.sock");
        let line = format!("export DOCKER_HOST=unix://{}", socket.display());
        ensure!(printed.lines().any(|other| other == line), "`vm engine up` printed {printed:?}");
        for (path, mode) in [(self.dir(), 0o700), (socket.clone(), 0o600)] {
            let found = fs::metadata(&path)?.permissions().mode() & 0o777;
            ensure!(found == mode, "{} has the mode {found:o}", path.display());
        }
        self.xtask(&["env"])?.writes(&printed)?;
        self.xtask(&["env", "--arch", "s390x"])?.exits(1, &["no engine for s390x is running"])?;
        let again = self.xtask(&["up", "--arch", GUEST])?;
        ensure!(again.stderr.contains("is running already"), "the second `up` printed {:?}", again.stderr);
        again.writes(&printed)?;

        let programs = Programs::ensure(self.cx)?;
        let config = self.target.path().join("client");
        programs.write_client_config(&self.cx.settings, &config)?;
        let client = programs.client(&socket, &config);
        let time = exec::read(client.cmd(&["info", "--format", "{{.SystemTime}}"]))?;
        let seconds = exec::read(cmd!(sh(), "date --date {time} +%s"))?.parse::<i64>()?;
        let own = exec::read(cmd!(sh(), "date +%s"))?.parse::<i64>()?;
        ensure!((own - seconds).abs() < 30, "the engine's time is {time}");
        self.run_and_build(&client)?;

        self.xtask(&["down"])?.succeeds()?;
        self.check_nothing_stays()?;
        self.xtask(&["down", "--arch", GUEST])?.succeeds().map(drop)
    }

    /// Imports an image, runs it with input and an exit status, and builds another one on it.
    fn run_and_build(&self, client: &Client) -> Result<()> {
        let guest = self.cx.data.debian.guest(GUEST).context("debian.toml lacks a guest")?;
        let image = self.target.path().join("image");
        fs::create_dir_all(image.join("bin"))?;
        fs::copy(guests::program(self.cx, guest, "busybox")?, image.join("bin/busybox"))?;
        let archive = self.target.path().join("image.tar");
        let mut builder = tar::Builder::new(fs::File::create(&archive)?);
        builder.append_dir_all(".", &image)?;
        builder.into_inner()?;
        let platform = format!("linux/{GUEST}");
        exec::read(client.cmd(&["import", "--platform", &platform]).arg(&archive).arg("busybox"))?;

        let docker = &client.cmd(&[]).to_string();
        let script = format!(
            "seq 100000 | {docker} run --rm --interactive busybox busybox sh -c 'busybox uname -m; busybox wc -c; exit 7'"
        );
        let run = client.with_env(cmd!(sh(), "sh -c {script}"));
        let ended = CommandOutput::new("docker run".to_owned(), exec::output(run)?);
        ended.ends(7, &format!("{}\n588895\n", guest.machine), "")?;

        let (context, built) = (self.target.path().join("context"), self.target.path().join("built"));
        fs::create_dir_all(&context)?;
        let dockerfile = "FROM busybox AS build\nRUN [\"busybox\", \"sh\", \"-c\", \"busybox uname -m > /made\"]\n\
            FROM scratch\nCOPY --from=build /made /\n";
        fs::write(context.join("Dockerfile"), dockerfile)?;
        let mut output = OsString::from("type=local,dest=");
        output.push(&built);
        exec::read(client.cmd(&["buildx", "build", "--output"]).arg(output).arg(&context))?;
        let made = fs::read_to_string(built.join("made"))?;
        ensure!(made.trim_end() == guest.machine, "the build has made {made:?}");
        Ok(())
    }

    fn killed(&self) -> Result<()> {
        let start = self.cmd(&["up", "--arch", GUEST])?;
        let process = BackgroundProcess::start(self.target.path().join("stderr"), start)?;
        // The last file before the machine is restored.
        let disk = self.dir().join("disk.qcow2");
        until("the machine starts", || Ok(disk.exists()))?;
        process.signal(Signal::SIGKILL)?;
        until("all processes of `up` end", || Ok(self.processes()?.is_empty()))?;
        self.xtask(&["env"])?.exits(1, &["no engine is running"])?;

        self.up()?;
        let processes = self.processes()?;
        ensure!(processes.len() == 2, "the engine has {} processes", processes.len());
        let emulator = processes.into_iter().find(|(_, program)| program.contains("qemu-system"));
        let (emulator, _) = emulator.context("the engine has no emulator")?;
        exec::read(cmd!(sh(), "kill -KILL {emulator}"))?;
        until("the engine's process ends", || Ok(self.processes()?.is_empty()))?;
        self.xtask(&["env"])?.exits(1, &["that for arm64v8 has ended: the machine ended unexpectedly"])?;

        self.up()?;
        self.xtask(&["down"])?.succeeds()?;
        self.check_nothing_stays()
    }

    /// The processes of the engine, with their command lines.
    fn processes(&self) -> Result<Vec<(String, String)>> {
        let needle = [b"CARGO_TARGET_DIR=", self.target.path().as_os_str().as_bytes()].concat();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let dir = entry?.path();
            // A process may end in the meantime, or be another user's.
            let read = |name: &str| fs::read(dir.join(name)).unwrap_or_default();
            let is_own = read("environ").split(|byte| *byte == 0).any(|variable| variable == needle);
            let process = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if is_own && Path::new(&dir).join("cmdline").exists() {
                found.push((process, String::from_utf8_lossy(&read("cmdline")).into_owned()));
            }
        }
        Ok(found)
    }

    fn check_nothing_stays(&self) -> Result<()> {
        until("all processes end", || Ok(self.processes()?.is_empty()))?;
        let engines = fs::read_dir(self.dir().parent().context("the directory has no parent")?)?;
        let names = engines.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
        ensure!(names == ["arm64v8.lock"], "files stay: {names:?}");
        Ok(())
    }
}
