//! Locates the archive of QEMU's source: a given location, the cache, upstream, Debian, in that order.
//!
//! Each attempt is reported in one line. An archive is cached under its hash, and used only if that hash is pinned in
//! `sources.toml`. There is one exception, with a warning: if Debian has replaced the pinned patch level with a newer
//! one of the same series, the newer one is used with the hash of the archive's signed index, unless exact pins are
//! required.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use fs_err as fs;
use qemu_src::{Pin, Release, Upstream};
use qus_core::hint::hinted;

use crate::base::context::Context;
use crate::base::exec::is_installed;
use crate::base::files;
use crate::base::progress::{one_line, say};
use crate::qemu::archive::{Source, is_intact, match_pin};
use crate::qemu::download;
use crate::qemu::substitute;

/// A location given by the user: an archive or a directory of archives.
#[derive(Clone, Copy)]
pub(crate) enum SourceLocation<'a> {
    /// On the command line: a missing archive is an error.
    Argument(&'a Path),
    /// In the environment: if the archive is missing, other locations are tried.
    Environment(&'a Path),
}

impl SourceLocation<'_> {
    /// The location for another release than the requested one: a directory may contain its archive, and a file is
    /// the archive of one release only.
    pub(crate) fn for_other_release(self, release: &Release) -> Option<Self> {
        match self {
            Self::Argument(path) if path.is_dir() => Some(Self::Environment(path)),
            Self::Argument(path) | Self::Environment(path) if path.is_file() => {
                match_pin(path, &release.pins().collect::<Vec<_>>()).is_ok().then_some(self)
            }
            Self::Argument(_) | Self::Environment(_) => Some(self),
        }
    }
}

/// The location in the environment.
pub(crate) fn in_environment(cx: &Context) -> Option<SourceLocation<'_>> {
    cx.settings.source.as_deref().map(SourceLocation::Environment)
}

/// The pinned source of a release, for commands other than `build-qemu`.
pub(crate) fn pinned(cx: &Context, release: &Release) -> Result<Source> {
    let given = in_environment(cx).and_then(|given| given.for_other_release(release));
    resolve(cx, release, given, true)
}

/// Resolves the archive of a release; with `exact`, only a pinned one.
///
/// # Errors
/// The archive at the given location has the wrong hash, or the archive is not available from any location.
pub(crate) fn resolve(
    cx: &Context,
    release: &Release,
    given: Option<SourceLocation<'_>>,
    exact: bool,
) -> Result<Source> {
    if let Some(given) = given {
        let (path, strict) = match given {
            SourceLocation::Argument(path) => (path, true),
            SourceLocation::Environment(path) => (path, false),
        };
        let found = if strict || path.exists() { from_given(cx, release, path, exact)? } else { None };
        match found {
            Some(source) => return Ok(source),
            None if strict => bail!("{}", not_found(release, path)),
            None => say(format_args!("source: {}", not_found(release, path))),
        }
    }
    if let Some(source) = from_cache(cx, release, exact)? {
        return Ok(source);
    }
    let version = &release.version;
    let mut failures = Vec::new();
    let mut attempt = |location: String, result: Result<Source>| match result {
        Ok(source) => {
            say(format_args!("source: QEMU {} from {location}", source.version));
            Some(source)
        }
        Err(error) => {
            let line = format!("{location}: {error:#}");
            say(format_args!("source: {}", line.lines().next().unwrap_or_default()));
            failures.push(line);
            None
        }
    };
    if let Some(upstream) = &release.upstream {
        let result = from_upstream(cx, release, upstream);
        if let Some(source) = attempt(upstream.url.clone(), result) {
            return Ok(source);
        }
    }
    if let Some(debian) = &release.debian {
        let result = substitute::from_debian(cx, release, debian, exact);
        if let Some(source) = attempt(format!("Debian {}", debian.suite), result) {
            return Ok(source);
        }
    }
    let connect = if is_installed("curl") { "connect this machine to the network" } else { "install curl" };
    let files: Vec<_> = release.pins().map(|pin| pin.file.to_owned()).collect();
    Err(hinted(
        format_args!(
            "QEMU's source, version {version}, is not available from any location:\n  {}",
            failures.join("\n  ")
        ),
        format_args!(
            "{connect}, or download {} on another machine and use --source PATH",
            files.join(" or ")
        ),
    ))
}

/// Describes the locations that [`resolve`] tries, without using the network; for the plan.
pub(crate) fn describe_locations(
    cx: &Context,
    release: &Release,
    given: Option<SourceLocation<'_>>,
) -> String {
    let mut locations = Vec::new();
    match given {
        Some(SourceLocation::Argument(path)) => return one_line(path.display()),
        Some(SourceLocation::Environment(path)) => locations.push(one_line(path.display())),
        None => {}
    }
    if release.pins().any(|pin| cx.paths.download(&pin.sha256, pin.file).exists()) {
        locations.push("the cache".to_owned());
    } else {
        locations.extend(release.upstream.iter().map(|_| "upstream".to_owned()));
        locations.extend(release.debian.iter().map(|debian| format!("Debian {}", debian.suite)));
    }
    locations.join(", else ")
}

fn not_found(release: &Release, path: &Path) -> String {
    let files: Vec<_> = release.pins().map(|pin| pin.file.to_owned()).collect();
    format!(
        "{} has no {}, the source of QEMU {}",
        one_line(path.display()),
        files.join(" or "),
        release.version
    )
}

