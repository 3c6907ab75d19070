//! Hints of errors, each last and once; what they name in backticks exists.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::commands::{FOREIGN, machine, text};
use super::{Ended, qus};

/// What is in backticks in the hints of a command's output.
fn commands(ended: &Ended) -> Vec<String> {
    let output = format!("{}{}", ended.stdout, ended.stderr);
    let hints = output.lines().filter_map(|line| line.split_once("hint: ").or(line.split_once("hint  ")));
    hints.flat_map(|(_, hint)| hint.split('`').skip(1).step_by(2).map(str::to_owned)).collect()
}

/// Runs what a hint names, if that changes nothing; else its help.
fn check(hint: &str) {
    for command in hint.split("&&").map(str::trim) {
        let words: Vec<&str> = command.split_whitespace().collect();
        match &*words {
            ["qus", "doctor"] | ["qus", _, "--help"] | ["qus", "explain" | "status", ..] => {
                let ended = qus(&words[1..]);
                assert!(matches!(ended.status, Some(0 | 1)), "{command}: {}", ended.stderr);
            }
            ["qus", args @ ..] => {
                // Everything before it is parsed, and refused if it is unknown.
                let end = args.iter().position(|arg| *arg == "--").unwrap_or(args.len());
                let ended = qus(&[&args[..end], &["--help"]].concat());
                assert_eq!(ended.status, Some(0), "{command}: {}", ended.stderr);
            }
            [option, ..] if option.starts_with("--") => {
                let ours = ["--force", "--dir", "--any-owner"].contains(option);
                let help = qus(&["install", "--help"]).stdout;
                assert!(!ours || help.contains(option), "`{option}` is not in {help}");
            }
            _ => {}
        }
    }
}

#[test]
fn hints_are_last_and_name_what_exists() {
    let files = machine();
    let (mount, dir) = (files.arg("binfmt"), files.arg("bin"));
    let install = ["--mount", &mount, "install", FOREIGN, "--no-probe", "--dir", &dir];
    let with = |more: &[&str]| qus(&[&install[..], more].concat());
    let mut provoked = vec![
        qus(&["--mount", "/no/such/mount", "install", FOREIGN, "--no-probe", "--dir", &dir]),
        qus(&["--mount", &mount, "install", "s390x", "--no-probe", "--dir", &dir]),
        qus(&["--mount", &mount, "install", "all", "--dir", &files.arg("")]),
        qus(&["--mount", &mount, "install", FOREIGN, "--dir", "/no/such/directory"]),
        qus(&["--mount", &mount, "status", FOREIGN]),
        with(&["--persist", "--host-root", &files.arg("binfmt")]),
    ];
    files.write("binfmt/qemu-alpha", text(&files).0);
    provoked.push(with(&["--no-credentials"]));
    files.write("binfmt/qemu-alpha", text(&files).0.replace("717573", "000000"));
    provoked.push(with(&[]));
    files.write("bin/bundle.json", "{");
    provoked.push(with(&[]));
    for ended in &provoked {
        assert_eq!(ended.status, Some(1), "{}", ended.stderr);
        assert_eq!(ended.stderr.matches("hint: ").count(), 1, "{}", ended.stderr);
        assert!(!commands(ended).is_empty(), "nothing in backticks: {}", ended.stderr);
        commands(ended).iter().for_each(|hint| check(hint));
    }
    for ended in provoked.iter().filter(|ended| !ended.stderr.contains("not installed: ")) {
        let last = ended.stderr.lines().last().unwrap();
        assert!(last.starts_with("hint: "), "{}", ended.stderr);
    }
}

#[test]
fn findings_and_explanations_have_hints() {
    let files = machine();
    let mount = files.arg("binfmt");
    let foreign = qus_core::probe::image(FOREIGN.parse().unwrap());
    files.write("program", foreign);
    fs::set_permissions(files.path("program"), fs::Permissions::from_mode(0o755)).unwrap();
    let explained = qus(&["--mount", &mount, "explain", &files.arg("program")]);
    assert!(commands(&explained).contains(&format!("qus install {FOREIGN}")), "{}", explained.stdout);
    files.write("binfmt/qemu-alpha", text(&files).0.replace("POCF", "P").replace("enabled", "disabled"));
    let doctor = qus(&["--mount", &mount, "doctor", FOREIGN]);
    assert!(commands(&doctor).contains(&format!("qus install {FOREIGN} --force")), "{}", doctor.stdout);
    for ended in [explained, doctor] {
        assert_eq!(ended.status, Some(1), "{}", ended.stderr);
        commands(&ended).iter().for_each(|hint| check(hint));
    }
}
