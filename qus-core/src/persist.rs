//! Handlers that are registered again at every boot: emulators copied to a directory of their own, and rules written
//! where the host's own service reads them.
//!
//! systemd-binfmt reads `/etc/binfmt.d`; for OpenRC a service is written. A manifest lists every file with its checksum,
//! and is written before the first of them. So exactly what was written can be removed, even after an interruption. A
//! file that was changed since is reported and left unchanged.

mod content;
mod error;
mod manifest;
mod paths;
mod tree;

use std::io;
use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::binfmt::Flags;
use crate::digest::Sha256;
use crate::emulator::{Emulator, PERSISTENT};
use crate::file;
use crate::handler::arch_of;
use content::{Content, sha256};
use manifest::Written;
use paths::{BINFMT_D, OPENRC};
use tree::{Found, Tree, is_safe};

pub use error::PersistError;
pub use manifest::Manifest;

/// Modes of files that are read, and of those that are run.
const TEXT: u32 = 0o644;
const PROGRAM: u32 = 0o755;

/// What registers handlers when a host boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootService {
    /// systemd-binfmt.
    Systemd,
    /// OpenRC.
    OpenRc,
}

impl BootService {
    /// Which of them the host with this root directory has; `None` if neither.
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

/// The files that qus has written, as paths of the host.
#[derive(Debug, Default)]
pub struct WrittenFiles {
    /// Those that are as they were written: they can be removed, or were.
    pub intact: Vec<PathBuf>,
    /// Those that were changed since; they are left.
    pub changed: Vec<PathBuf>,
}

/// A file to be written.
struct Planned {
    path: PathBuf,
    content: Content,
}

/// A host's root filesystem, in which handlers are made persistent.
///
/// ```no_run
/// use qus_core::persist::HostSystem;
///
/// // In a container that has the host's root filesystem mounted at /host.
/// for file in HostSystem::at("/host").files()?.intact {
///     println!("{}", file.display());
/// }
/// # Ok::<(), qus_core::persist::PersistError>(())
/// ```
#[derive(Debug, Clone)]
pub struct HostSystem {
    root: PathBuf,
}

impl HostSystem {
    /// The host whose root directory this is: `/`, or where it is mounted in a container.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where emulators of a version are copied to, as a path of the host.
    pub fn directory(version: &str) -> PathBuf {
        Path::new(PERSISTENT).join(version)
    }

    /// Copies emulators, writes the rules for them, and removes files of earlier calls that are not needed any more, such
    /// as those of an older version. Returns the emulators with their new paths of the host.
    ///
    /// # Errors
    /// See [`PersistError`]. What was written by then is in the manifest, and the same call continues.
    pub fn install(
        &self,
        version: &str,
        emulators: &[Emulator],
        flags: Flags,
    ) -> Result<Vec<Emulator>, PersistError> {
        let tree = Tree::lock(&self.root)?;
        let service = BootService::of(&self.root).ok_or(PersistError::NoService)?;
        let dropped: Vec<_> =
            self.archs()?.into_iter().filter(|arch| !emulators.iter().any(|new| new.arch == *arch)).collect();
        if !dropped.is_empty() {
            return Err(PersistError::WouldDrop(dropped.into_iter().map(|arch| arch.name).collect()));
        }
        let dir = Self::directory(version);
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

    fn write(&self, tree: &Tree, planned: &[Planned]) -> Result<(), PersistError> {
        let old = self.manifest()?;
        let mut new = Manifest::default();
        for file in planned {
            new.files.push(Written { path: file.path.clone(), sha256: file.content.sha256()? });
        }
        for file in &new.files {
            let known = |path: &Path, hash: Sha256| file.sha256 == hash || old.has(path, hash);
            match hash(tree, &file.path)? {
                Some(hash) if !known(&file.path, hash) => {
                    return Err(PersistError::NotOurs(file.path.clone()));
                }
                _ => {}
            }
        }
        new.directories.clone_from(&old.directories);
        for path in planned.iter().map(|file| file.path.clone()).chain([paths::manifest()]) {
            for directory in tree.missing(&path)? {
                if !new.directories.contains(&directory) {
                    new.directories.push(directory);
                }
            }
        }
        let files = [old.files.clone(), new.files.clone()].concat();
        write_manifest(tree, &Manifest { files, directories: new.directories.clone() })?;
        for (file, written) in planned.iter().zip(&new.files) {
            write_file(tree, &file.path, &file.content, written.sha256)?;
        }
        for path in old.paths().filter(|path| !planned.iter().any(|file| file.path == **path)) {
            remove_if_ours(tree, &old, path)?;
        }
        write_manifest(tree, &new)
    }

    /// Removes the files that were written and not changed since.
    ///
    /// # Errors
    /// See [`PersistError`].
    pub fn remove(&self) -> Result<WrittenFiles, PersistError> {
        let tree = Tree::lock(&self.root)?;
        let manifest = self.manifest()?;
        let mut files = WrittenFiles::default();
        for path in manifest.paths() {
            files.add(path, remove_if_ours(&tree, &manifest, path)?);
        }
        // Directories outside first, because the manifest has to list everything as long as anything exists.
        let (inner, outer): (Vec<_>, Vec<_>) =
            manifest.directories.iter().rev().partition(|dir| Path::new(PERSISTENT).starts_with(dir));
        outer.into_iter().for_each(|dir| tree.remove_if_empty(dir));
        let path = paths::manifest();
        if let Some(place) = tree.place(&path, false)? {
            place.remove().map_err(|error| PersistError::Io("remove", path, error))?;
        }
        // An interrupted call may have created it before it wrote the manifest.
        tree.remove_if_empty(Path::new(PERSISTENT));
        inner.into_iter().for_each(|dir| tree.remove_if_empty(dir));
        Ok(files)
    }

    /// The files that were written and still exist. Changes nothing.
    ///
    /// # Errors
    /// See [`PersistError`].
    pub fn files(&self) -> Result<WrittenFiles, PersistError> {
        let tree = Tree::open(&self.root)?;
        let manifest = self.manifest()?;
        let mut files = WrittenFiles::default();
        for path in manifest.paths() {
            files.add(path, hash(&tree, path)?.map(|hash| manifest.has(path, hash)));
        }
        Ok(files)
    }

    /// The architectures whose handlers are persistent.
    ///
    /// # Errors
    /// See [`PersistError`].
    pub fn archs(&self) -> Result<Vec<&'static Arch>, PersistError> {
        let manifest = self.manifest()?;
        let emulators = manifest.paths().filter(|path| path.starts_with(PERSISTENT));
        Ok(emulators.filter_map(|path| arch_of(path.file_name()?)).collect())
    }

