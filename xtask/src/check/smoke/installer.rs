//! Checks `images/install.sh`: from a directory and over HTTP, again, with damaged files, and its removal.

use std::env;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;
use qus_core::arch::Arch;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::exec::{self, is_installed, sh};
use crate::base::files;
use crate::bundle::{artefact, manifest, runner::Runner};
use crate::check::report::Report;
use crate::check::smoke::fixture::{release, tools};
use crate::ship::sign::Signer;

/// The emulator that is in the tarball.
const GUEST: &str = "aarch64";

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    report.check("emulator", "install.sh: install, update, remove; damaged and missing files", || {
        Installer::prepare(cx)?.check()
    })?;
    report.check(
        "emulator",
        "install.sh --key: signatures of SSH, minisign and cosign, by the right key and by another",
        || Installer::prepare(cx)?.check_signatures(cx),
    )
}

struct Installer {
    script: PathBuf,
    dir: tempfile::TempDir,
    /// `PATH` with zstd.
    path: std::ffi::OsString,
    /// The name of the tarball.
    file: String,
}

impl Installer {
    /// Packs a release with one emulator.
    fn prepare(cx: &Context) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = release::pack(cx, GUEST.parse()?, &dir.path().join("releases"))?;
        let zstd = tools::zstd(cx)?;
        let zstd = zstd.parent().context("zstd has no directory")?.to_owned();
        let path = cx.settings.path_with([zstd])?;
        Ok(Self { script: cx.paths.images().join("install.sh"), dir, path, file })
    }

    fn prefix(&self) -> PathBuf {
        self.dir.path().join("prefix")
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        let (script, prefix) = (&self.script, self.prefix());
        exec::output(cmd!(sh(), "sh {script} --prefix {prefix} {args...}").env("PATH", &self.path))
    }

    fn succeeds(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{args:?} ended with {}: {stderr}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Asserts that it fails with this error, and leaves an installed emulator as it is.
    fn fails(&self, args: &[&str], error: &str) -> Result<()> {
        let output = self.run(args)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && stderr.contains(error), "{args:?} printed: {stderr}");
        self.check_runs()
    }

    fn check_runs(&self) -> Result<()> {
        let arch: &Arch = GUEST.parse()?;
        artefact::run_probe(
            &Runner::native(),
            &self.prefix().join("libexec/qus").join(arch.emulator()),
            arch,
        )?;
        let program = self.prefix().join("bin/qus");
        let version = exec::read(cmd!(sh(), "{program} --version"))?;
        ensure!(version.contains("release 1.0.0-1"), "{version}");
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let from = self.dir.path().join("releases").to_string_lossy().into_owned();
        let installed = self.succeeds(&["--from", &from])?;
        ensure!(installed.contains("release 1.0.0-1"), "{installed}");
        self.check_runs()?;
        // Again, as an update.
        self.succeeds(&["--from", &from, "--version", "1.0.0-1"])?;
        self.check_runs()?;
        self.fails(&["--from", &from, "--version", "2.0.0-1"], "has no tarball for")?;
        self.fails(&["--from", "/no/such/directory"], "there is no SHA256SUMS in /no/such/directory")?;
        self.fails(&["--wrong"], "unknown argument --wrong")?;
        self.over_http()?;
        for damage in [Damage::Changed, Damage::Cut] {
            let damaged = self.damaged(damage)?;
            self.fails(&["--from", &damaged.to_string_lossy()], "does not have the checksum of the release")?;
        }
        self.succeeds(&["--uninstall"])?;
        let left = exec::read({
            let prefix = self.prefix();
            cmd!(sh(), "find {prefix} -not -type d")
        })?;
        ensure!(left.is_empty(), "it leaves {left}");
        let again = self.run(&["--uninstall"])?;
        ensure!(!again.status.success(), "it removes what is not there");
        Ok(())
    }

    fn check_signatures(&self, cx: &Context) -> Result<()> {
        let (minisign, cosign) = (tools::minisign(cx)?, tools::cosign(cx)?);
        let cosign = [("PATH", cx.settings.path_with(cosign)?), ("COSIGN_PASSWORD", "passphrase".into())];
        if !is_installed("ssh-keygen") {
            bail!(Skip("ssh-keygen is not installed".to_owned()));
        }
        let at = |name: &str| self.dir.path().join(name);
        let sums = at("releases").join(manifest::SUMS);
        let good = fs::read(&sums)?;
        for name in ["ours", "other"] {
            let (key, public, secret) =
                (at(name), at(&format!("{name}.minisign")), at(&format!("{name}.secret")));
            exec::read(cmd!(sh(), "ssh-keygen -q -t ed25519 -N '' -C {name}@example.org -f {key}"))?;
            let allowed = format!("{name}@example.org {}", fs::read_to_string(at(&format!("{name}.pub")))?);
            fs::write(at(&format!("allowed-{name}")), allowed)?;
            // Without a passphrase.
            exec::read(cmd!(sh(), "minisign -G -W -p {public} -s {secret}").envs(minisign.clone()))?;
            let prefix = at(&format!("{name}-cosign"));
            let generate = cmd!(sh(), "cosign generate-key-pair --output-key-prefix {prefix}");
            exec::read(generate.envs(cosign.clone()))?;
        }
        let from = at("releases").to_string_lossy().into_owned();
        let (script, prefix) = (&self.script, self.prefix());
        let install = |file: &Path| -> Result<Output> {
            let run = cmd!(sh(), "sh {script} --prefix {prefix} --from {from} --key {file}");
            let paths = minisign.iter().chain(&cosign).filter(|(name, _)| *name == "PATH");
            let paths = paths.flat_map(|(_, path)| env::split_paths(path));
            let path = env::join_paths(paths.chain(env::split_paths(&self.path)))?;
            exec::output(run.envs(minisign.clone()).env("PATH", path))
        };
        let refused = |file: &Path, error: &str| -> Result<()> {
            let output = install(file)?;
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(!output.status.success() && stderr.contains(error), "{}: {stderr}", file.display());
            ensure!(!self.prefix().exists(), "{} is installed", self.prefix().display());
            Ok(())
        };
        refused(&at("none"), "there is no key")?;
        refused(&at("allowed-ours"), "there is no SHA256SUMS.sig")?;
        Signer::new(&at("ours"))?.sign(&sums)?;
        let secret = at("ours.secret");
        exec::read(cmd!(sh(), "minisign -S -s {secret} -m {sums}").envs(minisign.clone()))?;
        let (key, bundle) = (at("ours-cosign.key"), files::with_suffix(&sums, "sigstore.json"));
        let sign = cmd!(
            sh(),
            "cosign sign-blob --yes --use-signing-config=false --tlog-upload=false --key {key} --bundle {bundle} {sums}"
        );
        exec::read(sign.envs(cosign.clone()))?;
        refused(&at("allowed-other"), "is not signed by anyone in")?;
        refused(&at("other.minisign"), "is not signed with this key")?;
        refused(&at("other-cosign.pub"), "is not signed with this key")?;
        fs::write(&sums, [&good[..], b"\n"].concat())?;
        refused(&at("allowed-ours"), "is not signed by anyone in")?;
        refused(&at("ours.minisign"), "is not signed with this key")?;
        refused(&at("ours-cosign.pub"), "is not signed with this key")?;
        fs::write(&sums, &good)?;
        for file in ["allowed-ours", "ours.minisign", "ours-cosign.pub"] {
            let output = install(&at(file))?;
            ensure!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
            self.check_runs()?;
            files::remove_dir(&self.prefix())?;
        }
        Ok(())
    }

    /// A copy of the release with a damaged tarball.
    fn damaged(&self, damage: Damage) -> Result<PathBuf> {
        let from = self.dir.path().join("releases");
        let copy = self.dir.path().join("damaged");
        files::recreate_dir(&copy)?;
        fs::copy(from.join(manifest::SUMS), copy.join(manifest::SUMS))?;
        let mut bytes = fs::read(from.join(&self.file))?;
        let middle = bytes.len() / 2;
        match damage {
            Damage::Changed => bytes[middle] ^= 1,
            Damage::Cut => bytes.truncate(middle),
        }
        fs::write(copy.join(&self.file), bytes)?;
        Ok(copy)
    }

    /// Downloads it from a server, whose paths are those of releases.
    fn over_http(&self) -> Result<()> {
        if !is_installed("curl") && !is_installed("wget") {
            return Ok(());
        }
        let root = self.dir.path().join("http");
        for path in ["latest/download", "download/v1.0.0-1"] {
            let dir = root.join(path);
            fs::create_dir_all(dir.parent().context("no parent")?)?;
            std::os::unix::fs::symlink(self.dir.path().join("releases"), &dir)?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let serve = cmd!(sh(), "python3 -m http.server --bind 127.0.0.1 --directory {root} {port}");
        let mut server = exec::spawn_tied(serve, std::fs::File::create(self.dir.path().join("log"))?)?;
        let done = self.download(&root, &port);
        server.kill()?;
        server.wait()?;
        done
    }

    fn download(&self, root: &Path, port: &str) -> Result<()> {
        let address = format!("127.0.0.1:{port}");
        for _ in 0..100 {
            if std::net::TcpStream::connect(&address).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let from = format!("http://{address}");
        files::remove_dir(&self.prefix())?;
        self.succeeds(&["--from", &from])?;
        self.succeeds(&["--from", &from, "--version", "1.0.0-1"])?;
        self.fails(&["--from", &from, "--version", "3.0.0-1"], "cannot download")?;
        ensure!(root.exists(), "the server's directory is gone");
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Damage {
    Changed,
    Cut,
}
