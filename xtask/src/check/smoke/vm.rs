//! Checks whole machines: a root filesystem of Debian and an image with two layers, on a machine of another architecture.

pub(crate) mod engine;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use fs_err as fs;
use nix::sys::signal::Signal;
use qemu_src::Guest;
use qus_core::digest::Sha256;
use serde_json::json;
use tempfile::TempDir;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, sh};
use crate::check::report::Report;
use crate::check::smoke::fixture::command_output::CommandOutput;
use crate::check::smoke::fixture::process::{BackgroundProcess, until};
use crate::debian::guests;

const LEVEL: &str = "vm";

/// The machine that the checks start.
const GUEST: &str = "arm64";

/// What the program prints to stdout.
const PRINTS: &str = "uname -m; sha256sum; stat -c '%a %u' / /tmp; id -u; pwd; echo $WORD; date +%Y";

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    let fixture = Fixture::new(cx)?;
    report.check(LEVEL, "directory: streams, exit status, user, environment", || fixture.directory())?;
    report.check(LEVEL, "image of two layers: whiteouts, entry point, devices", || fixture.image())?;
    report.check(LEVEL, "snapshot: ten machines at once, and one that is damaged", || fixture.snapshot())?;
    report.check(LEVEL, "network: to this machine, from it, port in use, none", || fixture.network())?;
    report.check(LEVEL, "volumes: read, written, read-only, missing", || fixture.volumes())?;
    report.check(LEVEL, "programs that cannot run, too little memory, time limits", || fixture.failures())?;
    report.check(LEVEL, "images that cannot be used", || fixture.unusable())?;
    report.check(LEVEL, "SIGKILL, SIGINT, closed pipe: no process and no file stays", || {
        fixture.interrupted()
    })?;
    engine::run(cx, report)
}

struct Fixture<'a> {
    cx: &'a Context,
    guest: &'a Guest,
    dir: TempDir,
    /// An image that all checks run.
    layout: String,
}

impl<'a> Fixture<'a> {
    fn new(cx: &'a Context) -> Result<Self> {
        let guest = cx.data.debian.guest(GUEST).context("debian.toml lacks a guest")?;
        let dir = tempfile::tempdir()?;
        let layout = dir.path().join("layout").to_str().context("a path is not UTF-8")?.to_owned();
        Ok(Self { cx, guest, dir, layout })
    }

    fn root(&self) -> Result<PathBuf> {
        guests::root(self.cx, self.guest, "container", &self.cx.data.debian.packages.container_rootfs)
    }

    /// The path of the image, which the first check that needs it writes.
    fn layout(&self) -> Result<&str> {
        if !Path::new(&self.layout).exists() {
            self.write_layout(Path::new(&self.layout))?;
        }
        Ok(&self.layout)
    }

    /// Runs `cargo xtask vm run` with this input.
    fn vm(&self, input: &str, args: &[&str]) -> Result<CommandOutput> {
        let xtask = std::env::current_exe()?;
        let script = format!("{input} | \"$0\" vm run \"$@\"");
        let ended = exec::output(cmd!(sh(), "sh -c {script} {xtask} {args...}"))?;
        Ok(CommandOutput::new(format!("vm run {}", args.join(" ")), ended))
    }

    fn directory(&self) -> Result<()> {
        let root = self.root()?;
        let root = root.to_str().context("the cache's path is not UTF-8")?;
        let script = format!("{PRINTS}; echo problem >&2; exit 7");
        let ended = self.vm(
            "seq 300000",
            &["--arch", GUEST, "--env", "WORD=a b", "--workdir", "/var/new", root, "bash", "-c", &script],
        )?;
        let input: String = (1..=300_000).map(|number| format!("{number}\n")).collect();
        let year = exec::read(cmd!(sh(), "date -u +%Y"))?;
        let expected = format!(
            "{}\n{}  -\n755 0\n1777 0\n0\n/var/new\na b\n{year}\n",
            self.guest.machine,
            Sha256::of(&input)
        );
        ended.ends(7, &expected, "problem\n")
    }

