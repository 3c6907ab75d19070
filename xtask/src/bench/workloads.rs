//! The workloads to measure, and their files in `/bench`.
//!
//! Each workload takes between a third of a second and a second under emulation, so that a round is short and the load of
//! the machine changes little during it. Shorter programs run several times, and the time of one run is reported. The
//! output of a workload depends only on its input: not on time, PIDs or addresses.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use fs_err as fs;

use crate::base::files;

/// A command that runs under each emulator.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) argv: &'static [&'static str],
    /// Number of processes per sample.
    pub(super) times: u32,
    /// The expected exit status.
    pub(super) status: i32,
    /// Whether it needs the guest's root filesystem.
    pub(super) in_root: bool,
}

/// The workload that measures only startup and memory.
pub(super) const EXIT: &str = "exit";

/// The workload that measures the dynamic linker and the translation of the C library.
pub(super) const TRUE: &str = "true";

pub(super) const WORKLOADS: [Workload; 14] = [
    Workload {
        times: 50,
        status: qus_core::probe::STATUS,
        in_root: false,
        ..Workload::new("probe", "a program of a few instructions", &["/bench/probe"])
    },
    Workload { times: 50, ..Workload::new(EXIT, "a static program that ends at once", &["/bench/exit"]) },
    Workload { times: 25, ..Workload::new(TRUE, "true, dynamically linked", &["/usr/bin/true"]) },
    Workload::new("shell", "a shell that starts other programs in a loop", &["/bin/dash", "/bench/shell.sh"]),
    Workload::new("threads", "500 threads alive together", &["/bench/threads", "500"]),
    Workload::new(
        "gcc",
        "gcc -O2 of a generated C file",
        &["/usr/bin/gcc", "-O2", "-S", "-o", "-", "/bench/large.c"],
    ),
    Workload::new(
        "configure",
        "checks as a configure script makes them",
        &["/bin/dash", "/bench/configure.sh"],
    ),
    Workload::new("perl", "words counted and sorted", &["/usr/bin/perl", "/bench/words.pl"]),
    Workload::new("python", "objects, dictionaries, JSON", &["/usr/bin/python3", "/bench/objects.py"]),
    Workload::new("xz", "tar and xz of a directory", &["/bin/dash", "/bench/pack.sh"]),
    Workload::new("sha256", "sha256sum of some MB", &["/usr/bin/sha256sum", "/bench/data"]),
    Workload::new("integers", "a loop of integers, compiled -O2", &["/bench/integers"]),
    Workload::new("floats", "a loop of doubles, compiled -O2", &["/bench/floats"]),
    Workload::new(
        "sqlite",
        "a database in memory",
        &["/usr/bin/sqlite3", ":memory:", ".read /bench/database.sql"],
    ),
];

/// C programs: name, compiler options, source.
pub(super) const PROGRAMS: [(&str, &[&str], &str); 4] = [
    ("exit", &["-O2", "-static"], include_str!("programs/exit.c")),
    ("threads", &["-O2", "-pthread"], include_str!("programs/threads.c")),
    ("integers", &["-O2"], include_str!("programs/integers.c")),
    ("floats", &["-O2"], include_str!("programs/floats.c")),
];

const SCRIPTS: [(&str, &str); 6] = [
    ("shell.sh", include_str!("programs/shell.sh")),
    ("configure.sh", include_str!("programs/configure.sh")),
    ("words.pl", include_str!("programs/words.pl")),
    ("objects.py", include_str!("programs/objects.py")),
    ("pack.sh", include_str!("programs/pack.sh")),
    ("database.sql", include_str!("programs/database.sql")),
];

impl Workload {
    const fn new(name: &'static str, what: &'static str, argv: &'static [&'static str]) -> Self {
        Self { name, what, argv, times: 1, status: 0, in_root: true }
    }
}

