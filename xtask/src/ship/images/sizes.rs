//! Image sizes for the README: recorded when images are pushed, and written to the README by `cargo xtask codegen`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use fs_err as fs;
use qus_core::arch::{ARCHES, HOSTS};
use serde::{Deserialize, Serialize};

use crate::base::context::Context;
use crate::base::files;
use crate::ship::images::outcome::TagOutcome;
use crate::ship::images::plan::ImageKind;

/// `images/sizes.json`
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sizes {
    qemu: String,
    /// Download size in bytes by host and kind.
    hosts: BTreeMap<String, BTreeMap<String, u64>>,
}

fn path(cx: &Context) -> PathBuf {
    cx.paths.images().join("sizes.json")
}

fn read(cx: &Context) -> Result<Sizes> {
    let path = path(cx);
    let text = fs::read_to_string(&path)?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// Records the sizes of images that were pushed under QEMU's version.
pub(super) fn record(cx: &Context, qemu: &str, rows: &[TagOutcome]) -> Result<()> {
    let sizes = updated(read(cx).ok(), qemu, rows);
    files::write(&path(cx), (serde_json::to_string_pretty(&sizes)? + "\n").as_bytes())
}

/// The recorded sizes with those of these images. Other machines may have pushed other hosts of the same version.
fn updated(recorded: Option<Sizes>, qemu: &str, rows: &[TagOutcome]) -> Sizes {
    let recorded = recorded.filter(|recorded| recorded.qemu == qemu);
    let mut hosts = recorded.map(|recorded| recorded.hosts).unwrap_or_default();
    for host in &HOSTS {
        for kind in ImageKind::all(ARCHES.iter()) {
            let tag = kind.host_tag(host, qemu);
            let size = rows.iter().find(|row| row.tag == tag).and_then(|row| row.sizes.first());
            if let Some(&size) = size {
                hosts.entry(host.name.to_owned()).or_default().insert(kind.to_string(), size);
            }
        }
    }
    Sizes { qemu: qemu.to_owned(), hosts }
}

/// The table for the README.
pub(crate) fn table(cx: &Context) -> Result<String> {
    let sizes = read(cx)?;
    let mut table = format!(
        "| host, QEMU {} | all | emulators | program | one guest |\n|---|---|---|---|---|\n",
        sizes.qemu
    );
    for (host, kinds) in &sizes.hosts {
        let size = |kind: &str| kinds.get(kind).map_or("-".to_owned(), |size| megabytes(*size));
        let guests: Vec<u64> = kinds
            .iter()
            .filter(|(kind, _)| kind.parse::<&qus_core::arch::Arch>().is_ok())
            .map(|(_, size)| *size)
            .collect();
        let least = guests.iter().min().copied().unwrap_or_default();
        let most = guests.iter().max().copied().unwrap_or_default();
        let range = format!("{} to {}", megabytes(least), megabytes(most));
        table +=
            &format!("| {host} | {} | {} | {} | {range} |\n", size("full"), size("pkg"), size("register"));
    }
    Ok(table)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ship::images::outcome::TagState;

    #[test]
    fn sizes_of_other_hosts_remain_until_the_next_version() {
        let row = |tag: &str, size| TagOutcome {
            tag: tag.to_owned(),
            digest: None,
            platforms: Vec::new(),
            sizes: vec![size],
            state: TagState::Pushed,
        };
        let hosts = |sizes: &Sizes| sizes.hosts.keys().cloned().collect::<Vec<_>>();
        let one = updated(None, "1", &[row("amd64-1", 10), row("1", 20)]);
        assert_eq!(hosts(&one), ["amd64"]);
        let both = updated(Some(one), "1", &[row("s390x-1-pkg", 30)]);
        assert_eq!(hosts(&both), ["amd64", "s390x"]);
        assert_eq!((both.hosts["amd64"]["full"], both.hosts["s390x"]["pkg"]), (10, 30));
        assert_eq!(hosts(&updated(Some(both), "2", &[row("i386-2", 40)])), ["i386"]);
    }
}
