//! Handlers that are there again after the next start of the machine: emulators copied to a folder of
//! their own, and the rules written where the host's own service reads them.
//!
//! systemd-binfmt reads `/etc/binfmt.d`; for OpenRC there is a service. A manifest lists every file with
//! its hash and is written before the first of them, so that whatever happens, exactly what was written
//! is taken back; a file that was changed since is left and told.

mod content;
mod manifest;
mod tree;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::binfmt::{BadRule, Flags};
use crate::digest::Sha256;
use crate::emulator::{Emulator, PERSISTENT};
use crate::file;
use crate::handler::arch_of;
use crate::text::Show;
use content::{Content, sha256};
use manifest::Written;
use tree::{Found, Tree, is_safe};

pub use manifest::Manifest;

/// The rules for systemd.
const BINFMT_D: &str = "/etc/binfmt.d/qus.conf";

/// The service for OpenRC, and its place in the runlevel in which it starts.
const OPENRC: [&str; 2] = ["/etc/init.d/qus", "/etc/runlevels/boot/qus"];

/// Where the manifest lies, below [`PERSISTENT`].
const MANIFEST: &str = "manifest.json";

/// Modes of what is read, and of what is run.
const TEXT: u32 = 0o644;
const PROGRAM: u32 = 0o755;

/// What registers handlers when a host starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// systemd-binfmt.
    Systemd,
    /// OpenRC.
    OpenRc,
}

impl Service {
    /// What the host with this root folder has; `None` if neither.
    pub fn of(root: &Path) -> Option<Self> {
        let has = |paths: &[&str]| paths.iter().any(|path| root.join(path).exists());
        if has(&["usr/lib/systemd/systemd-binfmt", "lib/systemd/systemd-binfmt"]) {
            Some(Self::Systemd)
        } else if has(&["sbin/openrc-run", "usr/sbin/openrc-run", "usr/bin/openrc-run"]) {
            Some(Self::OpenRc)
        } else {
            None
        }
    }
}

/// Why handlers could not be made to last, or taken back.
#[derive(Debug)]
pub enum Error {
    /// Neither systemd-binfmt nor OpenRC is there.
    NoService,
    /// What could not be done, to which file.
    Io(&'static str, PathBuf, io::Error),
    /// A rule cannot be written down.
    Rule(BadRule),
    /// The manifest is damaged.
    Manifest(PathBuf, String),
    /// A file that would be written is there, and we have not written it like that.
    NotOurs(PathBuf),
    /// Others than root decide what would be written to this path, or removed: how.
    Unsafe(PathBuf, &'static str),
    /// Architectures that are kept until now and would not be any more.
    WouldForget(Vec<&'static str>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoService => f.write_str(
                "nothing here would register handlers at the next start: there is neither systemd-binfmt nor \
                 OpenRC\nremedy: have `qus install all` run when the machine starts, or install systemd's package \
                 with systemd-binfmt",
            ),
            Self::Io(what, path, error) => write!(f, "cannot {what} {}: {error}", path.shown()),
            Self::Rule(bad) => bad.fmt(f),
            Self::Manifest(path, why) => write!(
                f,
                "{} is damaged: {why}\nremedy: remove it, and by hand what it was about: the directories beside it, {BINFMT_D} or {}",
                path.shown(),
                OPENRC.join(" and ")
            ),
            Self::Unsafe(path, why) => write!(
                f,
                "{} {why}\nremedy: see that only root can change it, with chown root and chmod go-w",
                path.shown()
            ),
            Self::NotOurs(path) => write!(
                f,
                "{} is somebody else's, or was changed since we have written it\nremedy: move it away",
                path.shown()
            ),
            Self::WouldForget(archs) => write!(
                f,
                "kept for the next start until now, and not among these: {}\nremedy: name them too, or begin anew: qus \
                 remove --persist",
                archs.join(" ")
            ),
        }
    }
}

impl std::error::Error for Error {}

/// A file to be written.
struct Planned {
    path: PathBuf,
    content: Content,
}

