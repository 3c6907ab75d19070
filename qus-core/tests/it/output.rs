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

/// Runs `qus` on a terminal that has this width, and returns what the terminal gets.
fn on_terminal(columns: u8, environment: &str, args: &str) -> String {
    let qus = env!("CARGO_BIN_EXE_qus");
    let line = format!("stty cols {columns} rows 24; env {environment} '{qus}' {args}");
    ended(Command::new("script").args(["-qc", &line, "/dev/null"])).stdout.replace('\r', "")
}

#[test]
fn a_terminal_has_colours_unless_they_are_refused() {
    let red = "\u{1b}[1;31merror:\u{1b}[0m ";
    assert!(on_terminal(80, "TERM=xterm", "explain /no/such/file").contains(red));
    for environment in ["TERM=dumb", "-u TERM", "TERM=xterm NO_COLOR=1", "TERM=xterm CLICOLOR=0"] {
        let shown = on_terminal(80, environment, "explain /no/such/file");
        assert!(shown.contains("error: ") && !shown.contains('\u{1b}'), "{environment}: {shown}");
    }
    let explain = |args: &[&str], variable: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qus"));
        ended(command.arg("explain").args(args).arg("/no/such/file").env(variable, "1").env("TERM", "xterm"))
    };
    assert!(!explain(&[], "X").stderr.contains('\u{1b}'), "a pipe has colours");
    assert!(explain(&[], "CLICOLOR_FORCE").stderr.starts_with(red));
    assert!(!explain(&["--json"], "CLICOLOR_FORCE").stdout.contains('\u{1b}'), "JSON has colours");
}

#[test]
fn a_terminal_has_no_line_that_is_too_long() {
    for columns in [40, 80] {
        for args in
            ["--help", "install --help", "help explain", "install vax", "nonsense", "explain /no/such"]
        {
            let shown = on_terminal(columns, "TERM=dumb", args);
            let is_long = |line: &&str| line.chars().count() > columns.into() && line.trim().contains(' ');
            assert_eq!(shown.lines().find(is_long), None, "{columns} columns: {args}");
        }
    }
    let wide = on_terminal(200, "TERM=dumb", "--help");
    assert!(wide.lines().any(|line| line.len() > 100), "nothing uses the width: {wide}");
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
