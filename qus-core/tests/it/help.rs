//! Help that teaches, wrong usage, and what is generated from the commands.

use std::fs;

use super::{TestDir, qus, workspace};

const COMMANDS: [&str; 12] = [
    "install",
    "remove",
    "status",
    "doctor",
    "explain",
    "run",
    "export",
    "probe",
    "platforms",
    "self",
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
    qus(&["run", "--env", "NAME", "--", "true"]).says(2, &["it is not NAME=VALUE"]);
    qus(&["run", "--gdb=", "--", "true"]).says(2, &["it is empty"]);
    qus(&["run", "--bind", "/:relative", "--", "true"]).says(2, &["relative is not an absolute path"]);
    qus(&["export", "yaml", "all"]).says(2, &["systemd", "debian", "openrc", "raw"]);
    qus(&["-i", "ls"]).says(2, &["-i runs a shell"]);
    qus(&["--install"]).says(2, &["--install needs a value"]);
    qus(&["install", "arm", "--host-root", "/x"]).says(2, &["--persist"]);
    qus(&["install", "arm", "--watch=0"]).says(2, &["--watch"]);
    qus(&["install", "arm", "--watch", "--dry-run"]).says(2, &["--watch", "--dry-run"]);
    qus(&["install", "arm", "--watch", "--persist"]).says(2, &["--watch", "--persist"]);
}

/// Usage is right: another version of qus may know it.
#[test]
fn an_unknown_architecture_is_1_everywhere() {
    let files = super::commands::machine();
    let dir = files.arg("bin");
    for args in [
        &["install", "vax"][..],
        &["remove", "vax"],
        &["status", "vax"],
        &["doctor", "vax"],
        &["run", "vax", "--", "true"],
        &["export", "raw", "vax", "--dir", &dir],
        &["probe", "vax"],
        &["--install", "vax"],
        &["--uninstall", "vax"],
        &["-s", "--", "-p", "vax"],
    ] {
        qus(args).says(1, &["unknown architecture `vax`"]);
    }
}

#[test]
fn seconds_are_no_architecture() {
    let install = |args: &[&str]| qus(&[&["install"], args].concat());
    install(&["--watch", "5", "arm"]).says(1, &["5 is not an architecture", "`qus install arm --watch=5`\n"]);
    install(&["--watch", "5"]).says(1, &["`qus install all --watch=5`\n"]);
}

#[test]
fn the_version_has_that_of_the_emulators() {
    let files = TestDir::new();
    let version = |dir: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_qus"));
        let output = command.arg("--version").env("QEMU_BIN_DIR", dir).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let own = concat!("qus ", env!("CARGO_PKG_VERSION"));
    assert_eq!(version("/no/such/directory"), format!("{own}\n"));
    let bundle = include_str!("../../../fuzz/bundle/good");
    files.write("bundle.json", bundle);
    assert_eq!(version(&files.arg("")), format!("{own} (QEMU 10.2.2)\n"));
    files.write("bundle.json", bundle.replacen('{', r#"{ "release": "10.2.2-3","#, 1));
    assert_eq!(version(&files.arg("")), format!("{own} (QEMU 10.2.2, release 10.2.2-3)\n"));
    let mut verbose = std::process::Command::new(env!("CARGO_BIN_EXE_qus"));
    verbose.args(["--version", "--verbose"]).env("QEMU_BIN_DIR", files.arg(""));
    let verbose = String::from_utf8(verbose.output().unwrap().stdout).unwrap();
    for line in ["QEMU: 10.2.2", "release: 10.2.2-3", "patches: 1 build"] {
        assert!(verbose.lines().any(|own| own == line), "{line} in {verbose}");
    }
    assert_eq!(qus(&["--verbose", "status"]).status, Some(2));
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "elvish", "fish", "zsh", "powershell"] {
        let script = qus(&["completions", shell]).stdout;
        for command in COMMANDS {
            assert!(script.contains(command), "{command} for {shell}");
        }
        assert!(
            !script.contains("map-ids") && !script.contains("map_ids"),
            "an internal command is in {shell}"
        );
    }
}

/// In bash as it works, elsewhere as it is written.
#[test]
fn completions_know_architectures_and_values() {
    let files = TestDir::new();
    files.write("script", qus(&["completions", "bash"]).stdout);
    let complete = |words: &str| {
        let line = format!(
            "compopt() {{ :; }}; . \"$0\"; COMP_WORDS=(qus {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _qus qus \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[*]}}\""
        );
        super::ended(std::process::Command::new("bash").args(["-c", &line, &files.arg("script")])).stdout
    };
    for (words, expected) in [
        ("install risc", "riscv32 riscv64\n"),
        ("remove al", "alpha all\n"),
        ("run loong", "loongarch64\n"),
        ("export sy", "systemd\n"),
        ("export systemd loong", "loongarch64\n"),
        ("completions z", "zsh\n"),
        ("map", "\n"),
    ] {
        assert_eq!(complete(words), expected, "{words}");
    }
    for shell in ["fish", "zsh"] {
        let script = qus(&["completions", shell]).stdout;
        assert!(script.contains("aarch64 aarch64_be alpha "), "no architectures in {shell}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let files = TestDir::new();
    qus(&["man", &files.arg("man1")]).says(0, &[]);
    for command in COMMANDS {
        let page = files.read(&format!("man1/qus-{command}.1"));
        for section in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "\"EXIT STATUS\"",
            "\"ENVIRONMENT\"",
            "\"EXAMPLES\"",
            "\"SEE ALSO\"",
        ] {
            assert!(page.contains(&format!(".SH {section}\n")), "no {section} for {command}: {page}");
        }
        assert!(!page.contains("map\\-ids"), "an internal command is in {page}");
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
                let option = text[at + prefix.len()..].starts_with("--version");
                let known = option || name == "help" || COMMANDS.contains(&&*name);
                assert!(known, "{} names `qus {name}`", page.display());
                found += 1;
            }
        }
    }
    assert!(found > 20, "no document was searched");
}
