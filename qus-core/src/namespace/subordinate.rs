//! Subordinate users and groups: numbers that an administrator has given to an ordinary user in `/etc/subuid` and
//! `/etc/subgid`.
//!
//! With them the user's namespace has more users than root, as package managers need. The kernel lets only the setuid
//! programs newuidmap and newgidmap map them, which verify again that the numbers belong to the user: nothing that is read
//! here is trusted. They run from outside of the namespace, with an empty environment.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Caller;
use crate::file;
use crate::text::Show;

/// Where the numbers are, and the option of `usermod` that adds some.
const FILES: [(&str, &str); 2] = [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")];

/// How many users a system needs, up to `nobody`, which is 65534.
const USERS: u32 = 65536;

/// The first number that distributions give away.
const FIRST: u32 = 100_000;

/// How many ranges are used; the kernel accepts 340 in a page of text.
const MAX_RANGES: usize = 100;

/// The subordinate users and groups of a user, and the programs that map them.
#[derive(Debug)]
pub struct SubordinateIds {
    /// newuidmap, newgidmap
    programs: [PathBuf; 2],
    maps: [Vec<String>; 2],
}

/// Why a user has no subordinate users and groups.
#[derive(Debug, PartialEq, Eq)]
pub enum SubordinateError {
    /// This program is not in `PATH`.
    NoProgram(&'static str),
    /// Files have no numbers for the user.
    NoRange {
        /// The user's name in `/etc/passwd`, otherwise the number.
        user: String,
        /// Indexes of the files.
        files: Vec<usize>,
        /// A number from which on no user has any.
        free: u32,
    },
}

impl fmt::Display for SubordinateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProgram(name) => write!(f, "the program {name} is not installed"),
            Self::NoRange { user, files, .. } => {
                write!(f, "no line for {} is in {}", user.shown(), names(files).join(" and "))
            }
        }
    }
}

impl std::error::Error for SubordinateError {}

impl SubordinateError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NoProgram(_) => {
                "as root: `apt-get install uidmap`; other distributions have it in the package shadow or shadow-utils"
                    .to_owned()
            }
            // usermod needs a user of /etc/passwd.
            Self::NoRange { user, files, free } if user.parse::<u32>().is_ok() => {
                format!("as root: `echo {user}:{free}:{USERS} | tee -a {}`", names(files).join(" "))
            }
            Self::NoRange { user, files, free } => {
                let range = format!("{free}-{}", free.saturating_add(USERS - 1));
                let options: Vec<_> = files.iter().map(|&file| format!("{} {range}", FILES[file].1)).collect();
                format!("as root: `usermod {} {}`", options.join(" "), user.quoted())
            }
        }
    }
}

fn names(files: &[usize]) -> Vec<&'static str> {
    files.iter().map(|&file| FILES[file].0).collect()
}

impl SubordinateIds {
    /// Finds those of the caller, from outside of the namespace.
    ///
    /// # Errors
    /// See [`SubordinateError`].
    pub fn find(caller: Caller) -> Result<Self, SubordinateError> {
        let read = |path: &str| {
            let bytes = file::read(Path::new(path)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let path = env::var_os("PATH").unwrap_or_default();
        let program = |name| find_program(name, &path).ok_or(SubordinateError::NoProgram(name));
        let programs = [program("newuidmap")?, program("newgidmap")?];
        let (user, group) = (caller.user.as_raw(), caller.group.as_raw());
        let number = user.to_string();
        let name = name_of(&read("/etc/passwd"), &number);
        let texts = FILES.map(|(path, _)| read(path));
        let ranges =
            texts.each_ref().map(|text| ranges(text, &[name.as_deref().unwrap_or(&number), &number]));
        let files: Vec<_> = (0..FILES.len()).filter(|&file| ranges[file].is_empty()).collect();
        if !files.is_empty() {
            let free = texts.iter().map(|text| first_free(text)).max().unwrap_or(FIRST);
            return Err(SubordinateError::NoRange { user: name.unwrap_or(number), files, free });
        }
        let [users, groups] = ranges;
        Ok(Self { programs, maps: [map(user, &users), map(group, &groups)] })
    }

    /// Maps the caller to root in the namespace of a process inside, and the subordinate numbers to those from 1 on.
    ///
    /// # Errors
    /// One of the programs fails; standard error has its message.
    #[expect(clippy::disallowed_methods, reason = "only these setuid programs may map subordinate numbers")]
    pub fn map(&self, process: u32) -> io::Result<()> {
        for (program, map) in self.programs.iter().zip(&self.maps) {
            let mut command = Command::new(program);
            command.arg(process.to_string()).args(map).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
            let status = command.status()?;
            if !status.success() {
                return Err(io::Error::other(format!("{} failed: {status}", program.shown())));
            }
        }
        Ok(())
    }
}

/// An executable file in the absolute directories of `PATH`: others depend on where the user happens to be.
fn find_program(name: &str, path: &OsStr) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    env::split_paths(path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name)).find(is_program)
}

