//! Tests of the command line: arguments, messages, exit status. Tests that compile, need root or the network are in
//! `cargo xtask smoke`.

#![expect(clippy::disallowed_methods, reason = "tests run the program from outside")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod action;
mod bench;
mod build_qemu;
mod build_qus;
mod chaos;
mod documents;
mod ended;
mod guests;
mod help;
mod hints;
mod images;
mod output;
mod plan;
mod tarballs;
mod tidy;

use std::path::Path;
use std::process::{Command, Output};

/// Runs xtask with its own home, cache and target directory.
struct Xtask {
    dir: tempfile::TempDir,
}

/// The result of a run.
struct Ended {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Xtask {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .args(args)
            .env_remove("QUS_SOURCE")
            .env("HOME", self.path("home"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("CARGO_TARGET_DIR", self.path("target"));
        command
    }

    fn run(&self, args: &[&str]) -> Ended {
        Ended::of(self.command(args).output().unwrap())
    }
}

impl Ended {
    fn of(output: Output) -> Self {
        Self {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Asserts that the run failed with this status, printed no data, and that stderr contains all of these words.
    fn failed(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status, Some(status), "{}", self.stderr);
        assert_eq!(self.stdout, "");
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in: {}", self.stderr);
        }
    }
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
