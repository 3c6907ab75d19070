//! A throwaway engine with a registry beside it, for machines on which no Docker answers.
//!
//! It lives in one folder and in namespaces of its own, so that nothing of it is left when it is stopped,
//! however that happens: its processes and mounts go with process 1 of the namespaces, which goes with
//! whoever started it. What no namespace holds (a network bridge, control groups, the folder) is
//! removed when it is stopped, or before the next start where it was killed. It does not touch the network
//! but for that bridge: its containers reach the machine and each other, and nothing outside.

use std::fs::Permissions;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use fs_err::{self as fs, File};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, sh};
use crate::base::settings::Settings;
use crate::base::{files, lock};
use crate::engine::client::Client;
use crate::engine::place::{EngineState, Place};
use crate::engine::programs::Programs;

/// How long it may take to start, and its processes to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest path of a Unix socket, in bytes, and the longest that containerd makes below the folder.
const SOCKET: (usize, usize) = (107, "/exec/containerd/containerd.sock.ttrpc".len());

/// What may differ from one throwaway engine to the next.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Whether images are kept by containerd, as new installations of Docker do.
    pub(crate) containerd_store: bool,
    /// Further settings of `daemon.json`.
    pub(crate) daemon: serde_json::Value,
    /// Further files of `/etc`: name and text.
    pub(crate) etc: Vec<(&'static str, String)>,
    /// Whether it goes on when this process ends.
    pub(crate) detached: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { containerd_store: true, daemon: json!({}), etc: Vec::new(), detached: false }
    }
}

