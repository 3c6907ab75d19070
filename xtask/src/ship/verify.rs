//! `cargo xtask release --verify`: builds a release again, and compares the files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qus_core::bundle::{Bundle, FILE};
use qus_core::digest::{self, Sha256};
use qus_core::hint::hinted;
use qus_core::release::ReleaseVersion;
use serde_json::Value;
use xshell::{Cmd, cmd};

use crate::base::context::Context;
use crate::base::exec::{self, InDir, is_installed, sh};
use crate::base::git::Checkout;
use crate::base::output::out;
use crate::base::progress::Bar;
use crate::base::{files, lock, tarball};
use crate::bundle::manifest;
use crate::qemu::{pgo, sysroot::kept};

/// The file with the statement of what a release was built from.
pub(super) const PROVENANCE: &str = "provenance.intoto.json";

/// The file with the section of the changelog, which is not downloaded.
pub(super) const NOTES: &str = "NOTES.md";

/// The maximum size of an unpacked tarball in bytes.
const MAX_SIZE: u64 = 8 << 30;

/// Builds a release again from its commit and the packages that it keeps, and compares all files.
///
/// # Errors
/// A file differs from its checksum, cannot be built, or is built differently.
pub(crate) fn verify(cx: &Context, dir: &Path) -> Result<()> {
    let listed = check_files(dir)?;
    let origin = Origin::read(dir)?;
    let _lock = lock::lock(cx.paths.out())?;
    let work = cx.paths.out().join("verify");
    files::recreate_dir(&work)?;
    let rebuilt = Rebuild { cx, work: &work, origin: &origin }.run(dir)?;
    let built = check_files(&rebuilt)?;
    let new = built.iter().filter(|(name, _)| !dir.join(name).exists());
    let mut different: Vec<_> = new.map(|(name, _)| (name, "the release lacks it".to_owned())).collect();
    let mut equal = 0;
    for (name, sha256) in &listed {
        // What is not built: the statement of who built it where, and sources.
        if name == PROVENANCE || name.starts_with("qus-sources_") {
            continue;
        }
        let (one, other) = (dir.join(name), rebuilt.join(name));
        if !other.exists() {
            different.push((name, "it was not built".to_owned()));
        } else if files::sha256(&other)? == *sha256 {
            equal += 1;
        } else {
            different.push((name, first_difference(&one, &other)?));
        }
    }
    let Some((first, _)) = different.first() else {
        files::remove_dir(&work)?;
        return out(&format!("equal: {equal} files of release {}\n", origin.release));
    };
    let mut text = format!("{} of {} files are built differently", different.len(), different.len() + equal);
    for (name, difference) in &different {
        let _ = write!(text, "\n  {name}: {difference}");
    }
    if is_installed("diffoscope") {
        let (one, other) = (dir.join(first), rebuilt.join(first));
        exec::interactive(cmd!(sh(), "diffoscope {one} {other}"))?;
    }
    let hint = format!("compare them with `diffoscope {} {}`", dir.display(), rebuilt.display());
    Err(hinted(text, hint))
}

/// Verifies the files of a release against its checksums, and returns these.
///
/// # Errors
/// A file is missing, differs, or is not listed.
pub(crate) fn check_files(dir: &Path) -> Result<Vec<(String, Sha256)>> {
    let sums = dir.join(manifest::SUMS);
    let text = fs::read_to_string(&sums)?;
    let listed = digest::parse_list(&text).with_context(|| format!("{} is damaged", sums.display()))?;
    for (sha256, name) in &listed {
        let file = dir.join(name);
        ensure!(files::sha256(&file)? == *sha256, "{} does not match its checksum", file.display());
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_listed = listed.iter().any(|(_, listed)| *listed == name);
        // A signature begins with the name of what is signed.
        let is_other = name == NOTES || name.starts_with(manifest::SUMS);
        ensure!(is_listed || is_other, "{} has no checksum in {}", dir.join(name).display(), manifest::SUMS);
    }
    Ok(listed.into_iter().map(|(sha256, name)| (name.to_owned(), sha256)).collect())
}

/// The name that a file of a host's bundle, such as `sysroot.tar.zst`, has in a release.
pub(super) fn packed_name(file: &str, release: &ReleaseVersion, host: &str) -> String {
    let (name, extension) = file.split_once('.').unwrap_or((file, ""));
    format!("qus-{name}_{release}_{host}.{extension}")
}

/// What a release was built from, as its provenance states it.
struct Origin {
    release: ReleaseVersion,
    hosts: Vec<String>,
    commit: String,
}

impl Origin {
    fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(PROVENANCE);
        let statement: Value = serde_json::from_slice(&fs::read(&path)?)?;
        let built = &statement["predicate"]["buildDefinition"];
        let (parameters, source) = (&built["externalParameters"], &built["resolvedDependencies"][0]);
        let parsed = || {
            Some(Self {
                release: parameters["release"].as_str()?.parse().ok()?,
                hosts: serde_json::from_value(parameters["hosts"].clone()).ok()?,
                commit: source["digest"]["gitCommit"].as_str()?.to_owned(),
            })
        };
        let origin = parsed().with_context(|| format!("{} names no commit", path.display()))?;
        ensure!(
            origin.commit.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "the release was made from a checkout with changes: {}",
            origin.commit
        );
        Ok(origin)
    }
}

