//! The dependencies between source files: no cycles, and each directory of xtask uses only earlier ones.
//!
//! A file depends on the files that its paths name: in `use` declarations and elsewhere, paths that begin with `crate`,
//! `self` or `super`, or with a child module. A `mod` declaration alone is not a dependency.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, ensure};
use fs_err as fs;

use crate::base::context::Context;
use crate::base::progress::say;

/// The directories of xtask in their order: each uses only itself and earlier ones.
const DIRECTORIES: [&str; 12] =
    ["base", "debian", "bundle", "qemu", "qus", "engine", "vm", "ship", "fuzz", "bench", "derive", "check"];

/// Source directories with their root files; xtask comes first.
const CRATES: [(&str, &str); 5] = [
    ("xtask/src", "main.rs"),
    ("qus-core/src", "lib.rs"),
    ("qus-core/src/bin/qus", "main.rs"),
    ("qus-core/src/bin/qus-init", "main.rs"),
    ("qemu-src/src", "lib.rs"),
];

/// The path of a module that is a file, such as `base::exec`; empty for the root of a crate.
type Module = String;

/// The files of a crate, each with those that it uses.
struct Layout {
    uses: BTreeMap<Module, BTreeSet<Module>>,
}

/// Checks the dependencies of all crates.
///
/// # Errors
/// The first cycle of each crate, and all dependencies on later directories.
pub(crate) fn check(cx: &Context) -> Result<()> {
    let mut findings = Vec::new();
    for (dir, root) in CRATES {
        let layout = Layout::read(&cx.paths.root().join(dir), root)?;
        let dependencies: usize = layout.uses.values().map(BTreeSet::len).sum();
        say(format_args!("{dir}: {} files, {dependencies} dependencies", layout.uses.len()));
        findings.extend(layout.cycle().map(|cycle| format!("{dir}: cycle {}", cycle.join(" -> "))));
        if dir == CRATES[0].0 {
            findings.extend(layout.out_of_order(&DIRECTORIES));
        }
    }
    ensure!(findings.is_empty(), "{}", findings.join("; "));
    say(format_args!(
        "no cycles between files; each of the {} directories of xtask uses only earlier ones",
        DIRECTORIES.len()
    ));
    Ok(())
}

impl Layout {
    fn read(dir: &Path, root: &str) -> Result<Self> {
        let mut texts = BTreeMap::new();
        read_files(dir, &[], root, &mut texts)?;
        let modules: BTreeSet<Module> = texts.keys().cloned().collect();
        let uses = texts.iter().map(|(module, text)| (module.clone(), used(module, text, &modules)));
        Ok(Self { uses: uses.collect() })
    }

    /// A cycle of files; the first one is repeated at the end.
    fn cycle(&self) -> Option<Vec<Module>> {
        let mut left: BTreeSet<&Module> = self.uses.keys().collect();
        // A file that uses no remaining file is in no cycle.
        let is_free = |module: &&Module, left: &BTreeSet<&Module>| {
            !self.uses[*module].iter().any(|used| left.contains(used))
        };
        while let Some(free) = left.iter().copied().find(|module| is_free(module, &left)) {
            left.remove(free);
        }
        let mut path = vec![(*left.first()?).clone()];
        loop {
            let next = self.uses[path.last()?].iter().find(|used| left.contains(used))?;
            if let Some(start) = path.iter().position(|module| module == next) {
                path.drain(..start);
                path.push(next.clone());
                return Some(path);
            }
            path.push(next.clone());
        }
    }

    /// Dependencies on a later directory, and files in directories that are not in the order.
    fn out_of_order(&self, directories: &[&str]) -> Vec<String> {
        let position = |module: &str| {
            let directory = module.split("::").next().unwrap_or_default();
            directories.iter().position(|name| *name == directory)
        };
        let mut findings = Vec::new();
        for (module, used) in self.uses.iter().filter(|(module, _)| !module.is_empty()) {
            for other in used {
                match (position(module), position(other)) {
                    (Some(from), Some(to)) if to <= from => {}
                    (None, _) => findings.push(format!("{module} is in none of the directories")),
                    _ => {
                        let other = if other.is_empty() { "the crate root" } else { other };
                        findings.push(format!("{module} uses {other}, which is in no earlier directory"));
                    }
                }
            }
        }
        findings
    }
}

