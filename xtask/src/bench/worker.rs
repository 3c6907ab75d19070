//! The process that runs workloads: in a namespace whose only handler is that of the emulator under test, and in the
//! guest's root folder. It is there before the first measurement, so that neither namespace nor handler is part of any.
//!
//! It reads a request a line from its stdin and answers each with a line, both in JSON. What a workload writes goes to
//! memory and is read when the workload has ended: nobody wakes up for it meanwhile. A workload that does not end is
//! killed with its children.

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

/// A hundred times what a workload needs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Be the process in which a bench runs an emulator
#[derive(clap::Args)]
pub(crate) struct Args {
    arch: &'static Arch,
    emulator: PathBuf,
    root: PathBuf,
    /// What is seen as /bench in the root folder
    bench: PathBuf,
}

/// A line to a worker: run this so many times, one after another, as long as each ends with this status.
#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) argv: Vec<String>,
    pub(super) times: u32,
    pub(super) status: i32,
    /// Whether memory is what counts, and not time: a program's peak begins with that of whoever starts it, unless that
    /// forks.
    pub(super) memory: bool,
}

/// A line from a worker.
#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    /// It is in its namespace, and waits for somebody outside to map the users there and say so with an empty line.
    Unshared,
    /// It waits for requests.
    Ready,
    Ran(Ran),
    Failed(String),
}

/// What all the runs of a request took, and how the last one ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ran {
    pub(super) used: Used,
    pub(super) status: Option<i32>,
    pub(super) signal: Option<i32>,
    /// Hash of what all of them wrote to stdout.
    pub(super) stdout: String,
    /// The last line on stderr.
    pub(super) stderr: String,
}

impl Ran {
    /// How it ended, in words.
    pub(super) fn ending(&self) -> String {
        let ended = match (self.signal.map(Signal::try_from), self.status) {
            (Some(Ok(Signal::SIGKILL)), _) => format!("killed, or stopped after {} s", PATIENCE.as_secs()),
            (Some(Ok(signal)), _) => format!("killed by {signal}"),
            (_, Some(status)) => format!("exit status {status}"),
            _ => "it ended in no known way".to_owned(),
        };
        if self.stderr.is_empty() { ended } else { format!("{ended}: {}", self.stderr) }
    }
}

/// What a program and its children have used.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Used {
    /// In microseconds, as the next two.
    pub(super) wall: u64,
    pub(super) user: u64,
    pub(super) system: u64,
    /// The most memory that one process had, in KiB; see [`Request::memory`].
    pub(super) memory: u64,
    /// Page faults without a disk.
    pub(super) faults: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    enter(args)?;
    answer(&Answer::Ready)?;
    for line in io::stdin().lines() {
        let request: Request = serde_json::from_str(&line?).context("not a request")?;
        answer(&execute(&request).map_or_else(|error| Answer::Failed(format!("{error:#}")), Answer::Ran))?;
    }
    Ok(())
}

fn answer(answer: &Answer) -> Result<()> {
    out(&(serde_json::to_string(answer)? + "\n"))
}

fn enter(args: &Args) -> Result<()> {
    let mapped = || {
        answer(&Answer::Unshared).map_err(io::Error::other)?;
        match io::stdin().lock().read_line(&mut String::new())? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    };
    Caller::now().enter(mapped)?;
    let binfmt = Binfmt::at(MOUNT_POINT);
    for rule in handler::rules(args.arch, &args.emulator, [0; 4], Flags::DEFAULT) {
        binfmt.register(&rule)?;
    }
    let over = |from: &str, to: &Path, kind: Option<&str>, flags| {
        mount(Some(from), to, kind, flags, None::<&str>)
            .with_context(|| format!("cannot mount {from} on {}", to.display()))
    };
    let bench = args.bench.to_str().context("the cache has no such path")?;
    over(bench, &args.root.join("bench"), None, MsFlags::MS_BIND)?;
    // Without a disk in what is measured, and gone with this process.
    over("tmpfs", &args.root.join("tmp"), Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV)?;
    mount_shared(&args.root)?;
    enter_root(&args.root)?;
    chdir("/tmp").context("there is no /tmp")?;
    // For what spins when this process has ended before it.
    let seconds = PATIENCE.as_secs();
    setrlimit(Resource::RLIMIT_CPU, seconds, seconds).context("cannot limit the time of workloads")
}

fn execute(request: &Request) -> Result<Ran> {
    let memory = |name| -> Result<std::fs::File> { Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC)?.into()) };
    let (stdout, stderr) = (memory(c"stdout")?, memory(c"stderr")?);
    let running = Running::default();
    let (ended, ends) = mpsc::channel::<()>();
    let (used, status) = thread::scope(|scope| {
        let running = &running;
        scope.spawn(move || {
            if ends.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
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

fn run_all(request: &Request, stdout: &File, stderr: &File, running: &Running) -> Result<(Used, ExitStatus)> {
    let mut all = Used::default();
    let mut last = ExitStatus::default();
    for _ in 0..request.times {
        let start = Instant::now();
        let output = (stdout.try_clone()?, stderr.try_clone()?);
        let child = exec::spawn_bare(&request.argv, &ENVIRONMENT, output, request.memory)?;
        let process = Pid::from_raw(child.id() as i32);
        running.set(Some(process));
        // Not reaped yet, so that its number is nobody else's while the other thread may still kill it.
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

/// The process that runs now, if it has not been waited for.
#[derive(Default)]
struct Running(Mutex<Option<Pid>>);

impl Running {
    fn set(&self, process: Option<Pid>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = process;
    }

    fn kill(&self) {
        if let Some(process) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = killpg(process, Signal::SIGKILL);
        }
    }
}

/// What every workload finds in its environment, and nothing else: no `QEMU_*` variable of the caller.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("PATH", "/usr/sbin:/usr/bin"),
    ("HOME", "/tmp"),
    ("TMPDIR", "/tmp"),
    ("LC_ALL", "C"),
    ("TZ", "UTC"),
    ("PYTHONHASHSEED", "0"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
];

#[expect(unsafe_code, reason = "nothing but wait4 tells what one child has used")]
fn reap(process: Pid) -> Result<(Used, ExitStatus)> {
    let mut status = 0;
    // SAFETY: all of its fields are numbers, which may be 0.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to values that live here, of the types that the call writes.
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
