//! Checks builds that fail or are interrupted, with the real program, the real compiler and real kernel limits.
//!
//! No build completes: only the messages of a failure and what it leaves behind are checked.

mod cached;
mod packages;
mod servers;
mod terminal;

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;
use nix::sys::signal::Signal;
use qemu_src::Release;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::exec::{self, is_installed, sh};
use crate::check::report::Report;
use crate::check::smoke::fixture::build::{BuildFixture, LEVEL};
use crate::check::smoke::fixture::process::{Tmpfs, wait};
use crate::qemu::download;

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    let fixture = BuildFixture::new(cx)?;
    let interrupted = "compiler fails, SIGKILL, second instance, Ctrl-C: resumed each time";
    report.check(LEVEL, interrupted, || fixture.interrupted())?;
    cached::run(&fixture, report)?;
    packages::run(&fixture, report)?;
    servers::run(&fixture, report)?;
    terminal::run(&fixture, report)?;
    report.check(LEVEL, "read-only cache", || fixture.read_only_cache())?;
    report.check(LEVEL, "full cache", || fixture.full_cache())?;
    report.check(LEVEL, "no network", || fixture.no_network())?;
    report.check(LEVEL, "download interrupted, then resumed; file not found", || fixture.download())
}

impl BuildFixture<'_> {
    fn interrupted(&self) -> Result<()> {
        // A compiler that fails at the first file of a target while a marker file exists.
        let (cc, marker) = (self.path("cc"), self.path("cc-fails"));
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *-linux-user.a.p/*) test -e {} && echo fails on purpose >&2 && exit 1;; esac\nexec cc \"$@\"\n",
            marker.display()
        );
        fs::write(&cc, script)?;
        fs::set_permissions(&cc, Permissions::from_mode(0o755))?;
        let build = || Ok::<_, anyhow::Error>(self.build_qemu()?.env("CC", &cc));

        fs::write(&marker, "")?;
        let output = self.exits(build()?)?;
        for expected in ["ninja failed (exit status: 1); the end of", "logs/ninja.log", "fails on purpose"] {
            ensure!(output.contains(expected), "`{expected}` is not in: {output}");
        }
        let all = self.steps()?;
        fs::remove_file(&marker)?;

        let mut first = self.start("first", build()?)?;
        first.wait_for_output("building qemu-hexagon")?;
        wait("ninja resumes", || Ok(self.steps().is_ok_and(|steps| steps < all)))?;
        let mut second = self.start("second", build()?)?;
        second.wait_for_output(&format!("waiting for another cargo xtask (process {})", first.child.id()))?;
        first.signal(Signal::SIGKILL)?;
        first.child.wait()?;
        second.wait_for_output("building qemu-hexagon")?;

        second.signal(Signal::SIGINT)?;
        let status = second.child.wait()?;
        ensure!(status.code() == Some(130), "{status} after SIGINT instead of exit status 130");
        second.wait_for_output("run the same command again to resume")?;
        self.wait_for_compilers()?;
        let emulators = self.path("cache/qus/emulators");
        ensure!(!emulators.exists(), "an unfinished emulator is in the cache");
        Ok(())
    }

    fn read_only_cache(&self) -> Result<()> {
        let mounted = Tmpfs::mount(&self.path("cache-read-only"), "ro")?;
        let output = self.exits(self.build_qemu()?.env("XDG_CACHE_HOME", &mounted.dir))?;
        for expected in ["Read-only file system", "set XDG_CACHE_HOME"] {
            ensure!(output.contains(expected), "`{expected}` is not in: {output}");
        }
        Ok(())
    }

    /// Finds the source in the real cache, so that no network is needed.
    fn archive(&self) -> Result<PathBuf> {
        let archives = fs::read_dir(self.cx.paths.cache().join("downloads"))?;
        let archives = archives.filter_map(|entry| fs::read_dir(entry.ok()?.path()).ok()).flatten();
        archives
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| self.release.pins().any(|pin| path.ends_with(pin.file)))
            .context("the cache has no source of the default release")
    }

    fn full_cache(&self) -> Result<()> {
        let mounted = Tmpfs::mount(&self.path("cache-full"), "size=4m")?;
        let build = self.build_qemu()?;
        let archive = self.archive()?;
        let output = self.exits(build.arg("--source").arg(&archive).env("XDG_CACHE_HOME", &mounted.dir))?;
        ensure!(output.contains("No space left on device"), "unexpected message: {output}");
        let name = archive.file_name().unwrap_or_default();
        let downloads = fs::read_dir(mounted.dir.join("qus/downloads"))?.filter_map(Result::ok);
        ensure!(
            !downloads.into_iter().any(|entry| entry.path().join(name).exists()),
            "an incomplete archive has its final name"
        );
        Ok(())
    }

    /// Downloads from a server that closes the first connection halfway.
    fn download(&self) -> Result<()> {
        if !is_installed("curl") {
            bail!(Skip("curl is not installed".to_owned()));
        }
        let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let server = TcpListener::bind("127.0.0.1:0")?;
        let base = format!("http://{}", server.local_addr()?);
        let served = content.clone();
        thread::spawn(move || serve(&server, &served));
        let (partial, log) = (self.path("content.partial"), self.path("download.log"));
        let interrupted = download::resume(&format!("{base}/content"), None, &partial, &log);
        let received = fs::metadata(&partial)?.len();
        ensure!(
            interrupted.is_err() && received > 0,
            "the interruption is not reported: {interrupted:?}, {received} bytes"
        );
        download::resume(&format!("{base}/content"), None, &partial, &log)?;
        ensure!(fs::read(&partial)? == content, "the resumed file is not what the server has");
        let absent = download::resume(&format!("{base}/absent"), None, &self.path("absent"), &log);
        let message = absent.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(message.contains("404"), "unexpected message: {message}");
        Ok(())
    }

    /// Builds in a network namespace without a network, with an empty cache.
    fn no_network(&self) -> Result<()> {
        let xtask = std::env::current_exe()?;
        let root: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["--map-root-user"] };
        if exec::read(cmd!(sh(), "unshare --net {root...} true")).is_err() {
            bail!(Skip("this machine does not allow network namespaces".to_owned()));
        }
        let build = cmd!(sh(), "unshare --net {root...} {xtask} build-qemu aarch64")
            .env("XDG_CACHE_HOME", self.path("empty"))
            .env("CARGO_TARGET_DIR", self.path("target"))
            .env_remove("QUS_SOURCE");
        let output = self.exits(build)?;
        let Release { version, upstream, debian, .. } = &self.release;
        let mut messages = vec![
            format!("QEMU's source, version {version}, is not available from any location"),
            "--source".to_owned(),
        ];
        messages.extend(upstream.iter().map(|upstream| upstream.url.clone()));
        messages.extend(debian.iter().map(|debian| format!("Debian {}", debian.suite)));
        for expected in &messages {
            ensure!(output.contains(expected), "`{expected}` is not in: {output}");
        }
        Ok(())
    }
}

/// Serves three requests: half of the content, the rest from the requested byte, status 404.
fn serve(server: &TcpListener, content: &[u8]) -> Result<()> {
    for request in 0..3 {
        let (mut stream, _) = server.accept()?;
        let mut head = String::new();
        let mut reader = BufReader::new(stream.try_clone()?);
        while reader.read_line(&mut head)? > 2 {}
        let size = content.len();
        match request {
            0 => {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")?;
                stream.write_all(&content[..size / 2])?;
            }
            1 => {
                let from = head
                    .lines()
                    .find_map(|line| line.strip_prefix("Range: bytes=")?.strip_suffix('-')?.parse().ok());
                let from: usize = from.context("the request has no range")?;
                let (last, length) = (size - 1, size - from);
                let range = format!("Content-Range: bytes {from}-{last}/{size}\r\nContent-Length: {length}");
                write!(stream, "HTTP/1.1 206 Partial Content\r\n{range}\r\n\r\n")?;
                stream.write_all(&content[from..])?;
            }
            _ => write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?,
        }
    }
    Ok(())
}
