//! Help texts, and that documents mention only existing commands.

use super::Xtask;
use super::documents::documents;

const COMMANDS: [&str; 16] = [
    "bench",
    "build-qemu",
    "build-qus",
    "bump",
    "chaos",
    "codegen",
    "engine",
    "fuzz",
    "guests",
    "images",
    "plan",
    "release",
    "smoke",
    "tarballs",
    "test",
    "vm",
];

#[test]
fn every_command_is_listed_and_has_its_own_help() {
    let xtask = Xtask::new();
    let all = xtask.run(&["--help"]).stdout;
    assert!(all.contains("Exit status: 0 success; 1 failure"), "{all}");
    for command in COMMANDS {
        assert!(all.contains(&format!("  {command} ")), "{command} in {all}");
        let help = xtask.run(&[command, "--help"]);
        assert_eq!(help.status, Some(0));
        assert!(help.stdout.contains(&format!("Usage: cargo xtask {command}")), "{}", help.stdout);
    }
    let listed =
        all.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // Long descriptions are continued on further lines.
    let listed = listed.filter(|line| !line.starts_with("   "));
    assert_eq!(listed.count(), COMMANDS.len() + 1, "a command is missing in this test, or `help` in {all}");
}

#[test]
fn engines_in_machines_are_documented() {
    let xtask = Xtask::new();
    let help = xtask.run(&["vm", "engine", "--help"]).stdout;
    for word in ["  up ", "  env ", "  down ", "Exit status: 0 success", "Examples:"] {
        assert!(help.contains(word), "{word} in {help}");
    }
    let help = xtask.run(&["vm", "engine", "up", "--help"]).stdout;
    for option in ["--arch", "--memory", "--cpus", "--disk", "--publish", "--boot-timeout"] {
        assert!(help.contains(option), "{option} in {help}");
    }
}

#[test]
fn build_qemu_documents_its_environment() {
    let help = Xtask::new().run(&["build-qemu", "--help"]).stdout;
    for word in ["QUS_SOURCE", "XDG_CACHE_HOME", "CC ", "--dry-run", "--json", "--locked", "lts"] {
        assert!(help.contains(word), "{word} in {help}");
    }
}

#[test]
fn documents_mention_only_existing_commands() {
    for (path, text) in documents() {
        let file = path.display();
        for (_, rest) in text.match_indices("cargo xtask ").map(|(at, found)| text.split_at(at + found.len()))
        {
            let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            assert!(COMMANDS.contains(&&*name), "{file} names `cargo xtask {name}`");
        }
    }
}