    fn image(&self) -> Result<()> {
        let layout = self.layout()?;
        self.vm(":", &[layout])?.ends(0, "second\n", "")?;
        let script = "test ! -e /etc/debian_version; echo $? $IMAGE; \
            echo to > /dev/stderr; tty; echo > /dev/full";
        let full = "to\nbash: line 1: echo: write error: No space left on device\n";
        self.vm(":", &[layout, "bash", "-c", script])?.ends(1, "0 of image\nnot a tty\n", full)?;
        let other = "id -u; id -g; echo to > /dev/stderr; echo it > /dev/stdout";
        let args = ["--user", "1000:100", layout, "bash", "-c", other];
        self.vm(":", &args)?.ends(0, "1000\n100\nit\n", "to\n")
    }

    /// Writes an OCI layout of two layers: Debian's root filesystem, and a few changes.
    fn write_layout(&self, layout: &Path) -> Result<()> {
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let put = |bytes: &[u8]| -> Result<Sha256> {
            let digest = Sha256::of(bytes);
            fs::write(blobs.join(digest.to_string()), bytes)?;
            Ok(digest)
        };
        let mut lower = tar::Builder::new(Vec::new());
        lower.follow_symlinks(false);
        lower.append_dir_all(".", self.root()?)?;
        let mut upper = tar::Builder::new(Vec::new());
        let busybox = fs::read(guests::program(self.cx, self.guest, "busybox")?)?;
        for (path, bytes) in
            [("layer", &b"second\n"[..]), ("etc/.wh.debian_version", b""), ("busybox", &busybox)]
        {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o755);
            upper.append_data(&mut header, path, bytes)?;
        }
        let (lower, upper) = (lower.into_inner()?, upper.into_inner()?);
        let ids = [Sha256::of(&lower), Sha256::of(&upper)].map(|digest| format!("sha256:{digest}"));
        let layers = [zstd::encode_all(&*lower, 1)?, upper];
        let (os, variant) = ("linux", "v8");
        let config = json!({
            "architecture": GUEST, "variant": variant, "os": os,
            "config": { "Cmd": ["cat", "/layer"], "Env": ["IMAGE=of image"] },
            "rootfs": { "type": "layers", "diff_ids": ids },
        });
        let descriptor = |kind: &str, bytes: &[u8]| -> Result<_> {
            let digest = put(bytes)?;
            let media = format!("application/vnd.oci.image.{kind}");
            Ok(json!({ "mediaType": media, "digest": format!("sha256:{digest}"), "size": bytes.len() }))
        };
        let manifest = json!({
            "schemaVersion": 2,
            "config": descriptor("config.v1+json", config.to_string().as_bytes())?,
            "layers": [descriptor("layer.v1.tar+zstd", &layers[0])?, descriptor("layer.v1.tar", &layers[1])?],
        });
        let index = json!({
            "schemaVersion": 2,
            "manifests": [descriptor("manifest.v1+json", manifest.to_string().as_bytes())?],
        });
        fs::write(layout.join("index.json"), index.to_string())?;
        Ok(fs::write(layout.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}")?)
    }

