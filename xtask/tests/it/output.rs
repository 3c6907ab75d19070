//! Write errors: lost messages are ignored, lost data is an error.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::Xtask;

/// Outputs that fail: a full disk, and a closed pipe.
fn unwritable() -> [Stdio; 2] {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (_, closed) = nix::unistd::pipe().unwrap();
    [full.into(), closed.into()]
}

/// A command that prints messages and fails.
fn failing_command(xtask: &Xtask) -> Command {
    xtask.command(&["build-qemu", "--source", "/no/such/file"])
}

#[test]
fn unwritable_messages_do_not_change_the_exit_status() {
    let xtask = Xtask::new();
    for (args, status) in [(&["build-qemu", "--jobs", "0"][..], 2), (&["plan", "--host", "vax"], 2)] {
        for stderr in unwritable() {
            let ended = xtask.command(args).stderr(stderr).status().unwrap();
            assert_eq!(ended.code(), Some(status), "{args:?}");
        }
    }
    for stderr in unwritable() {
        assert_eq!(failing_command(&xtask).stderr(stderr).status().unwrap().code(), Some(1));
    }
}

#[test]
fn unwritable_data_is_an_error_but_a_closed_pipe_is_not() {
    let xtask = Xtask::new();
    for args in [&["plan", "--json"][..], &["build-qemu", "--dry-run"], &["--help"], &["--version"]] {
        let [full, closed] = unwritable();
        let ended = xtask.command(args).stdout(full).output().unwrap();
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.contains("error: cannot write to standard output"), "{stderr}");
        let ended = xtask.command(args).stdout(closed).output().unwrap();
        assert_eq!((ended.status.code(), &*ended.stderr), (Some(0), &b""[..]), "{args:?}");
    }
}

#[test]
fn pipes_have_colours_only_if_they_are_forced() {
    let xtask = Xtask::new();
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = xtask.command(args);
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        let output = command.env("TERM", "xterm").envs(variables.iter().copied()).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let force = ("CLICOLOR_FORCE", "1");
    for args in [&["plan", "--host", "vax"][..], &["images", "--host", "s390x", "--dry-run"], &["--help"]] {
        for plain in [&[][..], &[("NO_COLOR", "1"), force], &[("TERM", "dumb")]] {
            assert!(!run(args, plain).contains('\u{1b}'), "{args:?} {plain:?}");
        }
    }
    let coloured = run(&["images", "--host", "s390x", "--dry-run"], &[force]);
    assert!(coloured.contains("\u{1b}[1;31merror:") && coloured.contains("\u{1b}[1;32mhint:"), "{coloured}");
    assert!(!run(&["plan", "--json"], &[force]).contains('\u{1b}'));
}

/// Runs a command on a terminal of this width, and returns the lines that it shows.
fn on_terminal(xtask: &Xtask, columns: u32, args: &[&str]) -> Vec<String> {
    let script = format!("stty rows 50 cols {columns}; {} {}", env!("CARGO_BIN_EXE_xtask"), args.join(" "));
    let mut command = xtask.command(&[]);
    let mut terminal = Command::new("script");
    for (name, value) in command.env("TERM", "xterm").env("NO_COLOR", "1").get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    let output = terminal.args(["--quiet", "--command", &script, "/dev/null"]).stdin(Stdio::null()).output();
    let text = String::from_utf8(output.expect("`script` of util-linux is needed").stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn text_fits_the_terminal() {
    let xtask = Xtask::new();
    let error = ["images", "--repo", "ghcr.io/Some/Qus", "--dry-run"];
    for args in [&error[..], &["build-qemu", "--help"], &["images", "--push", "--load"], &["bench", "--help"]]
    {
        for columns in [40, 80] {
            let lines = on_terminal(&xtask, columns, args);
            assert!(lines.len() > 1, "{args:?}: {lines:?}");
            // Long words and commands are not broken.
            let can_wrap = |line: &&String| {
                let text = line.trim();
                text.contains(' ') && !(text.starts_with('`') && text.ends_with('`'))
            };
            let lines = lines.iter().filter(can_wrap);
            let too_wide = lines.filter(|line| line.chars().count() > columns as usize);
            assert_eq!(too_wide.collect::<Vec<_>>(), [""; 0], "{args:?}, {columns} columns");
        }
    }
    assert_eq!(on_terminal(&xtask, 200, &error).len(), 1);
}

/// Without standard descriptors, the first opened file would get their number and receive their output.
#[test]
#[expect(unsafe_code, reason = "only pre_exec can close descriptors")]
fn closed_standard_descriptors_are_not_reused() {
    let xtask = Xtask::new();
    let close = |mut command: Command, which: &'static [i32]| {
        // SAFETY: between fork and exec, only close() is called, on descriptors without another owner.
        unsafe {
            command.pre_exec(move || {
                which.iter().try_for_each(|fd| nix::unistd::close(*fd)).map_err(Into::into)
            });
        }
        command.output().unwrap().status.code()
    };
    for which in [&[0][..], &[1], &[2], &[0, 1, 2]] {
        assert_eq!(close(xtask.command(&["plan", "--json"]), which), Some(0), "{which:?}");
        assert_eq!(close(failing_command(&xtask), which), Some(1), "{which:?}");
    }
    let lock = std::fs::read_to_string(xtask.path("cache/qus/lock")).unwrap();
    assert!(lock.trim().parse::<u32>().is_ok(), "the lock file contains messages: {lock}");
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let xtask = Xtask::new();
    for name in ["/no/such/\u{1b}[2J\u{7}", "/no/such/\u{9b}2J\n", "x\u{1b}]0;t\u{7}"] {
        for args in [&["build-qemu", "--source", name][..], &["build-qemu", name], &["plan", "--host", name]]
        {
            let ended = xtask.run(args);
            assert!(
                !ended.stderr.chars().any(|c| c.is_control() && c != '\n' && c != '\t'),
                "{:?}",
                ended.stderr
            );
            assert!(ended.stderr.contains("\\u{"), "{:?}", ended.stderr);
        }
    }
}
