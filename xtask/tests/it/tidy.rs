//! Rules of this repository that no lint checks.

use super::workspace;
use std::fs;
use std::path::{Path, PathBuf};

/// All files of the crates, without build output.
fn files() -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for dir in ["qus-core", "qemu-src", "images", "xtask"] {
        walk(&workspace().join(dir), &mut found);
    }
    found
}

fn of_kind(kind: &str) -> Vec<(PathBuf, String)> {
    let of_kind: Vec<_> =
        files().into_iter().filter(|path| path.extension().is_some_and(|e| e == kind)).collect();
    assert!(!of_kind.is_empty(), "no file ends in {kind}");
    of_kind.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_source_file_has_a_header() {
    for (path, text) in of_kind("rs") {
        assert!(text.starts_with("//! "), "{} does not begin with `//!`", path.display());
    }
    for (path, text) in of_kind("toml") {
        let manifest = path.ends_with("Cargo.toml");
        assert!(manifest || text.starts_with("# "), "{} does not begin with a comment", path.display());
    }
}

#[test]
fn files_have_at_most_400_lines() {
    for (path, text) in of_kind("rs") {
        let lines = text.lines().count();
        assert!(lines <= 400, "{} has {lines} lines", path.display());
    }
}

#[test]
fn source_files_contain_no_hashes() {
    for (path, text) in of_kind("rs") {
        let source = text.split("#[cfg(test)]").next().unwrap();
        let tests = path.components().any(|part| part.as_os_str() == "tests");
        let hash = source.split(|c: char| !c.is_ascii_hexdigit()).any(|word| word.len() == 64);
        assert!(tests || !hash, "{} contains a hash", path.display());
    }
}

/// Credentials that a checkout leaves in `.git/config` are readable by every later step of the job.
#[test]
fn workflows_keep_no_credentials() {
    let mut checkouts = 0;
    for entry in fs::read_dir(workspace().join(".github/workflows")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for (at, _) in text.match_indices("uses: actions/checkout@") {
            let step = text[at..].split("\n      - ").next().unwrap();
            assert!(step.contains("with:\n") && step.contains("persist-credentials: false"), "{step}");
            checkouts += 1;
        }
    }
    assert!(checkouts > 2, "{checkouts}");
}

/// cargo shows its progress on standard error, and the first run compiles for minutes.
#[test]
fn the_alias_of_cargo_is_not_silent() {
    let config = fs::read_to_string(workspace().join(".cargo/config.toml")).unwrap();
    let alias = config.lines().find(|line| line.starts_with("xtask = ")).unwrap();
    assert!(alias.contains("run") && !alias.contains("--quiet") && !alias.contains("-q "), "{alias}");
}
