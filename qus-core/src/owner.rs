//! Which program has registered a handler. qus changes only its own handlers; for the others, users need to know where
//! they come from.
//!
//! Our handlers are marked in the kernel ([`Entry::is_ours`]). Others are looked up in the directories in which systemd
//! and Debian's update-binfmts store their rules.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use qus_core::binfmt::{Binfmt, MOUNT_POINT};
//! use qus_core::owner::ConfiguredRules;
//!
//! let configured = ConfiguredRules::read(Path::new("/"));
//! for (name, entry) in Binfmt::at(MOUNT_POINT).entries()? {
//!     println!("{}: {}", name.to_string_lossy(), configured.owner(&entry?));
//! }
//! # Ok::<(), qus_core::binfmt::BinfmtError>(())
//! ```

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::binfmt::{Entry, Rule};
use crate::file;

/// The directories in which systemd-binfmt reads its rules, the highest precedence first (`man binfmt.d`).
pub const BINFMT_D: [&str; 4] =
    ["etc/binfmt.d", "run/binfmt.d", "usr/local/lib/binfmt.d", "usr/lib/binfmt.d"];

/// The directory in which update-binfmts has a file for each of its handlers.
pub const UPDATE_BINFMTS: &str = "var/lib/binfmts";

/// Which program has registered a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// qus.
    Qus,
    /// systemd-binfmt, from this file.
    Systemd(PathBuf),
    /// Debian's update-binfmts, from this file.
    Debian(PathBuf),
    /// Another program.
    Other,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Qus => "qus",
            Self::Systemd(_) => "systemd",
            Self::Debian(_) => "debian",
            Self::Other => "another",
        })
    }
}

/// The rules that services of the host register at boot or on request.
#[derive(Debug, Default)]
pub struct ConfiguredRules {
    /// Files of systemd-binfmt and the rules that they hold, in the order in which they are read.
    pub systemd: Vec<(PathBuf, Rule)>,
    /// The host's root directory.
    root: PathBuf,
}

impl ConfiguredRules {
    /// Reads the rules of the system with this root directory. Files and lines that cannot be read are ignored.
    pub fn read(root: &Path) -> Self {
        let mut files: Vec<PathBuf> = Vec::new();
        for dir in BINFMT_D {
            for entry in fs::read_dir(root.join(dir)).into_iter().flatten().flatten() {
                let path = entry.path();
                // A file hides those of the same name in directories of lower precedence.
                let hidden = files.iter().any(|other| other.file_name() == path.file_name());
                if path.extension() == Some(OsStr::new("conf")) && !hidden {
                    files.push(path);
                }
            }
        }
        files.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
        let mut systemd = Vec::new();
        for path in files {
            let text = file::read(&path).unwrap_or_default();
            let lines = text
                .split(|&byte| byte == b'\n')
                .filter(|line| !line.is_empty() && !b"#;".contains(&line[0]));
            systemd.extend(lines.filter_map(|line| Some((path.clone(), Rule::parse(line).ok()?))));
        }
        Self { systemd, root: root.to_owned() }
    }

    /// The file of update-binfmts for a handler, if there is one.
    pub fn debian(&self, name: &OsStr) -> Option<PathBuf> {
        let path = self.root.join(UPDATE_BINFMTS).join(name);
        path.is_file().then_some(path)
    }

    /// Which program has registered a handler.
    pub fn owner(&self, entry: &Entry) -> Owner {
        let name = &entry.rule.name;
        if entry.is_ours() {
            return Owner::Qus;
        }
        let same =
            |(_, rule): &&(PathBuf, Rule)| rule.name == *name && rule.interpreter == entry.rule.interpreter;
        if let Some((file, _)) = self.systemd.iter().find(same) {
            return Owner::Systemd(file.clone());
        }
        self.debian(name).map_or(Owner::Other, Owner::Debian)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binfmt::{Files, Flags, Magic, entry};

    #[test]
    fn owners() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("usr/lib/binfmt.d/qemu.conf", "# comment\n\n:qemu-arm:M::arm::/usr/bin/qemu-arm:F\nnonsense\n");
        put("usr/lib/binfmt.d/hidden.conf", ":hidden:M::x::/hidden:F\n");
        put("etc/binfmt.d/hidden.conf", "");
        put("etc/binfmt.d/not-a-rule.txt", ":other:M::x::/other:F\n");
        put("var/lib/binfmts/jar", "");
        let configured = ConfiguredRules::read(root.path());
        assert_eq!(configured.systemd.len(), 1);
        let owner = |name: &str, interpreter: &str| {
            let text = format!("enabled\ninterpreter {interpreter}\nflags: F\noffset 0\nmagic 61726d\n");
            configured.owner(&Entry::parse(OsStr::new(name), text.as_bytes()).unwrap())
        };
        assert_eq!(
            owner("qemu-arm", "/usr/bin/qemu-arm"),
            Owner::Systemd(root.path().join("usr/lib/binfmt.d/qemu.conf"))
        );
        assert_eq!(owner("qemu-arm", "/elsewhere"), Owner::Other);
        assert_eq!(owner("hidden", "/hidden"), Owner::Other);
        assert_eq!(owner("jar", "/usr/bin/jexec"), Owner::Debian(root.path().join("var/lib/binfmts/jar")));
        let arm = "arm".parse().unwrap();
        let rule = Rule {
            name: "qemu-arm".into(),
            files: Files::Magic(0, Magic::of(arm, [0; 4]).next().unwrap()),
            interpreter: "/i".into(),
            flags: Flags::DEFAULT,
        };
        let text = entry::text(&rule);
        let ours = Entry::parse(OsStr::new("qemu-arm"), text.as_bytes()).unwrap();
        assert_eq!(configured.owner(&ours), Owner::Qus);
    }
}
