//! Whose a handler is. Only ours are ever changed; for the others it is good to know whom to ask.
//!
//! Ours carry a mark in the kernel ([`Entry::is_ours`]). Others are looked up in the places where systemd
//! and Debian's update-binfmts keep what they register.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::binfmt::{Entry, Rule};
use crate::file;

/// Where systemd-binfmt reads its rules, the strongest folder first (`man binfmt.d`).
pub const BINFMT_D: [&str; 4] =
    ["etc/binfmt.d", "run/binfmt.d", "usr/local/lib/binfmt.d", "usr/lib/binfmt.d"];

/// Where update-binfmts keeps a file for each of its handlers.
pub const UPDATE_BINFMTS: &str = "var/lib/binfmts";

/// Whose a handler is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// We have registered it.
    Qus,
    /// systemd-binfmt has, from this file.
    Systemd(PathBuf),
    /// Debian's update-binfmts has, from this file.
    Debian(PathBuf),
    /// Somebody else.
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

/// The rules that programs of the host register by themselves, when it starts or when asked to.
#[derive(Debug, Default)]
pub struct Configured {
    /// Files of systemd-binfmt and the rules that they hold, in the order in which they are read.
    pub systemd: Vec<(PathBuf, Rule)>,
    /// The host's root folder.
    root: PathBuf,
}

impl Configured {
    /// Reads the rules of the system whose root folder this is. What cannot be read is not there.
    pub fn read(root: &Path) -> Self {
        let mut files: Vec<PathBuf> = Vec::new();
        for dir in BINFMT_D {
            for entry in fs::read_dir(root.join(dir)).into_iter().flatten().flatten() {
                let path = entry.path();
                // A file hides those of the same name in weaker folders.
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

    /// Whose a registered handler is.
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
    use crate::binfmt::Magic;
    use crate::text::hex;

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
        let configured = Configured::read(root.path());
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
        let magic = Magic::of("arm".parse().unwrap(), [0; 4]).next().unwrap();
        let text = format!(
            "enabled\ninterpreter /i\nflags: F\noffset 0\nmagic {}\nmask {}\n",
            hex(&magic.magic),
            hex(&magic.mask)
        );
        let ours = Entry::parse(OsStr::new("qemu-arm"), text.as_bytes()).unwrap();
        assert_eq!(configured.owner(&ours), Owner::Qus);
    }
}
