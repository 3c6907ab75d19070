//! `qus self`: this installation.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{ValueEnum, ValueHint};
use qus_core::digest::{self, Sha256};
use qus_core::file;
use qus_core::hint::hinted;
use qus_core::text::Show;
use serde::Serialize;

use crate::context::EmulatorDirArgs;
use crate::output::{print_json, print_text};

/// Verify the files of this installation
///
/// Compares them with a list of checksums. Each release has a list for each of its bundles, such as
/// qus-bundle_10.2.2-1_amd64.sha256, and signs it. Without --list, emulators are compared with SHA256SUMS in their own
/// directory: that detects damage, but whoever replaces an emulator can replace its checksum too. An emulator that is not
/// listed is an error.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  qus self verify
  qus self verify --list qus-bundle_10.2.2-1_amd64.sha256")]
pub(crate) struct Args {
    /// What to do
    action: Action,
    #[command(flatten)]
    dir: EmulatorDirArgs,
    /// The list of a release, whose signature you have verified
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    list: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Action {
    /// Compare files with checksums
    Verify,
}

#[derive(Serialize)]
struct Verified {
    dir: PathBuf,
    list: PathBuf,
    /// How many files are listed.
    files: usize,
    faults: Vec<Fault>,
}

#[derive(Serialize)]
struct Fault {
    file: String,
    fault: &'static str,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let Action::Verify = args.action;
    let dir = args.dir.open()?.dir;
    let list = args.list.clone().unwrap_or_else(|| dir.join("SHA256SUMS"));
    let text = file::read(&list).with_context(|| format!("cannot read {}", list.shown()))?;
    let listed = std::str::from_utf8(&text).ok().and_then(digest::parse_list);
    let listed = listed.filter(|listed| !listed.is_empty());
    let listed = listed.with_context(|| format!("{} is not a list of checksums", list.shown()))?;
    let mut faults = Vec::new();
    for (sha256, name) in &listed {
        let fault = match Sha256::of_file(&dir.join(name)) {
            Ok(found) if found == *sha256 => continue,
            Ok(_) => "changed",
            Err(_) => "missing",
        };
        faults.push(Fault { file: (*name).to_owned(), fault });
    }
    for entry in dir.read_dir().with_context(|| format!("cannot read {}", dir.shown()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("qemu-") && !listed.iter().any(|(_, listed)| *listed == name) {
            faults.push(Fault { file: name, fault: "not listed" });
        }
    }
    let verified = Verified { dir, list, files: listed.len(), faults };
    verified.print(args.json)?;
    if verified.faults.is_empty() {
        return Ok(());
    }
    bail!(hinted(
        format_args!("{} is not what {} lists", verified.dir.shown(), verified.list.shown()),
        "install the release again; `qus status` shows which emulators are registered"
    ))
}

impl Verified {
    fn print(&self, json: bool) -> Result<()> {
        if json {
            return print_json(self);
        }
        for Fault { file, fault } in &self.faults {
            print_text(&format!("{fault}: {}\n", file.shown()))?;
        }
        if self.faults.is_empty() {
            print_text(&format!("verified: {} files in {}\n", self.files, self.dir.shown()))?;
        }
        Ok(())
    }
}
