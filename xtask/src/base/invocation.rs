//! A command before it runs: created with `cmd!(sh(), "…")`, assigned a directory, and formatted as a shell line.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use xshell::{Cmd, Shell};

thread_local! {
    /// The working directory and environment of this shell are never changed; each command sets its own.
    static SHELL: &'static Shell = Box::leak(Box::new(Shell::new().expect("main has found the current directory")));
}

/// The shell that creates commands: `cmd!(sh(), "…")`.
pub(crate) fn sh() -> &'static Shell {
    SHELL.with(|shell| *shell)
}

/// A command and its working directory.
pub(crate) struct Invocation<'a> {
    cmd: Cmd<'a>,
    dir: Option<PathBuf>,
}

impl<'a> From<Cmd<'a>> for Invocation<'a> {
    fn from(cmd: Cmd<'a>) -> Self {
        Self { cmd, dir: None }
    }
}

impl From<Invocation<'_>> for Command {
    fn from(invocation: Invocation<'_>) -> Self {
        let mut command = Self::from(invocation.cmd);
        if let Some(dir) = invocation.dir {
            command.current_dir(dir);
        }
        command
    }
}

impl Invocation<'_> {
    /// The program's name, without its directory.
    pub(super) fn program(&self) -> String {
        let line = self.cmd.to_string();
        let name = line.split(' ').next().unwrap_or_default();
        name.rsplit('/').next().unwrap_or(name).to_owned()
    }
}

/// Sets the working directory of a command.
pub(crate) trait InDir<'a> {
    fn in_dir(self, dir: &Path) -> Invocation<'a>;
}

impl<'a> InDir<'a> for Cmd<'a> {
    fn in_dir(self, dir: &Path) -> Invocation<'a> {
        Invocation { cmd: self, dir: Some(dir.to_owned()) }
    }
}

/// A word of a shell line, quoted if necessary.
pub(crate) fn quote(text: &OsStr) -> String {
    let text = text.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./,:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The command as a shell line: directory, environment, arguments.
pub(super) fn pasteable(command: &Command) -> String {
    let mut line = String::from("$ ");
    if let Some(dir) = command.get_current_dir() {
        let _ = write!(line, "cd {} && ", quote(dir.as_os_str()));
    }
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            let _ = write!(line, "{}={} ", name.to_string_lossy(), quote(value));
        }
    }
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).map(quote).collect();
    line + &words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell() {
        for (word, expected) in
            [("/a/b=c", "/a/b=c"), ("", "''"), ("a b", "'a b'"), ("$HOME", "'$HOME'"), ("it's", r"'it'\''s'")]
        {
            assert_eq!(quote(OsStr::new(word)), expected);
        }
    }
}