/// A host's root folder, in which things are made to last.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// The host whose root folder this is: `/`, or where it is mounted in a container.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where emulators of a version are kept, as a path of the host.
    pub fn folder(version: &str) -> PathBuf {
        Path::new(PERSISTENT).join(version)
    }

    /// Copies emulators, writes the rules for them, and takes away the files of an earlier call that this one
    /// replaces by others, as those of an older version. Returns the emulators at their new paths of the host.
    ///
    /// # Errors
    /// See [`Error`]. What was written is in the manifest; the same call continues.
    pub fn install(
        &self,
        version: &str,
        emulators: &[Emulator],
        flags: Flags,
    ) -> Result<Vec<Emulator>, Error> {
        let service = Service::of(&self.root).ok_or(Error::NoService)?;
        let tree = Tree::lock(&self.root)?;
        let forgotten: Vec<_> =
            self.kept()?.into_iter().filter(|arch| !emulators.iter().any(|new| new.arch == *arch)).collect();
        if !forgotten.is_empty() {
            return Err(Error::WouldForget(forgotten.into_iter().map(|arch| arch.name).collect()));
        }
        let dir = Self::folder(version);
        let moved: Vec<Emulator> = emulators
            .iter()
            .map(|emulator| Emulator { path: dir.join(emulator.arch.emulator()), ..emulator.clone() })
            .collect();
        let mut planned: Vec<Planned> = Vec::new();
        for (from, to) in emulators.iter().zip(&moved) {
            planned
                .push(Planned { path: to.path.clone(), content: Content::Copy(from.path.clone(), PROGRAM) });
        }
        let bundle = emulators.first().and_then(|emulator| Some(emulator.path.parent()?.join("bundle.json")));
        if let Some(bundle) = bundle.filter(|bundle| bundle.exists()) {
            planned.push(Planned { path: dir.join("bundle.json"), content: Content::Copy(bundle, TEXT) });
        }
        planned.extend(service_files(service, &moved, flags)?);
        self.write(&tree, &planned)?;
        Ok(moved)
    }

    fn write(&self, tree: &Tree, planned: &[Planned]) -> Result<(), Error> {
        let old = self.manifest()?;
        let mut new = Manifest::default();
        for file in planned {
            new.files.push(Written { path: file.path.clone(), sha256: file.content.sha256()? });
        }
        for file in &new.files {
            let known = |path: &Path, hash: Sha256| file.sha256 == hash || old.has(path, hash);
            match hash(tree, &file.path)? {
                Some(hash) if !known(&file.path, hash) => return Err(Error::NotOurs(file.path.clone())),
                _ => {}
            }
        }
        new.folders.clone_from(&old.folders);
        for path in planned.iter().map(|file| file.path.clone()).chain([manifest_path()]) {
            for folder in tree.missing(&path)? {
                if !new.folders.contains(&folder) {
                    new.folders.push(folder);
                }
            }
        }
        let files = [old.files.clone(), new.files.clone()].concat();
        write_manifest(tree, &Manifest { files, folders: new.folders.clone() })?;
        for (file, written) in planned.iter().zip(&new.files) {
            put(tree, &file.path, &file.content, written.sha256)?;
        }
        for path in old.paths().filter(|path| !planned.iter().any(|file| file.path == **path)) {
            take_back(tree, &old, path)?;
        }
        write_manifest(tree, &new)
    }

    /// Takes back all that was written. Returns the files that were changed since and are left.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn remove(&self) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
        let tree = Tree::lock(&self.root)?;
        let manifest = self.manifest()?;
        let (mut removed, mut left) = (Vec::new(), Vec::new());
        for path in manifest.paths() {
            match take_back(&tree, &manifest, path)? {
                Some(true) => removed.push(path.clone()),
                Some(false) => left.push(path.clone()),
                None => {}
            }
        }
        // Those outside first: what is interrupted is in the manifest as long as there is anything.
        let (inner, outer): (Vec<_>, Vec<_>) =
            manifest.folders.iter().rev().partition(|folder| Path::new(PERSISTENT).starts_with(folder));
        outer.into_iter().for_each(|folder| tree.remove_if_empty(folder));
        let path = manifest_path();
        if let Some(place) = tree.place(&path, false)? {
            place.remove().map_err(|error| Error::Io("remove", path, error))?;
        }
        // One that was interrupted before its manifest was written has made it.
        tree.remove_if_empty(Path::new(PERSISTENT));
        inner.into_iter().for_each(|folder| tree.remove_if_empty(folder));
        Ok((removed, left))
    }

    /// The files that are kept for the next start, as paths of the host.
    ///
    /// # Errors
    /// The manifest is damaged or cannot be read.
    pub fn files(&self) -> Result<Vec<PathBuf>, Error> {
        Ok(self.manifest()?.paths().cloned().collect())
    }

    /// The architectures whose emulators are kept.
    fn kept(&self) -> Result<Vec<&'static Arch>, Error> {
        let manifest = self.manifest()?;
        let emulators = manifest.paths().filter(|path| path.starts_with(PERSISTENT));
        Ok(emulators.filter_map(|path| arch_of(path.file_name()?)).collect())
    }

    fn manifest(&self) -> Result<Manifest, Error> {
        let path = manifest_path();
        let failed = |error| Error::Io("read", path.clone(), error);
        let place = Tree::open(&self.root)?.place(&path, false)?;
        match place.map_or(Ok(None), |place| place.find()).map_err(failed)? {
            None => Ok(Manifest::default()),
            Some(Found::File(file)) if is_safe(&file).map_err(failed)? => {
                let text = file::read_all(&file).map_err(failed)?;
                Manifest::parse(&text).map_err(|why| Error::Manifest(path.clone(), why))
            }
            Some(_) => Err(Error::Unsafe(path, "is not a file that only root can change")),
        }
    }
}

