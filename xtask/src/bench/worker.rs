//! The worker process, which runs workloads in a user namespace and in the guest's root filesystem. The only handler in
//! the namespace is that of the emulator under test. Setting up the namespace and the handler is not measured.
//!
//! The worker reads one JSON request per line from stdin and writes one JSON answer per line. The output of a workload
//! goes to memory and is read after the workload ends, so that reading does not disturb the measurement. A workload that
//! does not end in time is killed with its children.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, chdir};
use qus_core::arch::Arch;
use qus_core::binfmt::{Binfmt, Flags, MOUNT_POINT};
use qus_core::digest::Sha256;
use qus_core::handler;
use qus_core::namespace::{Caller, enter_root, mount_shared};
use serde::{Deserialize, Serialize};

use crate::base::exec;
use crate::base::output::out;

/// Time limit of a workload, about a hundred times what it needs.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Run workloads under one emulator, on request of `cargo xtask bench`
#[derive(clap::Args)]
pub(crate) struct Args {
    arch: &'static Arch,
    emulator: PathBuf,
    root: PathBuf,
    /// Directory to mount at /bench in the root filesystem
    bench: PathBuf,
}

/// Asks a worker to run a command `times` times in a row, until a run ends with another status than `status`.
#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) argv: Vec<String>,
    pub(super) times: u32,
    pub(super) status: i32,
    /// Whether to measure memory instead of time. The worker then forks, because a program that is started otherwise
    /// inherits the peak memory of the worker.
    pub(super) memory: bool,
}

/// What a worker writes to stdout.
#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    /// The worker, as root, has entered its namespace and waits for an empty line, which means that users are mapped.
    Unshared,
    /// The worker accepts requests.
    Ready,
    Ran(Ran),
    Failed(String),
}

/// The resources that all runs of a request used, and how the last run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ran {
    pub(super) used: Used,
    pub(super) status: Option<i32>,
    pub(super) signal: Option<i32>,
    /// Hash of the stdout of all runs.
    pub(super) stdout: String,
    /// The last line of stderr.
    pub(super) stderr: String,
}

impl Ran {
    /// Describes how the last run ended.
    pub(super) fn describe_end(&self) -> String {
        let ended = match (self.signal.map(Signal::try_from), self.status) {
            (Some(Ok(Signal::SIGKILL)), _) => format!("killed, or timed out after {} s", TIMEOUT.as_secs()),
            (Some(Ok(signal)), _) => format!("killed by {signal}"),
            (_, Some(status)) => format!("exit status {status}"),
            _ => "ended for an unknown reason".to_owned(),
        };
        if self.stderr.is_empty() { ended } else { format!("{ended}: {}", self.stderr) }
    }
}

/// Resources that a program and its children used.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Used {
    /// In microseconds, like `user` and `system`.
    pub(super) wall: u64,
    pub(super) user: u64,
    pub(super) system: u64,
    /// Peak memory of one process in KiB; see [`Request::memory`].
    pub(super) memory: u64,
    /// Minor page faults.
    pub(super) faults: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    enter(args)?;
    answer(&Answer::Ready)?;
    for line in io::stdin().lines() {
        let request: Request = serde_json::from_str(&line?).context("invalid request")?;
        answer(&execute(&request).map_or_else(|error| Answer::Failed(format!("{error:#}")), Answer::Ran))?;
    }
    Ok(())
}

fn answer(answer: &Answer) -> Result<()> {
    out(&(serde_json::to_string(answer)? + "\n"))
}

fn enter(args: &Args) -> Result<()> {
    let caller = Caller::now();
    let mapped = || {
        // Only root can map all users; any other user needs no other process.
        if !caller.is_root() {
            return Ok(());
        }
        answer(&Answer::Unshared).map_err(io::Error::other)?;
        match io::stdin().lock().read_line(&mut String::new())? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    };
    caller.enter(mapped)?;
    let binfmt = Binfmt::at(MOUNT_POINT);
    for rule in handler::rules(args.arch, &args.emulator, [0; 4], Flags::DEFAULT) {
        binfmt.register(&rule)?;
    }
    let mount_over = |from: &str, to: &Path, kind: Option<&str>, flags| {
        mount(Some(from), to, kind, flags, None::<&str>)
            .with_context(|| format!("cannot mount {from} on {}", to.display()))
    };
    let bench = args.bench.to_str().context("the path of the workloads is not UTF-8")?;
    mount_over(bench, &args.root.join("bench"), None, MsFlags::MS_BIND)?;
    // Keeps disk access out of the measurement, and disappears with this process.
    mount_over("tmpfs", &args.root.join("tmp"), Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV)?;
    mount_shared(&args.root)?;
    enter_root(&args.root)?;
    chdir("/tmp").context("there is no /tmp")?;
    // Ends workloads that spin after this process has died.
    let seconds = TIMEOUT.as_secs();
    setrlimit(Resource::RLIMIT_CPU, seconds, seconds).context("cannot limit the CPU time of workloads")
}