/// A throwaway engine; one that this process has started is stopped and removed when dropped.
#[derive(Debug)]
pub(crate) struct Throwaway {
    place: Place,
    state: EngineState,
    /// The process that all others end with, if it is a child of ours that ends with us.
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
    /// The engine that runs in this folder; `None` if none does.
    pub(crate) fn running(dir: &Path) -> Option<Self> {
        let place = Place::at(dir);
        let file = File::open(place.lock()).ok()?.into_file();
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => None,
            Err(_) => Some(Self { state: EngineState::read(&place)?, place, child: None, removed: false }),
        }
    }

    /// Starts one in this folder, or takes the one that runs there. Whatever one that was killed has left is
    /// removed first.
    ///
    /// # Errors
    /// This is not root, the programs cannot be had, or the engine does not come up; its own last words are
    /// in the message.
    pub(crate) fn start(cx: &Context, dir: &Path, options: &Options) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "a throwaway engine can be started by root only");
        let length = dir.as_os_str().len();
        ensure!(
            length + SOCKET.1 <= SOCKET.0,
            "{} is too long a path for an engine's sockets: set CARGO_TARGET_DIR to a shorter one",
            dir.display()
        );
        let _starting = lock::lock(dir.parent().context("an engine has a folder of its own")?)?;
        if let Some(running) = Self::running(dir) {
            return Ok(running);
        }
        let programs = Programs::ensure(cx)?;
        let place = Place::at(dir);
        sweep(&place, &programs)?;
        let state = EngineState { programs: programs.dir().to_owned(), port: free_port()?, process: None };
        for folder in [dir.to_owned(), place.memory(), place.etc(), place.client()] {
            fs::create_dir_all(&folder)?;
        }
        // The client's configuration may hold passwords.
        fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        state.write(&place)?;
        for (name, text) in &options.etc {
            files::write(&place.etc().join(name), text.as_bytes())?;
        }
        write_configs(&cx.settings, &place, &programs, state.port, options)?;
        let bridge = place.mark();
        let busybox = programs.busybox();
        exec::read(cmd!(sh(), "{busybox} brctl addbr {bridge}")).context("cannot make a network bridge")?;
        let child = spawn(&place, options.detached)?;
        let mut this = Self { place, state, child: Some(child), removed: false };
        let started = this.wait_until_it_answers();
        if let Err(error) = started {
            this.remove()?;
            return Err(error);
        }
        this.state.process = this.child.as_ref().map(Child::id);
        this.state.write(&this.place)?;
        if options.detached {
            this.child = None;
        }
        Ok(this)
    }

    /// A client that speaks with it.
    pub(crate) fn client(&self) -> Client {
        let programs = Programs::at(&self.state.programs);
        let host = format!("unix://{}", self.place.socket().display());
        let config = self.place.client();
        Client {
            program: programs.docker().into(),
            env: vec![
                ("BUILDX_CONFIG", config.join("buildx").into()),
                ("DOCKER_CONFIG", config.into()),
                ("DOCKER_HOST", host.into()),
            ],
        }
    }

    /// Name and port of its registry.
    pub(crate) fn registry(&self) -> String {
        format!("localhost:{}", self.state.port)
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.place.0
    }

    /// Its static busybox, which runs on this machine.
    pub(crate) fn busybox(&self) -> PathBuf {
        Programs::at(&self.state.programs).busybox()
    }

    /// A program of its packages, by its path there.
    pub(crate) fn program(&self, path: &str) -> PathBuf {
        self.state.programs.join(path)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let client = self.client();
        let registry = format!("127.0.0.1:{}", self.state.port);
        let start = Instant::now();
        loop {
            let answers = exec::read(client.cmd(&["version", "--format", "{{.Server.Version}}"]));
            if answers.is_ok() && std::net::TcpStream::connect(&registry).is_ok() {
                return Ok(());
            }
            let ended = self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || start.elapsed() > PATIENCE {
                let last = |log: PathBuf| {
                    let text = fs::read_to_string(&log).unwrap_or_default();
                    let lines: Vec<_> = text.lines().collect();
                    lines[lines.len().saturating_sub(5)..].join("\n    ")
                };
                let [engine, registry, held] =
                    [self.place.engine_log(), self.place.registry_log(), self.place.0.join("serve.log")]
                        .map(last);
                bail!("the throwaway engine does not come up:\n    {engine}\n    {registry}\n    {held}");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops it and removes all that is left of it.
    pub(crate) fn remove(&mut self) -> Result<()> {
        self.removed = true;
        let process = self.child.as_ref().map(Child::id).or(self.state.process);
        if let Some(process) = process {
            // Gone by itself is as good.
            let _ = kill(Pid::from_raw(process.try_into()?), Signal::SIGKILL);
        }
        if let Some(child) = &mut self.child {
            child.wait()?;
        }
        let start = Instant::now();
        while Self::running(self.dir()).is_some() {
            ensure!(start.elapsed() < PATIENCE, "the engine in {} does not end", self.dir().display());
            thread::sleep(Duration::from_millis(20));
        }
        sweep(&self.place, &Programs::at(&self.state.programs))
    }
}

/// Starts the process that holds the engine together, in namespaces of its own.
fn spawn(place: &Place, detached: bool) -> Result<Child> {
    let (xtask, dir) = (std::env::current_exe()?, &place.0);
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
    place: &Place,
    programs: &Programs,
    port: u16,
    options: &Options,
) -> Result<()> {
    let dir = |name: &str| place.0.join(name);
    let mut daemon = json!({
        "features": { "containerd-snapshotter": options.containerd_store },
        "hosts": [format!("unix://{}", place.socket().display())],
        "data-root": dir("data"),
        "exec-root": dir("exec"),
        "pidfile": dir("docker.pid"),
        "bridge": place.mark(),
        "cgroup-parent": format!("/{}", place.mark()),
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
    let mut client = credentials(settings);
    client.insert("cliPluginsExtraDirs".to_owned(), json!([programs.plugins()]));
    for (path, content) in [
        (place.daemon_config(), daemon),
        (place.registry_config(), registry),
        (place.client().join("config.json"), client.into()),
    ] {
        files::write(&path, &serde_json::to_vec_pretty(&content)?)?;
    }
    Ok(())
}

/// What your docker client knows of registries, so that the throwaway one may push where you may.
fn credentials(settings: &Settings) -> serde_json::Map<String, serde_json::Value> {
    let dir = settings.docker_config();
    let text = dir.and_then(|dir| fs::read(dir.join("config.json")).ok());
    let mut config: serde_json::Map<_, _> =
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    config.retain(|name, _| ["auths", "credHelpers", "credsStore"].contains(&&**name));
    config
}

/// Removes what an engine that was killed has left in this folder and around it.
pub(super) fn remove_leftovers(dir: &Path) -> Result<()> {
    let place = Place::at(dir);
    match EngineState::read(&place) {
        Some(state) => sweep(&place, &Programs::at(&state.programs)),
        None => files::remove(dir),
    }
}

/// Removes what an engine leaves that does not run any more.
fn sweep(place: &Place, programs: &Programs) -> Result<()> {
    let mark = place.mark();
    if Path::new("/sys/class/net").join(&mark).exists() {
        let busybox = programs.busybox();
        exec::read(cmd!(sh(), "{busybox} ifconfig {mark} down"))?;
        exec::read(cmd!(sh(), "{busybox} brctl delbr {mark}")).context("cannot remove the network bridge")?;
    }
    // One hierarchy, or one for each controller.
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        remove_group(&hierarchy.join(&mark))?;
    }
    files::remove(&place.0)
}

/// Removes a control group and those below it. Their processes may take a moment to be gone.
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
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && start.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(20));
            }
            removed => return removed.with_context(|| format!("cannot remove {}", group.display())),
        }
    }
}

/// A port of the loopback interface that nobody uses now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot use the loopback interface")?;
    Ok(listener.local_addr()?.port())
}