fn manifest_path() -> PathBuf {
    Path::new(PERSISTENT).join(MANIFEST)
}

fn write_manifest(tree: &Tree, manifest: &Manifest) -> Result<(), Error> {
    let path = manifest_path();
    let text = serde_json::to_string_pretty(manifest)
        .map_err(|error| Error::Manifest(path.clone(), error.to_string()))?;
    let content = Content::Text(text + "\n", TEXT);
    put(tree, &path, &content, content.sha256()?)
}

/// Writes a file that is not there as it should be.
fn put(tree: &Tree, path: &Path, content: &Content, sha256: Sha256) -> Result<(), Error> {
    let failed = |error| Error::Io("write", path.to_owned(), error);
    let Some(place) = tree.place(path, true)? else { return Err(failed(io::ErrorKind::NotFound.into())) };
    if !content.is_there(&place, sha256).map_err(failed)? {
        content.put(&place, sha256).map_err(failed)?;
    }
    Ok(())
}

/// True if it was there and was removed, false if it is not as we have written it, `None` if it was not there.
fn take_back(tree: &Tree, manifest: &Manifest, path: &Path) -> Result<Option<bool>, Error> {
    let failed = |error| Error::Io("remove", path.to_owned(), error);
    let Some(place) = tree.place(path, false)? else { return Ok(None) };
    let taken = match hash(tree, path)? {
        Some(hash) if !manifest.has(path, hash) => Some(false),
        Some(_) => {
            place.remove().map_err(failed)?;
            Some(true)
        }
        None => None,
    };
    place.remove_partial().map_err(failed)?;
    if let Some(dir) = path.parent().filter(|dir| dir.starts_with(PERSISTENT)) {
        tree.remove_if_empty(dir);
    }
    Ok(taken)
}

/// Of a file of the host, `None` if it is not there.
fn hash(tree: &Tree, path: &Path) -> Result<Option<Sha256>, Error> {
    let place = tree.place(path, false)?;
    let found = place.map_or(Ok(None), |place| place.find());
    let hash = found.and_then(|found| found.map(sha256).transpose());
    hash.map_err(|error| Error::Io("read", path.to_owned(), error))
}

fn service_files(service: Service, emulators: &[Emulator], flags: Flags) -> Result<Vec<Planned>, Error> {
    let text = match service {
        Service::Systemd => crate::export::systemd(emulators, flags),
        Service::OpenRc => crate::export::openrc(emulators, flags),
    }
    .map_err(Error::Rule)?;
    let file = |path: &str, content| Planned { path: path.into(), content };
    Ok(match service {
        Service::Systemd => vec![file(BINFMT_D, Content::Text(text, TEXT))],
        Service::OpenRc => vec![
            file(OPENRC[0], Content::Text(text, PROGRAM)),
            file(OPENRC[1], Content::Link(OPENRC[0].into())),
        ],
    })
}

#[cfg(test)]
mod tests;