fn execute(request: &Request) -> Result<Ran> {
    let memory = |name| -> Result<std::fs::File> { Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC)?.into()) };
    let (stdout, stderr) = (memory(c"stdout")?, memory(c"stderr")?);
    let running = RunningWorkload::default();
    let (ended, ends) = mpsc::channel::<()>();
    let (used, status) = thread::scope(|scope| {
        let running = &running;
        scope.spawn(move || {
            if ends.recv_timeout(TIMEOUT) == Err(RecvTimeoutError::Timeout) {
                running.kill();
            }
        });
        let all = run_all(request, &stdout, &stderr, running);
        drop(ended);
        all
    })?;
    let read = |mut file: File| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let stderr = read(stderr)?;
    let stderr = String::from_utf8_lossy(&stderr);
    Ok(Ran {
        used,
        status: status.code(),
        signal: status.signal(),
        stdout: Sha256::of(&read(stdout)?).to_string(),
        stderr: stderr.lines().next_back().unwrap_or_default().to_owned(),
    })
}

fn run_all(
    request: &Request,
    stdout: &File,
    stderr: &File,
    running: &RunningWorkload,
) -> Result<(Used, ExitStatus)> {
    let mut all = Used::default();
    let mut last = ExitStatus::default();
    for _ in 0..request.times {
        let start = Instant::now();
        let output = (stdout.try_clone()?, stderr.try_clone()?);
        let child = exec::spawn_bare(&request.argv, &ENVIRONMENT, output, request.memory)?;
        let process = Pid::from_raw(child.id() as i32);
        running.set(Some(process));
        // Does not reap the process, so that its PID is not reused while the other thread may still kill it.
        let wait = waitid(Id::Pid(process), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        let wall = start.elapsed();
        running.set(None);
        wait?;
        let (used, status) = reap(process)?;
        all.wall += wall.as_micros() as u64;
        all.user += used.user;
        all.system += used.system;
        all.faults += used.faults;
        all.memory = all.memory.max(used.memory);
        last = status;
        if status.code() != Some(request.status) {
            break;
        }
    }
    Ok((all, last))
}

/// The process of the current run; `None` once it has ended.
#[derive(Default)]
struct RunningWorkload(Mutex<Option<Pid>>);

impl RunningWorkload {
    fn set(&self, process: Option<Pid>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = process;
    }

    fn kill(&self) {
        if let Some(process) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = killpg(process, Signal::SIGKILL);
        }
    }
}

/// The whole environment of every workload, without the caller's `QEMU_*` variables.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("PATH", "/usr/sbin:/usr/bin"),
    ("HOME", "/tmp"),
    ("TMPDIR", "/tmp"),
    ("LC_ALL", "C"),
    ("TZ", "UTC"),
    ("PYTHONHASHSEED", "0"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
];

#[expect(unsafe_code, reason = "only wait4 reports the resource usage of one child")]
fn reap(process: Pid) -> Result<(Used, ExitStatus)> {
    let mut status = 0;
    // SAFETY: all fields are integers, for which 0 is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live local variables of the types that the call writes.
    let waited = unsafe { libc::wait4(process.as_raw(), &raw mut status, 0, &raw mut usage) };
    Errno::result(waited)?;
    let microseconds = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    let used = Used {
        wall: 0,
        user: microseconds(usage.ru_utime),
        system: microseconds(usage.ru_stime),
        memory: usage.ru_maxrss as u64,
        faults: usage.ru_minflt as u64,
    };
    Ok((used, ExitStatus::from_raw(status)))
}