    /// Machines of one snapshot have the right time, and random numbers of their own.
    fn snapshot(&self) -> Result<()> {
        let layout = self.layout()?;
        let numbers = "head -c 16 /dev/urandom | sha256sum; cat /proc/sys/kernel/random/boot_id; date +%s";
        let seconds = || Ok::<u64, anyhow::Error>(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
        let run = || -> Result<Vec<String>> {
            let start = seconds()?;
            let ended = self.vm(":", &[layout, "bash", "-c", numbers])?;
            let mut lines: Vec<_> = ended.stdout.lines().map(str::to_owned).collect();
            let time: u64 = lines.pop().context("the program printed nothing")?.parse()?;
            ensure!((start..=seconds()?).contains(&time), "the machine's time is {time}, at {start}");
            Ok(lines)
        };
        // The first one may make the snapshot.
        let mut found: BTreeSet<String> = run()?.into_iter().collect();
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..10).map(|_| scope.spawn(run)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked")))
                .collect()
        });
        for result in results {
            found.extend(result??);
        }
        ensure!(found.len() == 22, "eleven machines have {} different numbers instead of 22", found.len());
        // The snapshot of a size that nobody uses.
        let before = self.snapshots()?;
        let run = || self.vm(":", &["--memory", "517", layout, "bash", "-c", "exit 3"]);
        run()?.ends(3, "", "")?;
        let all = self.snapshots()?;
        let made: Vec<_> = all.difference(&before).collect();
        let [made] = &made[..] else { bail!("{} snapshots were made instead of one", made.len()) };
        let memory = fs::OpenOptions::new().write(true).open(made.join("memory"))?;
        memory.file().write_all_at(b"damaged", 1 << 20)?;
        let ended = run();
        fs::remove_dir_all(made)?;
        ended?.exits(3, &["cached file does not match its checksum"])
    }

    fn snapshots(&self) -> Result<BTreeSet<PathBuf>> {
        let entries = fs::read_dir(self.cx.paths.cache().join("machines"))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<BTreeSet<_>>>()?;
        paths.retain(|path| path.is_dir() && path.join("memory").exists());
        Ok(paths)
    }

    fn network(&self) -> Result<()> {
        let (layout, xtask) = (self.layout()?, std::env::current_exe()?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let server = thread::spawn(move || -> Result<String> {
            let (mut connection, _) = listener.accept()?;
            let mut line = String::new();
            BufReader::new(connection.try_clone()?).read_line(&mut line)?;
            connection.write_all(b"answer\n")?;
            Ok(line)
        });
        let script =
            format!("exec 3<>/dev/tcp/10.0.2.2/{port}; echo question >&3; cat <&3; cat /etc/hostname");
        self.vm(":", &[layout, "bash", "-c", &script])?.ends(0, "answer\narm64v8\n", "")?;
        let line = server.join().map_err(|_| anyhow!("a thread panicked"))??;
        ensure!(line == "question\n", "the machine has sent {line:?}");

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let publish = format!("{port}:80");
        let ended = self.vm(":", &["--publish", &publish, layout, "true"])?;
        ended.exits(125, &["Could not set up host forwarding rule"])?;
        drop(listener);
        let run = cmd!(sh(), "{xtask} vm run --publish {publish} {layout}").args([
            "bash",
            "-c",
            "/busybox nc -l -p 80 < /layer",
        ]);
        let process = BackgroundProcess::start(self.dir.path().join("stderr"), run)?;
        let mut received = String::new();
        until("the program answers", || {
            // Connections that are too early are closed without data.
            let connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
            let _ = connection.and_then(|mut connection| connection.read_to_string(&mut received));
            Ok(!received.is_empty())
        })?;
        ensure!(received == "second\n", "the program has sent {received:?}");
        drop(process);

        let none = self.vm(":", &["--network", "none", layout, "bash", "-c", "ls /sys/class/net; exit 4"])?;
        none.ends(4, "lo\n", "")?;
        let both = self.vm(":", &["--network", "none", "--publish", "1:1", layout, "true"])?;
        both.exits(2, &["--publish needs a network"])
    }

    fn volumes(&self) -> Result<()> {
        let (layout, dir) = (self.layout()?, tempfile::tempdir()?);
        let shared = dir.path().to_str().context("a path is not UTF-8")?;
        fs::write(dir.path().join("given"), "from here\n")?;
        let (volume, fixed) = (format!("{shared}:/work"), format!("{shared}:/fixed:ro"));
        let script =
            "cat given; echo back > made; chmod 640 made; ln -s given link; touch /fixed/none || exit 9";
        let args = ["--volume", &volume, "--volume", &fixed, "--workdir", "/work", layout];
        let ended = self.vm(":", &[&args[..], &["bash", "-c", script]].concat())?;
        ended.ends(9, "from here\n", "touch: cannot touch '/fixed/none': Read-only file system\n")?;
        ensure!(fs::read_to_string(dir.path().join("made"))? == "back\n", "the file has other contents");
        let mode = fs::metadata(dir.path().join("made"))?.permissions().mode() & 0o777;
        ensure!(mode == 0o640, "the file has the mode {mode:o}");
        ensure!(fs::read_link(dir.path().join("link"))? == Path::new("given"), "the link has another target");
        let missing = format!("{shared}/none:/work");
        let ended = self.vm(":", &["--volume", &missing, layout, "true"])?;
        ended.exits(125, &["is no directory"])
    }

    fn failures(&self) -> Result<()> {
        let layout = self.layout()?;
        for (options, program, status, expected) in [
            (
                &[][..],
                &["/no/such/program"][..],
                127,
                "cannot run /no/such/program: No such file or directory",
            ),
            (&[], &["/etc/issue"], 126, "cannot run /etc/issue: Permission denied"),
            (&["--user", "nobody-there"], &["true"], 125, "the image has no user nobody-there"),
            (&["--memory", "64"], &["true"], 125, "the kernel"),
            (&["--timeout", "1"], &["sleep", "60"], 125, "the program has not ended within 1 s"),
            (
                &["--boot-timeout", "1", "--cpus", "2"],
                &["true"],
                125,
                "the machine has not started within 1 s",
            ),
        ] {
            let ended = self.vm(":", &[options, &[layout], program].concat())?;
            ended.exits(status, &[expected])?;
        }
        // 37 is the signal with which engines stop systemd.
        for (signal, status) in [("TERM", 128 + 15), ("37", 128 + 37)] {
            self.vm(":", &[layout, "bash", "-c", &format!("kill -{signal} $$")])?.ends(status, "", "")?;
        }
        Ok(())
    }

    fn unusable(&self) -> Result<()> {
        let dir = tempfile::tempdir()?;
        let (layout, damaged, none) =
            (dir.path().join("layout"), dir.path().join("damaged.tar"), "/no/such/image");
        self.write_layout(&layout)?;
        fs::write(&damaged, "no archive\n".repeat(100))?;
        let root = self.root()?;
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path is not UTF-8");
        let (layout, damaged, root) = (text(&layout)?, text(&damaged)?, text(&root)?);
        for (args, status, expected) in [
            (
                &["--arch", "s390x", &*layout][..],
                125,
                "the layout has no image for this platform; it has arm64/v8",
            ),
            (&[&*root], 125, "does not say for which architecture it is"),
            (&["--arch", "loong64", &*root], 125, "there is no machine for loong64"),
            (&["--arch", "vax", &*root], 2, "unknown host `vax`"),
            (&["--arch", GUEST, &*damaged], 125, "is neither a tar archive nor a known kind of disk"),
            (&["--arch", GUEST, none], 125, "/no/such/image does not exist"),
            (&["--env", "WORD", &*layout], 2, "it has no name and value"),
        ] {
            self.vm(":", args)?.exits(status, &[expected])?;
        }
        // The layers may be in the cache, the manifest is read each time.
        let index = fs::read_to_string(Path::new(&layout).join("index.json"))?;
        let manifest = index
            .split("sha256:")
            .nth(1)
            .and_then(|rest| rest.get(..64))
            .context("the index has no manifest")?;
        let manifest = Path::new(&layout).join("blobs/sha256").join(manifest);
        fs::write(&manifest, fs::read_to_string(&manifest)?.replace("config.v1", "config.v2"))?;
        self.vm(":", &[&layout])?.exits(125, &["does not match its digest"])
    }

    fn interrupted(&self) -> Result<()> {
        let (layout, dir) = (self.layout()?, tempfile::tempdir()?);
        let xtask = std::env::current_exe()?;
        for (signal, status) in
            [(Signal::SIGKILL, None), (Signal::SIGINT, Some(130)), (Signal::SIGTERM, Some(130))]
        {
            let volume = format!("{layout}:/volume");
            let run = cmd!(sh(), "{xtask} vm run --volume {volume} {layout} bash -c")
                .args(["echo started >&2; sleep 600"]);
            let mut process =
                BackgroundProcess::start(dir.path().join("stderr"), run.env("TMPDIR", dir.path()))?;
            process.wait_for_output("started")?;
            let programs = children(process.child.id())?;
            ensure!(programs.len() == 2, "xtask has {} child processes", programs.len());
            process.signal(signal)?;
            let ended = process.child.wait()?;
            ensure!(ended.code() == status, "{ended} after {signal}");
            for program in programs {
                let proc = Path::new("/proc").join(program);
                until("QEMU and virtiofsd end", || Ok(!proc.exists()))?;
            }
        }
        let names: Vec<_> =
            fs::read_dir(dir.path())?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
        ensure!(names == ["stderr"], "temporary files stay: {names:?}");
        let script = format!("{} vm run {layout} yes | head -n 1", xtask.display());
        let ended = exec::output(cmd!(sh(), "timeout 60 bash -o pipefail -c {script}"))?;
        CommandOutput::new(script, ended).ends(128 + 13, "y\n", "")
    }
}

/// The process IDs of the children of a process.
fn children(process: u32) -> Result<Vec<String>> {
    let mut text = String::new();
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        text += &fs::read_to_string(thread?.path().join("children"))?;
    }
    Ok(text.split_whitespace().map(str::to_owned).collect())
}
