//! Help that teaches, wrong usage, and what is generated from the commands.

use std::fs;

use super::{TestDir, qus, workspace};

const COMMANDS: [&str; 11] = [
    "install",
    "remove",
    "status",
    "doctor",
    "explain",
    "run",
    "export",
    "probe",
    "platforms",
    "completions",
    "man",
];

#[test]
fn every_command_is_listed_and_has_its_own_help() {
    let all = qus(&["--help"]).stdout;
    assert!(all.contains("Exit status:\n  0  success"), "{all}");
    for command in COMMANDS {
        assert!(all.contains(&format!("  {command} ")), "{command} in {all}");
        let help = qus(&[command, "--help"]);
        assert_eq!(help.status, Some(0));
        assert!(help.stdout.contains(&format!("Usage: qus {command}")), "{}", help.stdout);
    }
    let listed =
        all.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    assert_eq!(listed.count(), COMMANDS.len() + 1, "a command is missing in this test, or `help` in {all}");
}

#[test]
fn wrong_usage_is_2() {
    qus(&["nonsense"]).says(2, &["nonsense"]);
    qus(&["install"]).says(2, &["<ARCH>"]);
    qus(&["remove"]).says(2, &["<ARCH>"]);
    qus(&["run", "aarch64"]).says(2, &["CMD"]);
    qus(&["export", "yaml", "all"]).says(2, &["systemd", "debian", "openrc", "raw"]);
    qus(&["-i", "ls"]).says(2, &["-i runs a shell"]);
    qus(&["--install"]).says(2, &["--install needs a value"]);
    qus(&["install", "arm", "--host-root", "/x"]).says(2, &["--persist"]);
    qus(&["install", "arm", "--watch=0"]).says(2, &["--watch"]);
    qus(&["install", "arm", "--watch", "--dry-run"]).says(2, &["--watch", "--dry-run"]);
    qus(&["install", "arm", "--watch", "--persist"]).says(2, &["--watch", "--persist"]);
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "elvish", "fish", "zsh", "powershell"] {
        let script = qus(&["completions", shell]).stdout;
        for command in COMMANDS {
            assert!(script.contains(command), "{command} for {shell}");
        }
        assert!(!script.contains("map-ids ("), "a hidden command is offered in {shell}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let files = TestDir::new();
    qus(&["man", &files.arg("man1")]).says(0, &[]);
    for command in COMMANDS {
        let page = files.read(&format!("man1/qus-{command}.1"));
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    assert!(files.read("man1/qus.1").contains("QEMU_BIN_DIR"));
    qus(&["man", "/proc/no/such/directory"]).says(1, &["cannot write manual pages"]);
}

/// README.md and the pages in docs/.
#[test]
fn documents_name_only_commands_that_exist() {
    let pages = fs::read_dir(workspace().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut found = 0;
    for page in pages.chain([workspace().join("README.md")]) {
        let text = fs::read_to_string(&page).unwrap();
        for prefix in ["./qus ", "`qus "] {
            for (at, _) in text.match_indices(prefix) {
                let name: String =
                    text[at + prefix.len()..].chars().take_while(|c| c.is_ascii_lowercase()).collect();
                let known = name == "help" || COMMANDS.contains(&&*name);
                assert!(known, "{} names `qus {name}`", page.display());
                found += 1;
            }
        }
    }
    assert!(found > 20, "no document was searched");
}
