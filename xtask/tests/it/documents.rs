//! The documents: links lead somewhere, commands exist, and every shell block is run by a check or says why not.

#[path = "../../src/check/smoke/kernel/documents/blocks.rs"]
mod blocks;

use super::{Xtask, workspace};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Programs that the machine of the check "documents" has.
const PROGRAMS: [&str; 7] = ["./busybox-arm64", "./qemu-aarch64", "./qus", "cat", "ls", "qus", "sudo"];

/// Every document with its text.
pub(crate) fn documents() -> Vec<(PathBuf, String)> {
    let paths = blocks::documents(workspace()).unwrap();
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The anchor that GitHub generates for a section.
fn anchor(title: &str) -> String {
    let kept = title.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}

/// Why a link in a document is broken; `None` if it is not.
fn broken(document: &Path, link: &str) -> Option<&'static str> {
    let (file, section) = link.split_once('#').map_or((link, None), |(file, section)| (file, Some(section)));
    let target = if file.is_empty() { document.to_owned() } else { document.parent()?.join(file) };
    if !target.exists() {
        return Some("no such file");
    }
    let section = section?;
    let text = fs::read_to_string(target).unwrap();
    let mut titles =
        text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches(['#', ' ']));
    (!titles.any(|title| anchor(title) == section)).then_some("no such section")
}

#[test]
fn no_link_is_broken() {
    let mut links = 0;
    for (path, text) in documents() {
        for (_, rest) in text.match_indices("](").map(|(at, found)| text.split_at(at + found.len())) {
            let link = rest.split(')').next().unwrap();
            if !link.starts_with("https://") {
                assert_eq!(broken(&path, link), None, "{}: {link}", path.display());
                links += 1;
            }
        }
    }
    assert!(links > 30, "{links}");
}

#[test]
fn a_broken_link_is_found() {
    let readme = workspace().join("README.md");
    assert_eq!(broken(&readme, "docs/design.md#a-build"), None);
    assert_eq!(broken(&readme, "docs/no-such-page.md"), Some("no such file"));
    assert_eq!(broken(&readme, "docs/design.md#no-such-section"), Some("no such section"));
}

#[test]
fn every_block_is_run_or_says_why_not() {
    let (mut run, mut marked) = (0, 0);
    for (path, text) in documents() {
        let file = path.display();
        let found = blocks::blocks(&text).unwrap_or_else(|why| panic!("{file}: {why}"));
        for block in found {
            let at = format!("{file}, line {}", block.line);
            if let Some(reason) = block.not_run {
                assert!(reason.split(' ').count() > 1, "{at}: `{reason}` is no reason");
                marked += 1;
                continue;
            }
            run += 1;
            let scripts = block.commands.iter().flat_map(|command| command.script.lines());
            for line in scripts.filter(|line| !line.starts_with('#')) {
                let program = line.split_whitespace().next().unwrap_or_default();
                assert!(
                    PROGRAMS.contains(&program),
                    "{at}: no check has `{program}`; mark the block: {line}"
                );
            }
        }
    }
    assert!(run > 5 && marked > 5, "{run} blocks are run, {marked} are not");
}

#[test]
fn blocks_are_found() {
    let document = "a\n\n    one\n\n    two\n\nb\n\n<!-- not run: needs x -->\n```console\n$ c\nerror: d\n$ e\n```\n\n\
                    ```diff\n+x\n```\n- item\n  more\n";
    let found = blocks::blocks(document).unwrap();
    let lines: Vec<_> = found.iter().map(|block| (block.line, block.not_run.as_deref())).collect();
    assert_eq!(lines, [(3, None), (10, Some("needs x"))]);
    assert_eq!(found[0].commands[0].script, "one\n\ntwo");
    let [fails, works] = &*found[1].commands else { panic!("two commands") };
    assert!(fails.fails() && fails.script == "c" && !works.fails());
    for (wrong, why) in [
        ("```\nx\n```\n", "line 1: unknown language ``"),
        ("```sh\nx\n", "line 1: a block without an end"),
        ("```console\nx\n```\n", "line 3: output before a command"),
        ("- item\n\n      x\n", "line 3: an indented block in a list; use a fence"),
        ("<!-- not run: x y -->\ntext\n", "line 2: not a shell block, but marked"),
        ("<!-- not run:  -->\n", "line 1: a mark without a reason"),
    ] {
        assert_eq!(blocks::blocks(wrong).err().as_deref(), Some(why), "{wrong}");
    }
}

#[test]
fn shown_output_is_compared() {
    let shown = |text: &str| {
        let document = format!("```console\n$ x\n{text}\n```\n");
        blocks::blocks(&document).unwrap().remove(0).commands.remove(0)
    };
    let printed = "note: n\naarch64  installed  /a/b/qemu-aarch64\nlast\n";
    assert_eq!(shown("aarch64  installed  .../qemu-aarch64\nlast").missing(printed), None);
    assert_eq!(shown("note: ...").missing(printed), None);
    assert_eq!(shown("last\nnote: n").missing(printed), Some("note: n"));
    assert_eq!(shown("aarch64  installed  .../qemu").missing(printed), Some("aarch64  installed  .../qemu"));
    assert_eq!(shown("las").missing(printed), Some("las"));
}