/// The name of a user in the text of `/etc/passwd`.
fn name_of(passwd: &str, number: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    })
}

/// The lines of `/etc/subuid`: whose they are, the first number, and the count.
fn lines(text: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (user, first) = (fields.next()?, fields.next()?.parse().ok()?);
        let count: u32 = fields.next()?.parse().ok()?;
        (count > 0 && count.checked_add(first).is_some()).then_some((user, first, count))
    })
}

/// The first numbers and counts of a user, who can have a line by name and one by number for the same.
fn ranges(text: &str, user: &[&str]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for (_, first, count) in lines(text).filter(|(name, ..)| user.contains(name)) {
        let overlaps = |&(other, length): &(u32, u32)| first < other + length && other < first + count;
        if !ranges.iter().any(overlaps) && ranges.len() < MAX_RANGES {
            ranges.push((first, count));
        }
    }
    ranges
}

/// A number from which on no user has any.
fn first_free(text: &str) -> u32 {
    lines(text).map(|(_, first, count)| first + count).max().unwrap_or(0).max(FIRST)
}

/// Arguments of newuidmap: the number inside, the number outside, and the count, in turn.
fn map(own: u32, ranges: &[(u32, u32)]) -> Vec<String> {
    let mut inside = 0_u32;
    let mut arguments = Vec::new();
    for &(first, count) in [(own, 1)].iter().chain(ranges) {
        let Some(next) = inside.checked_add(count) else { break };
        arguments.extend([inside, first, count].map(|number| number.to_string()));
        inside = next;
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBUID: &str = "alice:100000:65536\nbob:165536:65536\n1000:100000:65536\n1000:300000:10\n\
                          bad\nalice:x:1\nalice:1:0\nalice:4294967295:9\n";

    #[test]
    fn a_user_has_lines_by_name_and_number() {
        assert_eq!(ranges(SUBUID, &["alice", "1000"]), [(100_000, 65536), (300_000, 10)]);
        assert_eq!(ranges(SUBUID, &["carol", "1001"]), []);
        assert_eq!(first_free(SUBUID), 300_010);
        assert_eq!(first_free(""), FIRST);
        assert_eq!(name_of("root:x:0:0::/:\nalice:x:1000:1000::/:\n", "1000").as_deref(), Some("alice"));
        assert_eq!(name_of("root:x:0:1000::/:\n", "1000"), None);
    }

    #[test]
    fn root_is_the_caller_and_others_follow() {
        let arguments = map(1000, &[(100_000, 65536), (300_000, 10)]).join(" ");
        assert_eq!(arguments, "0 1000 1 1 100000 65536 65537 300000 10");
        assert_eq!(map(7, &[(0, u32::MAX)]), ["0", "7", "1"], "numbers inside do not overflow");
    }

    #[test]
    fn programs_are_searched_for_in_absolute_directories() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("newuidmap");
        std::fs::write(&program, "").unwrap();
        let find = |path: &Path| find_program("newuidmap", path.as_os_str());
        assert_eq!(find(dir.path()), None, "it is not executable");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(find(dir.path()), Some(program));
        let up = "../".repeat(env::current_dir().unwrap().components().count());
        assert_eq!(find(&Path::new(&up).join(dir.path().strip_prefix("/").unwrap())), None);
        assert_eq!(find_program("newuidmap", OsStr::new("")), None);
    }

    #[test]
    fn hints_name_free_numbers() {
        let missing = |user: &str, files: Vec<usize>| SubordinateError::NoRange {
            user: user.into(),
            files,
            free: 165_536,
        };
        let both = missing("alice", vec![0, 1]);
        assert_eq!(both.to_string(), "no line for alice is in /etc/subuid and /etc/subgid");
        assert_eq!(
            both.hint(),
            "as root: `usermod --add-subuids 165536-231071 --add-subgids 165536-231071 alice`"
        );
        let unnamed = missing("1000", vec![1]);
        assert_eq!(unnamed.hint(), "as root: `echo 1000:165536:65536 | tee -a /etc/subgid`");
        assert!(SubordinateError::NoProgram("newuidmap").hint().contains("`apt-get install uidmap`"));
    }
}
