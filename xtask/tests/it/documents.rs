//! The links in documents refer to existing files and sections.

use super::workspace;
use std::fs;
use std::path::{Path, PathBuf};

/// All documents with their texts.
pub(crate) fn documents() -> Vec<(PathBuf, String)> {
    let pages = fs::read_dir(workspace().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let readmes =
        ["README.md", "CONTRIBUTING.md", "images/README.md", "qemu-src/patches/README.md", "xtask/README.md"];
    let all = pages.chain(readmes.map(|file| workspace().join(file)));
    all.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
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