fn read_files(dir: &Path, above: &[&str], root: &str, texts: &mut BTreeMap<Module, String>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_root = above.is_empty() && path.ends_with(root);
        if path.is_dir() {
            // `bin` is other crates.
            if !(above.is_empty() && name == "bin") {
                read_files(&path, &[above, &[&name]].concat(), root, texts)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let module = if is_root || name == "mod" {
                above.join("::")
            } else {
                [above, &[&name]].concat().join("::")
            };
            texts.insert(module, fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// The other modules that a file uses.
fn used(module: &str, text: &str, modules: &BTreeSet<Module>) -> BTreeSet<Module> {
    let code = without_literals(text);
    // In the tests of a file, `super` is the file.
    let (code, tests) = code.split_once("\nmod tests {").unwrap_or((&code, ""));
    let own: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
    let mut used = BTreeSet::new();
    for (code, at) in [(code, own.clone()), (tests, [&own[..], &["tests"]].concat())] {
        for path in paths(code) {
            if let Some(other) = resolve(&path, &own, &at, modules).filter(|other| other != module) {
                used.insert(other);
            }
        }
    }
    used
}

/// Removes comments and string literals, whose text may look like paths.
fn without_literals(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['/', '"', 'r', '\'']) {
        let (before, found) = rest.split_at(at);
        code += before;
        let in_word = before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let hashes = found[1..].len() - found[1..].trim_start_matches('#').len();
        rest = if found.starts_with("//") {
            &found[found.find('\n').unwrap_or(found.len())..]
        } else if found.starts_with('r') && !in_word && found[1 + hashes..].starts_with('"') {
            after(&found[2 + hashes..], &format!("\"{}", "#".repeat(hashes)))
        } else if let Some(literal) = found.strip_prefix('"') {
            let mut escaped = false;
            let end = literal.find(|c: char| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            &literal[end.map_or(literal.len(), |end| end + 1)..]
        } else if found.starts_with("'\"'") || found.starts_with("'\\\"'") {
            after(&found[2..], "'")
        } else {
            code += &found[..1];
            &found[1..]
        };
    }
    code + rest
}

fn after<'a>(text: &'a str, end: &str) -> &'a str {
    text.find(end).map_or("", |at| &text[at + end.len()..])
}

/// All paths of at least two segments.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut rest = code;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
        rest = &rest[start..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = match after.strip_prefix("::") {
            Some(tail) => tree(vec![word.to_owned()], tail, &mut paths),
            None => after,
        };
    }
    paths
}

/// Parses the path or the tree of paths after a `::`, and returns the rest of the text.
fn tree<'a>(above: Vec<String>, text: &'a str, paths: &mut Vec<Vec<String>>) -> &'a str {
    let Some(mut rest) = text.strip_prefix('{') else {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        let path = [above, vec![text[..end].to_owned()]].concat();
        return match text[end..].strip_prefix("::") {
            Some(tail) => tree(path, tail, paths),
            None => {
                paths.push(path);
                &text[end..]
            }
        };
    };
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        match rest.strip_prefix('}') {
            Some(after) => return after,
            None if rest.is_empty() => return rest,
            None => {
                let after = tree(above.clone(), rest, paths);
                // A star or a renaming ends at the next comma or brace.
                rest = &after[after.find([',', '}']).unwrap_or(after.len())..];
            }
        }
    }
}

/// The file that a path refers to; `at` is the module that contains the path.
fn resolve(path: &[String], own: &[&str], at: &[&str], modules: &BTreeSet<Module>) -> Option<Module> {
    let ups = path.iter().take_while(|part| *part == "super").count();
    let (base, path) = match &*path[0] {
        "crate" => (&[][..], &path[1..]),
        "self" => (at, &path[1..]),
        "super" => (&at[..at.len().saturating_sub(ups)], &path[ups..]),
        child if modules.contains(&[own, &[child]].concat().join("::")) => (own, path),
        _ => return None,
    };
    let mut full: Vec<&str> = base.iter().copied().chain(path.iter().map(String::as_str)).collect();
    while !modules.contains(&full.join("::")) {
        full.pop()?;
    }
    Some(full.join("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(files: &[(&str, &str)]) -> Layout {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Layout::read(dir.path(), "main.rs").unwrap()
    }

    fn used(layout: &Layout, module: &str) -> Vec<String> {
        layout.uses[module].iter().cloned().collect()
    }

    #[test]
    fn this_workspace_has_the_documented_layout() {
        check(&Context::new().unwrap()).unwrap();
    }

    #[test]
    fn paths_are_resolved_to_files() {
        let layout = layout(&[
            ("main.rs", "mod a;\nmod b;\nfn main() { a::x::run(b::C) }"),
            ("a/mod.rs", "pub mod x;\npub mod y;"),
            (
                "a/x.rs",
                "use super::y::{self, Z};\nuse std::fs;\n// crate::b\n\nmod tests {\n    use super::*;\n}",
            ),
            (
                "a/y.rs",
                "const T: &str = \"crate::b::X \\\" super\"; const C: char = '\"';\nuse crate::{b::{C, D as E}, a};\nfn z() -> super::super::b::F { a::G }",
            ),
            ("b.rs", ""),
        ]);
        assert_eq!(used(&layout, ""), ["a::x", "b"]);
        assert_eq!(used(&layout, "a::x"), ["a::y"]);
        assert_eq!(used(&layout, "a::y"), ["a", "b"]);
        assert_eq!(layout.cycle(), None);
        assert_eq!(layout.out_of_order(&["b", "a"]), [] as [&str; 0]);
    }

    #[test]
    fn a_cycle_is_found() {
        let layout = layout(&[
            ("main.rs", "mod a;\nmod b;\nmod c;\nmod d;\nuse a::A;"),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "use crate::{c, d};"),
            ("c.rs", "fn c() { super::b::run() }"),
            ("d.rs", ""),
        ]);
        assert_eq!(layout.cycle().unwrap(), ["b", "c", "b"]);
    }

    #[test]
    fn a_dependency_on_a_later_directory_is_found() {
        let layout = layout(&[
            ("main.rs", "mod a;\nmod b;\nfn main() { b::run() }"),
            ("a.rs", "use crate::b;"),
            ("b.rs", "use crate::main_thing;"),
        ]);
        let findings = layout.out_of_order(&["a", "b"]);
        let root = "b uses the crate root, which is in no earlier directory";
        assert_eq!(findings, ["a uses b, which is in no earlier directory", root]);
        assert_eq!(layout.out_of_order(&["b"]), ["a is in none of the directories", root]);
    }
}
