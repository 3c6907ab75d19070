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

/// Records the sizes of images that were pushed under QEMU's version.
pub(super) fn record(cx: &Context, qemu: &str, rows: &[TagOutcome]) -> Result<()> {
    let mut hosts: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for host in &HOSTS {
        for kind in ImageKind::all(ARCHES.iter()) {
            let tag = kind.host_tag(host, qemu);
            let size = rows.iter().find(|row| row.tag == tag).and_then(|row| row.sizes.first());
            if let Some(&size) = size {
                hosts.entry(host.name.to_owned()).or_default().insert(kind.to_string(), size);
            }
        }
    }
    let sizes = Sizes { qemu: qemu.to_owned(), hosts };
    files::write(&path(cx), (serde_json::to_string_pretty(&sizes)? + "\n").as_bytes())
}

/// The table for the README.
pub(crate) fn table(cx: &Context) -> Result<String> {
    let path = path(cx);
    let text = fs::read_to_string(&path)?;
    let sizes: Sizes = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
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