fn from_given(cx: &Context, release: &Release, path: &Path, exact: bool) -> Result<Option<Source>> {
    if path.is_dir() {
        for pin in release.pins() {
            let file = path.join(pin.file);
            if file.exists() {
                match_pin(&file, std::slice::from_ref(&pin))?;
                return store(cx, release, &pin, &file).map(Some);
            }
        }
        return if exact { Ok(None) } else { substitute::from_dir(cx, release, path) };
    }
    let pins: Vec<_> = release.pins().collect();
    let pin = match_pin(path, &pins)?;
    store(cx, release, &pin, path).map(Some)
}

/// Copies a verified archive into the cache, unless it is already there unchanged.
fn store(cx: &Context, release: &Release, pin: &Pin<'_>, file: &Path) -> Result<Source> {
    let archive = cx.paths.download(&pin.sha256, pin.file);
    if !is_intact(&archive, pin.sha256)? {
        say(format_args!("source: QEMU {} from {}", release.version, one_line(file.display())));
        files::copy_verified(file, &archive, pin.sha256)?;
    }
    Ok(Source { version: release.version.clone(), sha256: pin.sha256, archive })
}

fn from_cache(cx: &Context, release: &Release, exact: bool) -> Result<Option<Source>> {
    for pin in release.pins() {
        let archive = cx.paths.download(&pin.sha256, pin.file);
        if is_intact(&archive, pin.sha256)? {
            return Ok(Some(Source { version: release.version.clone(), sha256: pin.sha256, archive }));
        }
    }
    if exact { Ok(None) } else { substitute::from_cache(cx, release) }
}

fn from_upstream(cx: &Context, release: &Release, upstream: &Upstream) -> Result<Source> {
    let pin = release
        .pins()
        .find(|pin| pin.sha256 == upstream.sha256)
        .context("the release does not have the hash of its upstream archive")?;
    let archive = cx.paths.download(&pin.sha256, pin.file);
    let partial = files::partial(&archive);
    fs::create_dir_all(archive.parent().context("the archive has no parent directory")?)?;
    // The partial file is complete if a run was killed between download and verification.
    if !files::sha256(&partial).is_ok_and(|got| got == pin.sha256) {
        download::resume(&upstream.url, upstream.size, &partial, &cx.paths.log("download"))?;
    }
    if let Err(error) = match_pin(&partial, std::slice::from_ref(&pin)) {
        fs::remove_file(&partial)?;
        return Err(error);
    }
    files::rename(&partial, &archive).with_context(|| format!("cannot create {}", archive.display()))?;
    Ok(Source { version: release.version.clone(), sha256: pin.sha256, archive })
}

#[cfg(test)]
mod tests {
    use super::*;
    use qus_core::digest::Sha256;
    use semver::Version;

    /// Programs of a 32-bit host run under an emulator of another release than the host's own.
    #[test]
    fn an_archive_of_another_release_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let cx = &Context::with_cache(dir.path()).unwrap();
        let release = cx.data.release("default").unwrap();
        let file = dir.path().join("archive");
        fs::write(&file, "the archive of another release").unwrap();
        for given in [SourceLocation::Argument(&file), SourceLocation::Environment(&file)] {
            let error = resolve(cx, release, Some(given), false).unwrap_err().to_string();
            assert!(error.contains("wrong sha256"), "{error}");
            assert!(given.for_other_release(release).is_none());
        }
        let in_dir = SourceLocation::Argument(dir.path()).for_other_release(release);
        assert!(matches!(in_dir, Some(SourceLocation::Environment(path)) if path == dir.path()));
    }

    /// A node of a builder receives such a directory.
    #[test]
    fn a_directory_can_provide_a_substitute() {
        let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let cx = &Context::with_cache(cache.path()).unwrap();
        let release = cx.data.release("default").unwrap();
        let mut newer = release.version.clone();
        newer.patch += 7;
        let describe = |version: &Version, file: &str| {
            let record = serde_json::json!({
                "version": version, "debian_version": "1", "file": file, "sha256": Sha256::of("source"),
            });
            fs::write(dir.path().join(substitute::FILE), record.to_string()).unwrap();
        };
        let resolve = |exact| super::resolve(cx, release, Some(SourceLocation::Argument(dir.path())), exact);
        fs::write(dir.path().join("q.tar.xz"), "source").unwrap();
        describe(&newer, "q.tar.xz");
        let source = resolve(false).unwrap();
        assert_eq!((source.version, source.sha256), (newer.clone(), Sha256::of("source")));
        assert_eq!(fs::read(source.archive).unwrap(), b"source");
        assert!(resolve(true).is_err(), "exact pins refuse a substitute");

        describe(&Version::new(release.version.major + 1, 0, 0), "q.tar.xz");
        assert!(resolve(false).is_err(), "another series");
        describe(&newer, "../q.tar.xz");
        assert!(resolve(false).unwrap_err().to_string().contains("outside of its directory"));
        describe(&newer, "q.tar.xz");
        files::remove_dir(cache.path()).unwrap();
        fs::write(dir.path().join("q.tar.xz"), "other").unwrap();
        assert!(resolve(false).unwrap_err().to_string().contains("wrong sha256"));
    }
}