/// Selects the workloads whose name contains one of the texts; all without any text.
pub(super) fn select(only: &[String]) -> Vec<&'static Workload> {
    let named =
        |workload: &&Workload| only.is_empty() || only.iter().any(|text| workload.name.contains(&**text));
    WORKLOADS.iter().filter(named).collect()
}

/// Identifies all files and their compiler options.
pub(super) fn id() -> Result<String> {
    let all = serde_json::to_vec(&(PROGRAMS, SCRIPTS, large_source(), DATA))?;
    Ok(files::short_id(&all))
}

/// Writes all files except those that a guest compiles.
pub(super) fn write(dir: &Path) -> Result<()> {
    let sources = PROGRAMS.iter().map(|(name, _, source)| (format!("{name}.c"), *source));
    let scripts = SCRIPTS.iter().map(|(name, text)| ((*name).to_owned(), *text));
    let texts = sources.chain(scripts).map(|(name, text)| (name, text.as_bytes().to_vec()));
    let made = [("large.c".to_owned(), large_source().into_bytes()), ("data".to_owned(), data())];
    for (name, bytes) in texts.chain(made) {
        let path = dir.join(name);
        fs::write(&path, bytes)?;
    }
    Ok(())
}

/// Generates a C file of different functions with loops, branches, structures and calls.
fn large_source() -> String {
    const FUNCTIONS: u32 = 6;
    let mut text = String::from(
        "struct node { struct node *next; unsigned key; double weight; char name[16]; };\n\
         unsigned table[256];\n",
    );
    for n in 0..FUNCTIONS {
        let (a, b, c) = (n * 7 + 3, n % 13 + 1, n % 5 + 2);
        let _ = write!(
            text,
            "static unsigned mix{n}(unsigned x, unsigned y) {{\n\
             \tfor (unsigned i = 0; i < {b}; i++) x = (x << {c} | x >> (32 - {c})) ^ (y += table[(x + i) & 255]);\n\
             \treturn x % {a}u;\n}}\n\
             unsigned walk{n}(struct node *list, unsigned depth) {{\n\
             \tunsigned sum = {a};\n\
             \tfor (struct node *at = list; at; at = at->next) {{\n\
             \t\tswitch (at->key % 6) {{\n\
             \t\tcase 0: sum += mix{n}(at->key, depth); break;\n\
             \t\tcase 1: at->weight = at->weight * {b}.5 + sum; break;\n\
             \t\tcase 2: if (depth) sum ^= walk{n}(at->next, depth - 1); break;\n\
             \t\tcase 3: for (int i = 0; i < 16; i++) sum = sum * 31 + at->name[i];\n\
             \t\tcase 4: sum -= (unsigned)(at->weight / {c}); break;\n\
             \t\tdefault: table[sum & 255] += at->key;\n\
             \t\t}}\n\t}}\n\treturn sum;\n}}\n"
        );
    }
    text
}

/// Size of [`data`] in bytes.
const DATA: usize = 32 << 20;

/// Generates pseudorandom bytes.
fn data() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    next.take(DATA / 8).flat_map(u64::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_select() {
        let names = |only: &[&str]| {
            let only: Vec<_> = only.iter().map(|text| (*text).to_owned()).collect();
            select(&only).iter().map(|workload| workload.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]).len(), WORKLOADS.len());
        assert_eq!(names(&["probe"]), ["probe"]);
        assert_eq!(names(&["gc", "py"]), ["gcc", "python"]);
        assert_eq!(names(&["none"]), [] as [&str; 0]);
    }

    #[test]
    fn files_of_all_workloads_exist() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let compiled = PROGRAMS.map(|(name, _, _)| name);
        for word in WORKLOADS.iter().flat_map(|workload| workload.argv) {
            let Some((_, name)) = word.split_once("/bench/") else { continue };
            assert!(name == "probe" || compiled.contains(&name) || dir.path().join(name).is_file(), "{name}");
        }
    }
}