/// The options of each command that follows `program` in a text, with the command.
fn options<'a>(text: &'a str, program: &str) -> Vec<(&'a str, &'a str)> {
    let uses = text.match_indices(program).map(|(at, found)| &text[at + found.len()..]);
    let of_use = |rest: &'a str| {
        let end = rest.find(['`', '|', '#', '"', '\n']).unwrap_or(rest.len());
        let mut words = rest[..end].split_whitespace();
        let command = words.next().unwrap_or_default();
        let options = words.take_while(|word| *word != "--").filter(|word| word.starts_with("--"));
        options
            .map(|option| (command, option.split(['=', ',', ';', ')']).next().unwrap()))
            .collect::<Vec<_>>()
    };
    uses.flat_map(of_use).collect()
}

/// The help of a command and of its subcommands.
fn help_of(xtask: &Xtask, command: &str) -> String {
    let mut help = xtask.run(&["help", command]).stdout + "--help";
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<_> = listed.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    for name in names.iter().filter(|name| *name != "help") {
        help += &xtask.run(&["help", command, name]).stdout;
    }
    help
}

fn has_option(help: &str, option: &str) -> bool {
    help.split(|c: char| !c.is_alphanumeric() && c != '-').any(|word| word == option)
}

#[test]
fn commands_have_the_options_that_documents_name() {
    let commands = fs::read_to_string(workspace().join("docs/commands.md")).unwrap();
    let sections: BTreeMap<&str, &str> =
        commands.split("\n## qus ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    let (xtask, mut helps, mut count) = (Xtask::new(), BTreeMap::new(), 0);
    for (path, text) in documents() {
        for (command, option) in options(&text, "qus ").into_iter().chain(options(&text, "qus:10.2.2 ")) {
            if let Some(help) = sections.get(command) {
                assert!(has_option(help, option), "{}: `qus {command}` has no {option}", path.display());
                count += 1;
            }
        }
        for (command, option) in options(&text, "cargo xtask ") {
            let help = helps.entry(command.to_owned()).or_insert_with(|| help_of(&xtask, command));
            assert!(has_option(help, option), "{}: `cargo xtask {command}` has no {option}", path.display());
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
}

#[test]
fn an_option_that_does_not_exist_is_found() {
    let found =
        options("`qus install --force` and\n    qus run a -- b --no\n    qus man --x # --y\n", "qus ");
    assert_eq!(found, [("install", "--force"), ("man", "--x")]);
    assert!(has_option("  -f, --force  Do", "--force") && !has_option("  --forced <X>", "--force"));
}

#[test]
fn the_minimum_rust_version_is_stated() {
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let version = manifest.split("\nrust-version = \"").nth(1).unwrap().split('"').next().unwrap();
    for file in ["README.md", "docs/building.md"] {
        let text = fs::read_to_string(workspace().join(file)).unwrap();
        let stated = text.split("Rust ").filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let stated: Vec<_> = stated.map(|rest| rest.split([' ', ',']).next().unwrap()).collect();
        assert_eq!(stated, [version], "{file}");
    }
}

/// The name of the images, up to their tag: a maintainer replaces it with one command, docs/releasing.md.
#[test]
fn all_examples_name_the_same_images() {
    let daemonset = fs::read_to_string(workspace().join("images/daemonset.yaml")).unwrap();
    let image = daemonset.split(" image: ").nth(1).unwrap().split(':').next().unwrap();
    let repository = image.split_once('/').unwrap().1;
    let examples = ["compose.yaml", "qus.service", "action/action.yml"].map(|file| {
        let path = workspace().join("images").join(file);
        (path.clone(), fs::read_to_string(path).unwrap())
    });
    let mut names = 0;
    for (path, text) in documents().into_iter().chain(examples) {
        for word in text.split(|c: char| c.is_whitespace() || "`\"',;()={}".contains(c)) {
            let name = word.trim_start_matches("QUS_IMAGE:-");
            let name = name.split_once(':').map_or(name, |(name, _)| name);
            let (registry, last) = (name.split('/').next().unwrap(), name.rsplit('/').next().unwrap());
            let ours = last == "qus" || image.ends_with(&format!("/{last}"));
            if registry.trim_start_matches('.').contains('.') && ours && name.contains('/') {
                assert_eq!(name, image, "{}", path.display());
                names += 1;
            }
        }
        for (_, rest) in text.match_indices("uses: ").map(|(at, found)| text.split_at(at + found.len())) {
            if let Some((owner, _)) =
                rest.split_once("/images/action@").filter(|(owner, _)| !owner.contains('\n'))
            {
                assert_eq!(owner, repository, "{}", path.display());
                names += 1;
            }
        }
        for old in ["REPO", "registry.example.com", "YOUR-IMAGE"] {
            let mut words = text.split(|c: char| !c.is_alphanumeric() && !"-./".contains(c));
            assert!(!words.any(|word| word == old), "{} names {old}", path.display());
        }
    }
    assert!(names > 10, "{names}");
}
