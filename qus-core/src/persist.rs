//! Handlers that are there again after the next start of the machine: emulators copied to a folder of
//! their own, and the rules written where the host's own service reads them.
//!
//! systemd-binfmt reads `/etc/binfmt.d`; for OpenRC there is a service. A manifest lists every file with
//! its hash and is written before the first of them, so that whatever happens, exactly what was written
//! is taken back; a file that was changed since is left and told.

mod content;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::binfmt::{BadRule, Flags};
use crate::emulator::{Emulator, PERSISTENT};
use crate::handler::arch_of;
use content::{Content, sha256};

/// The rules for systemd.
const BINFMT_D: &str = "/etc/binfmt.d/qus.conf";

/// The service for OpenRC, and its place in the runlevel in which it starts.
const OPENRC: [&str; 2] = ["/etc/init.d/qus", "/etc/runlevels/boot/qus"];

/// Where the manifest lies.
const MANIFEST: &str = "manifest.json";

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
            Self::Io(what, path, error) => write!(f, "cannot {what} {}: {error}", path.display()),
            Self::Rule(bad) => bad.fmt(f),
            Self::Manifest(path, why) => write!(f, "{} is damaged: {why}", path.display()),
            Self::NotOurs(path) => write!(
                f,
                "{} is somebody else's, or was changed since we have written it\nremedy: move it away",
                path.display()
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

/// The files that were written, as paths of the host.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Manifest {
    /// A path is in it twice while one content replaces another.
    files: Vec<Written>,
    /// Folders that were made for them, inner ones last.
    #[serde(default)]
    folders: Vec<PathBuf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Written {
    path: PathBuf,
    /// Of a link, the hash of its target's path.
    sha256: String,
}

impl Manifest {
    /// Whether we have written this content to a file.
    fn has(&self, path: &Path, sha256: &str) -> bool {
        self.files.iter().any(|file| file.path == path && file.sha256 == sha256)
    }

    /// Every path once.
    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let first = |(index, file): &(usize, &Written)| {
            self.files.iter().position(|other| other.path == file.path) == Some(*index)
        };
        self.files.iter().enumerate().filter(first).map(|(_, file)| &file.path)
    }
}

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
            planned.push(Planned { path: to.path.clone(), content: Content::Copy(from.path.clone()) });
        }
        let bundle = emulators.first().and_then(|emulator| Some(emulator.path.parent()?.join("bundle.json")));
        if let Some(bundle) = bundle.filter(|bundle| bundle.exists()) {
            planned.push(Planned { path: dir.join("bundle.json"), content: Content::Copy(bundle) });
        }
        planned.extend(service_files(service, &moved, flags)?);
        self.write(&planned)?;
        Ok(moved)
    }

    fn write(&self, planned: &[Planned]) -> Result<(), Error> {
        let old = self.manifest()?;
        let mut new = Manifest::default();
        for file in planned {
            new.files.push(Written { path: file.path.clone(), sha256: file.content.sha256()? });
        }
        for file in &new.files {
            let known = |path: &Path, hash: &str| file.sha256 == hash || old.has(path, hash);
            match self.hash(&file.path)? {
                Some(hash) if !known(&file.path, &hash) => return Err(Error::NotOurs(file.path.clone())),
                _ => {}
            }
        }
        let manifest = self.manifest_path();
        let paths = planned.iter().map(|file| self.inside(&file.path)).chain([manifest]);
        new.folders.clone_from(&old.folders);
        for path in paths {
            for folder in self.missing_folders(&path) {
                if !new.folders.contains(&folder) {
                    new.folders.push(folder);
                }
            }
        }
        let files = [old.files.clone(), new.files.clone()].concat();
        self.write_manifest(&Manifest { files, folders: new.folders.clone() })?;
        for (file, written) in planned.iter().zip(&new.files) {
            if self.hash(&file.path)?.as_ref() != Some(&written.sha256) {
                file.content.put(&self.inside(&file.path))?;
            }
        }
        for path in old.paths().filter(|path| !planned.iter().any(|file| file.path == **path)) {
            self.take_back(&old, path)?;
        }
        self.write_manifest(&new)
    }

    /// Takes back all that was written. Returns the files that were changed since and are left.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn remove(&self) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
        let manifest = self.manifest()?;
        let (mut removed, mut left) = (Vec::new(), Vec::new());
        for path in manifest.paths() {
            match self.take_back(&manifest, path)? {
                Some(true) => removed.push(path.clone()),
                Some(false) => left.push(path.clone()),
                None => {}
            }
        }
        let path = self.manifest_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Io("remove", path, error));
            }
            _ => {}
        }
        for folder in manifest.folders.iter().rev() {
            self.remove_if_empty(folder);
        }
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

    /// True if it was there and was removed, false if it is not as we have written it, `None` if it was not
    /// there.
    fn take_back(&self, manifest: &Manifest, path: &Path) -> Result<Option<bool>, Error> {
        let Some(hash) = self.hash(path)? else { return Ok(None) };
        if !manifest.has(path, &hash) {
            return Ok(Some(false));
        }
        let inside = self.inside(path);
        fs::remove_file(&inside).map_err(|error| Error::Io("remove", inside, error))?;
        if let Some(dir) = path.parent().filter(|dir| dir.starts_with(PERSISTENT)) {
            self.remove_if_empty(dir);
        }
        Ok(Some(true))
    }

    /// Of a file of the host, `None` if it is not there.
    fn hash(&self, path: &Path) -> Result<Option<String>, Error> {
        let inside = self.inside(path);
        match sha256(&inside) {
            Ok(hash) => Ok(Some(hash)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::Io("read", inside, error)),
        }
    }

    /// The folders that have to be made for a file, the outermost first, as paths of the host.
    fn missing_folders(&self, path: &Path) -> Vec<PathBuf> {
        let missing = path.ancestors().skip(1).take_while(|folder| !folder.exists());
        let mut missing: Vec<PathBuf> = missing
            .filter_map(|folder| Some(Path::new("/").join(folder.strip_prefix(&self.root).ok()?)))
            .collect();
        missing.reverse();
        missing
    }

    /// A folder with something of others in it stays.
    fn remove_if_empty(&self, dir: &Path) {
        let _ = fs::remove_dir(self.inside(dir));
    }

    fn inside(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn manifest_path(&self) -> PathBuf {
        self.inside(Path::new(PERSISTENT)).join(MANIFEST)
    }

    fn manifest(&self) -> Result<Manifest, Error> {
        let path = self.manifest_path();
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|error| Error::Manifest(path, error.to_string()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Manifest::default()),
            Err(error) => Err(Error::Io("read", path, error)),
        }
    }

    fn write_manifest(&self, manifest: &Manifest) -> Result<(), Error> {
        let path = self.manifest_path();
        let text = serde_json::to_string_pretty(manifest)
            .map_err(|error| Error::Manifest(path.clone(), error.to_string()))?;
        Content::Text(text + "\n", 0o644).put(&path)
    }
}

