//! `qus` as its users see it: arguments, messages, exit status, and a directory in place of the kernel. What
//! needs the kernel is in `cargo xtask smoke kernel`.

#![expect(clippy::disallowed_methods, reason = "tests run the program from outside")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod commands;
mod help;
mod hints;
mod hostile;
mod output;
mod persist;

use std::path::{Path, PathBuf};
use std::process::Command;

/// How a run of `qus` ended.
struct Ended {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

fn qus(args: &[&str]) -> Ended {
    ended(Command::new(env!("CARGO_BIN_EXE_qus")).args(args))
}

fn ended(command: &mut Command) -> Ended {
    let output = command.env_remove("QEMU_BIN_DIR").env_remove("QEMU_BINARY_PATH").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Ended {
    /// It ended with this status, and stderr has all of these words.
    fn says(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status, Some(status), "{}{}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in: {}", self.stderr);
        }
    }
}

/// A directory that is removed after the test.
struct TestDir(tempfile::TempDir);

impl TestDir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Its path as an argument.
    fn arg(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