    fn manifest(&self) -> Result<Manifest, PersistError> {
        let path = paths::manifest();
        let failed = |error| PersistError::Io("read", path.clone(), error);
        let place = Tree::open(&self.root)?.place(&path, false)?;
        match place.map_or(Ok(None), |place| place.find()).map_err(failed)? {
            None => Ok(Manifest::default()),
            Some(Found::File(file)) if is_safe(&file).map_err(failed)? => {
                let text = file::read_all(&file).map_err(failed)?;
                Manifest::parse(&text).map_err(|why| PersistError::Manifest(path.clone(), why))
            }
            Some(_) => Err(PersistError::Unsafe(path, "is not a file that only root can change")),
        }
    }
}

impl WrittenFiles {
    /// `intact` is `None` if the file does not exist.
    fn add(&mut self, path: &Path, intact: Option<bool>) {
        match intact {
            Some(true) => self.intact.push(path.to_owned()),
            Some(false) => self.changed.push(path.to_owned()),
            None => {}
        }
    }
}

fn write_manifest(tree: &Tree, manifest: &Manifest) -> Result<(), PersistError> {
    let path = paths::manifest();
    let text = serde_json::to_string_pretty(manifest)
        .map_err(|error| PersistError::Manifest(path.clone(), error.to_string()))?;
    let content = Content::Text(text + "\n", TEXT);
    write_file(tree, &path, &content, content.sha256()?)
}

/// Writes a file unless it exists as it should be.
fn write_file(tree: &Tree, path: &Path, content: &Content, sha256: Sha256) -> Result<(), PersistError> {
    let failed = |error| PersistError::Io("write", path.to_owned(), error);
    let Some(place) = tree.place(path, true)? else { return Err(failed(io::ErrorKind::NotFound.into())) };
    if !content.is_there(&place, sha256).map_err(failed)? {
        content.write(&place, sha256).map_err(failed)?;
    }
    Ok(())
}

/// Removes a file that is as it was written. True if it was removed, false if it was changed since, `None` if it does not
/// exist.
fn remove_if_ours(tree: &Tree, manifest: &Manifest, path: &Path) -> Result<Option<bool>, PersistError> {
    let failed = |error| PersistError::Io("remove", path.to_owned(), error);
    let Some(place) = tree.place(path, false)? else { return Ok(None) };
    let removed = match hash(tree, path)? {
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
    Ok(removed)
}

/// The checksum of a file of the host, `None` if it does not exist.
fn hash(tree: &Tree, path: &Path) -> Result<Option<Sha256>, PersistError> {
    let place = tree.place(path, false)?;
    let found = place.map_or(Ok(None), |place| place.find());
    let hash = found.and_then(|found| found.map(sha256).transpose());
    hash.map_err(|error| PersistError::Io("read", path.to_owned(), error))
}

fn service_files(
    service: BootService,
    emulators: &[Emulator],
    flags: Flags,
) -> Result<Vec<Planned>, PersistError> {
    let text = match service {
        BootService::Systemd => crate::export::systemd(emulators, flags),
        BootService::OpenRc => crate::export::openrc(emulators, flags),
    }
    .map_err(PersistError::Rule)?;
    let file = |path: &str, content| Planned { path: path.into(), content };
    Ok(match service {
        BootService::Systemd => vec![file(BINFMT_D, Content::Text(text, TEXT))],
        BootService::OpenRc => vec![
            file(OPENRC[0], Content::Text(text, PROGRAM)),
            file(OPENRC[1], Content::Link(OPENRC[0].into())),
        ],
    })
}

#[cfg(test)]
mod tests;
