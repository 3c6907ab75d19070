//! Output that cannot be written: a message that is lost ends nothing, data that is lost is an error.

use std::fs::File;
use std::process::{Command, Stdio};

use super::{Ended, ended};

/// Runs `qus` with the output that a shell's redirection gives it.
fn redirected(redirection: &str, args: &[&str]) -> Ended {
    let script = format!("exec \"$0\" \"$@\" {redirection}");
    ended(Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_qus")]).args(args))
}

/// A pipe whose reader has ended, as after `head -1`.
fn closed_pipe() -> Stdio {
    nix::unistd::pipe().unwrap().1.into()
}

/// Commands that print messages, with the exit status that each has.
const WITH_MESSAGES: [(&[&str], i32); 5] = [
    (&["install", "vax"], 1),
    (&["remove", "all", "--dry-run"], 0),
    (&["--mount", "/no/such/mount", "status"], 0),
    (&["nonsense"], 2),
    (&["--install"], 2),
];

#[test]
fn messages_that_are_not_read_end_nothing() {
    for (args, status) in WITH_MESSAGES {
        for redirection in ["2> /dev/full", "2>&-", "0<&- 1>&- 2>&-"] {
            assert_eq!(redirected(redirection, args).status, Some(status), "{args:?} {redirection}");
        }
        let piped = ended(Command::new(env!("CARGO_BIN_EXE_qus")).args(args).stderr(closed_pipe()));
        assert_eq!(piped.status, Some(status), "{args:?} with a closed pipe");
    }
}

#[test]
fn data_that_cannot_be_written_is_an_error() {
    let commands: [&[&str]; 5] =
        [&["platforms"], &["--help"], &["help", "run"], &["--version"], &["completions", "bash"]];
    for args in commands {
        redirected("> /dev/full", args).says(1, &["cannot write to standard output", "No space left"]);
        let piped = ended(Command::new(env!("CARGO_BIN_EXE_qus")).args(args).stdout(closed_pipe()));
        piped.says(0, &[]);
    }
}

/// The next file would get the number of a closed descriptor, and messages be written to it.
#[test]
fn messages_are_not_written_to_files() {
    let files = super::TestDir::new();
    files.write("script", "#!/bin/sh\n");
    let before = files.read("script");
    redirected("0<&- 1>&- 2>&-", &["explain", &files.arg("script")]);
    assert_eq!(files.read("script"), before);
    files.write("in", "");
    let output = ended(
        Command::new(env!("CARGO_BIN_EXE_qus"))
            .args(["status", "vax"])
            .stderr(File::options().append(true).open(files.path("in")).unwrap()),
    );
    assert_eq!(output.status, Some(1));
    assert!(files.read("in").contains("unknown architecture"), "what can be written is written");
}
