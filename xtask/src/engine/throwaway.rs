//! A throwaway container engine with a registry, for machines without a running Docker.
//!
//! The engine uses one directory and its own namespaces, so that nothing remains when it stops for any reason. Its
//! processes and mounts end with process 1 of the namespaces, which ends with the process that started it. Resources
//! outside of namespaces (a network bridge, control groups, the directory) are removed when the engine is stopped, or,
//! if it was killed, before the next start. Apart from the bridge, the network configuration is not changed: containers
//! reach the machine and each other, but no other network.

use std::fs::Permissions;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use fs_err::{self as fs, File};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, sh};
use crate::base::progress::Bar;
use crate::base::settings::Settings;
use crate::base::{files, lock};
use crate::engine::client::Client;
use crate::engine::engine_dir::{EngineDir, EngineState};
use crate::engine::programs::Programs;

/// The timeout for the start and for the end of processes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The maximum length of a Unix socket's path in bytes, and the longest path that containerd creates below the
/// directory.
const SOCKET: (usize, usize) = (107, "/exec/containerd/containerd.sock.ttrpc".len());

/// Options of a throwaway engine.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Whether to use the containerd image store, the default of new Docker installations.
    pub(crate) containerd_store: bool,
    /// Additional settings of `daemon.json`.
    pub(crate) daemon: serde_json::Value,
    /// Additional files in `/etc`: name and text.
    pub(crate) etc: Vec<(&'static str, String)>,
    /// Whether the engine keeps running when this process ends.
    pub(crate) detached: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { containerd_store: true, daemon: json!({}), etc: Vec::new(), detached: false }
    }
}

/// A throwaway engine. If this process has started it, it is stopped and removed when dropped.
#[derive(Debug)]
pub(crate) struct Throwaway {
    engine_dir: EngineDir,
    state: EngineState,
    /// Process 1 of the engine's namespaces, if it is a child that ends with this process.
    child: Option<Child>,
    removed: bool,
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        if self.child.is_some() && !self.removed {
            let _ = self.remove();
        }
    }
}

impl Throwaway {
    /// The running engine of this directory; `None` if there is none.
    pub(crate) fn running(dir: &Path) -> Option<Self> {
        let engine_dir = EngineDir::new(dir);
        if !engine_dir.is_locked() {
            return None;
        }
        Some(Self { state: EngineState::read(&engine_dir)?, engine_dir, child: None, removed: false })
    }