/// Verifies that the release in a directory is that of the checkout.
///
/// # Errors
/// It was made from another commit, or from changes.
pub(super) fn check_commit(dir: &Path, checkout: &Checkout) -> Result<()> {
    let origin = Origin::read(dir)?;
    ensure!(
        checkout.commit.as_deref() == Some(&*origin.commit),
        hinted(
            format!("the release in {} was made from commit {}", dir.display(), origin.commit),
            "leave out --resume to assemble it again"
        )
    );
    Ok(())
}

struct Rebuild<'a> {
    cx: &'a Context,
    work: &'a Path,
    origin: &'a Origin,
}

impl Rebuild<'_> {
    /// Builds the release in a clone of the repository, and returns its directory.
    fn run(&self, dir: &Path) -> Result<PathBuf> {
        let Origin { release, hosts, commit } = self.origin;
        let (root, clone) = (self.cx.paths.root(), self.work.join("qus"));
        exec::read(cmd!(sh(), "git clone --quiet {root} {clone}"))?;
        if let Err(error) = exec::read(cmd!(sh(), "git -C {clone} checkout --quiet --detach {commit}")) {
            let hint = format!("fetch it: `git fetch origin {commit}`");
            return Err(hinted(format!("this repository does not have commit {commit}: {error:#}"), hint));
        }
        for host in hosts {
            let bundle = bundle_of(dir, release, host)?;
            let kept = |option: &str, file: &str| -> Result<Vec<PathBuf>> {
                let path = dir.join(packed_name(file, release, host));
                Ok(if path.exists() { vec![option.into(), fs::canonicalize(path)?] } else { Vec::new() })
            };
            let (sysroot, training) = (&kept("--sysroot", kept::FILE)?, &kept("--training", pgo::FILE)?);
            let targets: Vec<_> = bundle.emulators.iter().map(|emulator| emulator.target.name).collect();
            let (qemu, profile) = (bundle.recipe.qemu.to_string(), bundle.recipe.profile.to_string());
            // Another number than that of the processors, which is the default.
            let jobs = (std::thread::available_parallelism()?.get() + 1).to_string();
            self.xtask(
                &format!("building the emulators for {host} again"),
                cmd!(
                    sh(),
                    "cargo xtask build-qemu {targets...} --host {host} --qemu {qemu} --profile {profile} --locked
                     --jobs {jobs} {sysroot...} {training...}"
                ),
            )?;
            self.xtask(
                &format!("building qus for {host} again"),
                cmd!(sh(), "cargo xtask build-qus --host {host} {sysroot...}"),
            )?;
        }
        let hosts = hosts.join(",");
        self.xtask(
            "packing the release again",
            cmd!(sh(), "cargo xtask release --host {hosts} --no-sources --allow-dev"),
        )?;
        Ok(clone.join("target/qus/release").join(release.to_string()))
    }

    /// Runs a command in the clone, with its own cache, and with another locale, time zone and umask than most have.
    fn xtask(&self, what: &str, cmd: Cmd<'_>) -> Result<()> {
        let bar = Bar::new(what);
        let log = self.cx.start_log("verify")?;
        let words = cmd.to_string();
        let line = format!("umask 077; exec {words}");
        let mut shell = cmd!(sh(), "sh -c {line}")
            .env("XDG_CACHE_HOME", self.work.join("cache"))
            .env("LC_ALL", "tr_TR.UTF-8")
            .env("TZ", "Pacific/Chatham")
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("SOURCE_DATE_EPOCH");
        if let Some(source) = &self.cx.settings.source {
            shell = shell.env("QUS_SOURCE", fs::canonicalize(source)?);
        }
        exec::run(shell.in_dir(&self.work.join("qus")), &log, |line| bar.detail(line))
    }
}

/// The description of a host's bundle in a release.
fn bundle_of(dir: &Path, release: &ReleaseVersion, host: &str) -> Result<Bundle> {
    let file = dir.join(format!("qus-bundle_{release}_{host}.tar.zst"));
    let mut bundle = None;
    for_each_entry(&file, |path, _, content| {
        if path.file_name().is_some_and(|name| name == FILE) {
            let mut text = Vec::new();
            content.read_to_end(&mut text)?;
            bundle = Some(Bundle::parse(path, &text)?);
        }
        Ok(())
    })?;
    bundle.with_context(|| format!("{} has no {FILE}", file.display()))
}