fn service_files(service: Service, emulators: &[Emulator], flags: Flags) -> Result<Vec<Planned>, Error> {
    let text = match service {
        Service::Systemd => crate::export::systemd(emulators, flags),
        Service::OpenRc => crate::export::openrc(emulators, flags),
    }
    .map_err(Error::Rule)?;
    let file = |path: &str, content| Planned { path: path.into(), content };
    Ok(match service {
        Service::Systemd => vec![file(BINFMT_D, Content::Text(text, 0o644))],
        Service::OpenRc => vec![
            file(OPENRC[0], Content::Text(text, 0o755)),
            file(OPENRC[1], Content::Link(OPENRC[0].into())),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A host with systemd, and two emulators beside it.
    fn host(service: &str) -> (tempfile::TempDir, Host, Vec<Emulator>) {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        put(&format!("root/{service}"), "");
        put("bundle/bundle.json", "{}");
        let emulators = ["arm", "sh4"].map(|arch| Emulator {
            arch: arch.parse().unwrap(),
            path: put(&format!("bundle/qemu-{arch}"), arch),
            build: [0; 4],
        });
        let host = Host::at(dir.path().join("root"));
        (dir, host, emulators.to_vec())
    }

    /// All that is there, folders with a slash.
    fn all_files(dir: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![dir.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(dir).unwrap().display().to_string();
                if path.is_dir() && !path.is_symlink() {
                    found.push(name + "/");
                    folders.push(path);
                } else {
                    found.push(name);
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn what_was_written_is_taken_back() {
        for (service, own) in [
            ("usr/lib/systemd/systemd-binfmt", &["etc/binfmt.d/qus.conf"][..]),
            ("sbin/openrc-run", &["etc/init.d/qus", "etc/runlevels/boot/qus"]),
        ] {
            let (dir, host, emulators) = host(service);
            let root = dir.path().join("root");
            let before = all_files(&root);
            let moved = host.install("1.2", &emulators, Flags::DEFAULT).unwrap();
            assert_eq!(moved[0].path, Path::new("/usr/local/lib/qus/1.2/qemu-arm"));
            for path in
                own.iter().chain(&["usr/local/lib/qus/1.2/qemu-sh4", "usr/local/lib/qus/1.2/bundle.json"])
            {
                assert!(all_files(&root).contains(&(*path).to_owned()), "{path}");
            }
            let after = all_files(&root);
            host.install("1.2", &emulators, Flags::DEFAULT).unwrap();
            assert_eq!(all_files(&root), after, "again is the same");
            let (removed, left) = host.remove().unwrap();
            assert_eq!((removed.len(), left.len()), (own.len() + 3, 0));
            assert_eq!(all_files(&root), before);
            assert_eq!(host.remove().unwrap().0.len(), 0, "nothing is left to be removed");
        }
    }

    #[test]
    fn another_version_replaces_the_first() {
        let (dir, host, emulators) = host("usr/lib/systemd/systemd-binfmt");
        host.install("1.2", &emulators, Flags::DEFAULT).unwrap();
        let lib = dir.path().join("root/usr/local/lib/qus");
        let before = all_files(&lib);
        let error = host.install("1.3", &emulators[..1], Flags::DEFAULT).unwrap_err();
        assert!(matches!(&error, Error::WouldForget(archs) if archs == &["sh4"]), "{error}");
        assert_eq!(all_files(&lib), before);
        host.install("1.3", &emulators, Flags::DEFAULT).unwrap();
        let files = ["1.3/", "1.3/bundle.json", "1.3/qemu-arm", "1.3/qemu-sh4", "manifest.json"];
        assert_eq!(all_files(&lib), files);
    }

    #[test]
    fn what_others_changed_is_left() {
        let (dir, host, emulators) = host("usr/lib/systemd/systemd-binfmt");
        host.install("1.2", &emulators, Flags::DEFAULT).unwrap();
        let conf = dir.path().join("root/etc/binfmt.d/qus.conf");
        fs::write(&conf, "# mine\n").unwrap();
        let error = host.install("1.2", &emulators, Flags::NO_CREDENTIALS).unwrap_err();
        assert!(matches!(&error, Error::NotOurs(path) if path == Path::new(BINFMT_D)), "{error}");
        assert_eq!(host.remove().unwrap().1, [PathBuf::from(BINFMT_D)]);
        assert!(matches!(host.install("1.2", &emulators, Flags::DEFAULT), Err(Error::NotOurs(_))));
        assert_eq!(fs::read_to_string(conf).unwrap(), "# mine\n");
    }

    #[test]
    fn an_interrupted_change_is_continued_or_taken_back() {
        let (dir, host, emulators) = host("usr/lib/systemd/systemd-binfmt");
        host.install("1.2", &emulators, Flags::DEFAULT).unwrap();
        // The second emulator cannot be copied: the manifest knows both contents of the rules by then.
        let emulator = dir.path().join("bundle/qemu-sh4");
        fs::write(&emulator, "another").unwrap();
        let part = dir.path().join("root/usr/local/lib/qus/1.2/qemu-sh4.part");
        fs::create_dir(&part).unwrap();
        assert!(matches!(
            host.install("1.2", &emulators, Flags::NO_CREDENTIALS),
            Err(Error::Io("write", ..))
        ));
        fs::remove_dir(&part).unwrap();
        host.install("1.2", &emulators, Flags::NO_CREDENTIALS).unwrap();
        assert_eq!(host.remove().unwrap().1, Vec::<PathBuf>::new());
    }

    #[test]
    fn failures_are_told_and_nothing_is_there_in_part() {
        let (dir, host, mut emulators) = host("no/service");
        assert!(matches!(host.install("1", &emulators, Flags::DEFAULT), Err(Error::NoService)));
        fs::create_dir_all(dir.path().join("root/sbin")).unwrap();
        fs::write(dir.path().join("root/sbin/openrc-run"), "").unwrap();
        emulators[1].path = "/no/such/emulator".into();
        let error = host.install("1", &emulators, Flags::DEFAULT).unwrap_err().to_string();
        assert!(error.contains("cannot read /no/such/emulator"), "{error}");
        assert!(!dir.path().join("root/usr").exists());
        fs::create_dir_all(dir.path().join("root/usr/local/lib/qus")).unwrap();
        fs::write(dir.path().join("root/usr/local/lib/qus/manifest.json"), "garbage").unwrap();
        assert!(matches!(host.remove(), Err(Error::Manifest(..))));
    }
}