    /// Starts an engine in this directory, or uses the one that is running there. Leftovers of a killed engine are
    /// removed first.
    ///
    /// # Errors
    /// The user is not root, the programs cannot be fetched, or the engine does not start; the message contains the end
    /// of its logs.
    pub(crate) fn start(cx: &Context, dir: &Path, options: &Options) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "a throwaway engine requires root");
        let length = dir.as_os_str().len();
        ensure!(
            length + SOCKET.1 <= SOCKET.0,
            "the path {} is too long for the engine's sockets; set CARGO_TARGET_DIR to a shorter path",
            dir.display()
        );
        let _lock = lock::lock(dir.parent().context("the engine's directory has no parent directory")?)?;
        if let Some(running) = Self::running(dir) {
            return Ok(running);
        }
        let programs = Programs::ensure(cx)?;
        let engine_dir = EngineDir::new(dir);
        remove_resources(&engine_dir, &programs)?;
        let state = EngineState { programs: programs.dir().to_owned(), port: free_port()?, process: None };
        for dir in [dir.to_owned(), engine_dir.memory(), engine_dir.etc()] {
            fs::create_dir_all(&dir)?;
        }
        // The client's configuration may contain passwords.
        fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        state.write(&engine_dir)?;
        for (name, text) in &options.etc {
            files::write(&engine_dir.etc().join(name), text.as_bytes())?;
        }
        write_configs(&cx.settings, &engine_dir, &programs, state.port, options)?;
        let bridge = engine_dir.id();
        let busybox = programs.busybox();
        exec::read(cmd!(sh(), "{busybox} brctl addbr {bridge}")).context("cannot create a network bridge")?;
        let _bar = Bar::new("starting a throwaway engine");
        let child = spawn(&engine_dir, options.detached)?;
        let mut this = Self { engine_dir, state, child: Some(child), removed: false };
        if let Err(error) = this.wait_until_ready() {
            return Err(match this.remove() {
                Ok(()) => error,
                Err(remains) => error.context(format!("cannot remove the engine that failed: {remains:#}")),
            });
        }
        this.state.process = this.child.as_ref().map(Child::id);
        this.state.write(&this.engine_dir)?;
        if options.detached {
            this.child = None;
        }
        Ok(this)
    }

    /// A client for this engine.
    pub(crate) fn client(&self) -> Client {
        Programs::at(&self.state.programs).client(&self.engine_dir.socket(), &self.engine_dir.client())
    }

    /// Name and port of the registry.
    pub(crate) fn registry(&self) -> String {
        format!("localhost:{}", self.state.port)
    }

    /// The engine's directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.engine_dir.0
    }

    /// The static busybox of its packages.
    pub(crate) fn busybox(&self) -> PathBuf {
        Programs::at(&self.state.programs).busybox()
    }

    /// The path of a program of its packages.
    pub(crate) fn program(&self, path: &str) -> PathBuf {
        self.state.programs.join(path)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let client = self.client();
        let registry = format!("127.0.0.1:{}", self.state.port);
        let start = Instant::now();
        loop {
            if client.check_engine().is_ok() && TcpStream::connect(&registry).is_ok() {
                return Ok(());
            }
            let ended = self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || start.elapsed() > TIMEOUT {
                let logs = [
                    self.engine_dir.engine_log(),
                    self.engine_dir.registry_log(),
                    self.engine_dir.0.join("serve.log"),
                ];
                let last = |log: PathBuf| {
                    let text = fs::read_to_string(&log).unwrap_or_default();
                    let lines: Vec<_> = text.lines().rev().take(5).collect();
                    lines.iter().rev().map(|line| format!("\n    {line}")).collect::<String>()
                };
                bail!("the throwaway engine does not start:{}", logs.map(last).concat());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the engine, and removes its directory and other resources.
    pub(crate) fn remove(&mut self) -> Result<()> {
        self.removed = true;
        let process = self.child.as_ref().map(Child::id).or(self.state.process);
        if let Some(process) = process {
            // The process may have ended already.
            let _ = kill(Pid::from_raw(process.try_into()?), Signal::SIGKILL);
        }
        if let Some(child) = &mut self.child {
            child.wait()?;
        }
        let start = Instant::now();
        while Self::running(self.dir()).is_some() {
            ensure!(start.elapsed() < TIMEOUT, "the engine in {} does not stop", self.dir().display());
            thread::sleep(Duration::from_millis(20));
        }
        remove_resources(&self.engine_dir, &Programs::at(&self.state.programs))
    }
}

/// Starts process 1 of the engine in new namespaces.
fn spawn(engine_dir: &EngineDir, detached: bool) -> Result<Child> {
    let (xtask, dir) = (std::env::current_exe()?, &engine_dir.0);
    let log = dir.join("serve.log");
    let log = File::create(&log)?;
    let serve = cmd!(
        sh(),
        "unshare --mount --propagation private --pid --fork --kill-child {xtask} engine serve {dir}"
    );
    if detached { exec::spawn_detached(serve, log) } else { exec::spawn_tied(serve, log) }
}

fn write_configs(
    settings: &Settings,
    engine_dir: &EngineDir,
    programs: &Programs,
    port: u16,
    options: &Options,
) -> Result<()> {
    let dir = |name: &str| engine_dir.0.join(name);
    let mut daemon = json!({
        "features": { "containerd-snapshotter": options.containerd_store },
        "hosts": [format!("unix://{}", engine_dir.socket().display())],
        "data-root": dir("data"),
        "exec-root": dir("exec"),
        "pidfile": dir("docker.pid"),
        "bridge": engine_dir.id(),
        "cgroup-parent": format!("/{}", engine_dir.id()),
        "iptables": false,
        "ip6tables": false,
        "ip-forward": false,
        "ip-masq": false,
        "userland-proxy": false,
    });
    if let (Some(daemon), Some(more)) = (daemon.as_object_mut(), options.daemon.as_object()) {
        daemon.extend(more.clone());
    }
    let registry = json!({
        "version": 0.1,
        "log": { "level": "warn" },
        "storage": { "filesystem": { "rootdirectory": dir("registry") } },
        "http": { "addr": format!("127.0.0.1:{port}") },
    });
    for (path, content) in [(engine_dir.daemon_config(), daemon), (engine_dir.registry_config(), registry)] {
        files::write(&path, &serde_json::to_vec_pretty(&content)?)?;
    }
    programs.write_client_config(settings, &engine_dir.client())
}

/// Removes the leftovers of a killed engine: its directory and other resources.
pub(super) fn remove_leftovers(dir: &Path) -> Result<()> {
    let engine_dir = EngineDir::new(dir);
    match EngineState::read(&engine_dir) {
        Some(state) => remove_resources(&engine_dir, &Programs::at(&state.programs)),
        None => files::remove_dir(dir),
    }
}

/// Removes the resources of an engine that is not running.
fn remove_resources(engine_dir: &EngineDir, programs: &Programs) -> Result<()> {
    let id = engine_dir.id();
    if Path::new("/sys/class/net").join(&id).exists() {
        let busybox = programs.busybox();
        exec::read(cmd!(sh(), "{busybox} ifconfig {id} down"))?;
        exec::read(cmd!(sh(), "{busybox} brctl delbr {id}")).context("cannot remove the network bridge")?;
    }
    // cgroup v2 has one hierarchy, v1 one for each controller.
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        remove_group(&hierarchy.join(&id))?;
    }
    files::remove_dir(&engine_dir.0)
}

/// Removes a control group and its children, and waits until their processes have ended.
fn remove_group(group: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(group) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    let start = Instant::now();
    loop {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && start.elapsed() < TIMEOUT => {
                thread::sleep(Duration::from_millis(20));
            }
            removed => return removed.with_context(|| format!("cannot remove {}", group.display())),
        }
    }
}

/// An unused port of the loopback interface.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot use the loopback interface")?;
    Ok(listener.local_addr()?.port())
}