/// The first difference between two files of a release.
fn first_difference(one: &Path, other: &Path) -> Result<String> {
    if one.extension().is_none_or(|extension| extension != "zst") {
        return Ok("the content differs".to_owned());
    }
    let (one, other) = (content(one)?, content(other)?);
    for (path, found) in &one {
        match other.get(path) {
            None => return Ok(format!("{path} is missing")),
            Some(other) if other != found => return Ok(format!("{path} differs")),
            Some(_) => {}
        }
    }
    let more = other.keys().find(|path| !one.contains_key(*path));
    Ok(more.map_or_else(|| "it is packed differently".to_owned(), |path| format!("{path} is new")))
}

/// The mode and checksum of each file in a tarball.
fn content(file: &Path) -> Result<BTreeMap<String, (u32, Sha256)>> {
    let mut all = BTreeMap::new();
    for_each_entry(file, |path, mode, content| {
        let sha256 = digest::copy(content, &mut io::sink())?;
        all.insert(path.display().to_string(), (mode, sha256));
        Ok(())
    })?;
    Ok(all)
}

/// Reads a compressed tarball, file by file: path, mode and content.
fn for_each_entry(file: &Path, mut read: impl FnMut(&Path, u32, &mut dyn Read) -> Result<()>) -> Result<()> {
    let mut tar = tar::Archive::new(tarball::decompress(files::open(file)?, MAX_SIZE)?);
    for entry in tar.entries()? {
        let mut entry = entry?;
        let (path, mode) = (entry.path()?.into_owned(), entry.header().mode()?);
        read(&path, mode, &mut entry)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::tarball::{Tarball, TarballEntry};
    use crate::ship::tarballs::{self, PackedFile};

    /// A release with two tarballs.
    fn release(dir: &Path, text: &str) -> Vec<String> {
        let entries = |name: &str| vec![TarballEntry::made("a/same", "same"), TarballEntry::made(name, text)];
        let tarballs = ["a/x", "b"]
            .map(|name| Tarball::new(format!("{}.tar.zst", name.replace('/', "-")), entries(name)));
        let mut packed = Vec::new();
        for tarball in tarballs {
            let path = tarball.write(dir).unwrap();
            let sha256 = files::sha256(&path).unwrap();
            packed.push(PackedFile { file: tarball.file, size: 0, sha256 });
        }
        fs::write(dir.join(manifest::SUMS), tarballs::sums(&packed)).unwrap();
        packed.into_iter().map(|packed| packed.file).collect()
    }

    #[test]
    fn a_changed_byte_of_any_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut names = release(dir.path(), "text");
        fs::write(dir.path().join(NOTES), "not listed").unwrap();
        assert_eq!(check_files(dir.path()).unwrap().len(), 2);
        names.push(manifest::SUMS.to_owned());
        for name in names {
            let path = dir.path().join(&name);
            let good = fs::read(&path).unwrap();
            for at in [0, good.len() / 2, good.len() - 2] {
                let mut bad = good.clone();
                bad[at] ^= 1;
                fs::write(&path, bad).unwrap();
                assert!(check_files(dir.path()).is_err(), "byte {at} of {name}");
            }
            fs::write(&path, &good[1..]).unwrap();
            assert!(check_files(dir.path()).is_err(), "the first byte of {name}");
            fs::write(&path, good).unwrap();
        }
        fs::write(dir.path().join("more"), "").unwrap();
        let error = check_files(dir.path()).unwrap_err().to_string();
        assert!(error.contains("more has no checksum"), "{error}");
    }

    #[test]
    fn the_first_difference_is_named() {
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let [one, same, other] = dirs.each_ref().map(|dir| dir.path());
        release(one, "text");
        release(same, "text");
        release(other, "text2");
        let difference =
            |name: &str, other: &Path| first_difference(&one.join(name), &other.join(name)).unwrap();
        assert_eq!(fs::read(one.join("b.tar.zst")).unwrap(), fs::read(same.join("b.tar.zst")).unwrap());
        assert_eq!(difference("a-x.tar.zst", other), "a/x differs");
        assert_eq!(difference("SHA256SUMS", other), "the content differs");
        assert_eq!(
            first_difference(&one.join("a-x.tar.zst"), &one.join("b.tar.zst")).unwrap(),
            "a/x is missing"
        );
    }

    #[test]
    fn a_release_of_changed_files_cannot_be_built_again() {
        let dir = tempfile::tempdir().unwrap();
        let read = |commit: &str| {
            let text = format!(
                r#"{{"predicate":{{"buildDefinition":{{"externalParameters":{{"release":"10.2.2-1","hosts":["amd64"]}},
                "resolvedDependencies":[{{"digest":{{"gitCommit":"{commit}"}}}}]}}}}}}"#
            );
            fs::write(dir.path().join(PROVENANCE), text).unwrap();
            Origin::read(dir.path()).map(|origin| origin.commit)
        };
        assert_eq!(read("c0ffee").unwrap(), "c0ffee");
        assert!(read("c0ffee-changed").unwrap_err().to_string().contains("a checkout with changes"));
        assert!(read("--upload-pack=x").is_err());
    }
}
