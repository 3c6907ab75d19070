//! Collects the licence texts of the emulators: those of QEMU, and of the static libraries that they contain.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use fs_err as fs;
use qemu_src::Patch;
use qus_core::bundle::Recipe;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, sh};
use crate::base::{cache, files};
use crate::bundle::licences::{self, Licensed, LinkedPackage, OF_COMPILER, Part};
use crate::qemu::archive::Source;
use crate::qemu::sysroot::Sysroot;
use crate::qemu::tree;

/// The directories of QEMU's source whose files are in emulators.
const DIRS: [&str; 18] = [
    "accel",
    "common-user",
    "crypto",
    "disas",
    "fpu",
    "gdbstub",
    "hw/core",
    "include",
    "libdecnumber",
    "linux-user",
    "plugins",
    "qapi",
    "qobject",
    "qom",
    "semihosting",
    "target",
    "tcg",
    "util",
];

/// How the licences begin that have to be reproduced with binaries, and that QEMU has only in its files.
const BEGINNINGS: [&str; 2] = ["Permission is hereby granted", "Redistribution and use in source and binary"];

/// Writes the licences of emulators into their bundle. On systems without Debian's packages there are none, and no release
/// can be made.
pub(crate) fn write(
    cx: &Context,
    source: &Source,
    patches: &[&Patch],
    recipe: &Recipe,
    sysroot: &Sysroot,
    bundle: &Path,
) -> Result<()> {
    let into = Licensed::Emulators.dir(bundle);
    let Some(distribution) = sysroot.distribution()? else { return files::remove_dir(&into) };
    // The toolchain has the C library, which may be that of the machine.
    let Recipe { source_sha256, dependencies, toolchain, .. } = recipe;
    let inputs = serde_json::to_vec(&(source_sha256, dependencies, toolchain))?;
    let cached = cx.paths.licences(&files::short_id(inputs));
    cache::ensure(&cached, |partial| {
        let tree = tree::prepare(cx, source, patches)?;
        let mut parts = write_of_libraries(sysroot, &distribution, partial)?;
        write_of_qemu(&tree, &partial.join(format!("qemu-{}", source.version)))?;
        parts.push(Part {
            name: "qemu".to_owned(),
            version: source.version.to_string(),
            purl: format!("pkg:generic/qemu@{}?checksum=sha256:{}", source.version, source.sha256),
            licence: Some(cx.data.sources.licence.clone()),
            sha256: Some(source.sha256),
        });
        licences::write_parts(parts, partial)
    })?;
    licences::replace(&into, &cached)
}

/// Writes QEMU's licences.
fn write_of_qemu(tree: &Path, into: &Path) -> Result<()> {
    licences::copy_from(tree, into)?;
    let mut notices = Notices::default();
    for dir in DIRS {
        notices.add_dir(&tree.join(dir))?;
    }
    files::write(&into.join("NOTICES"), notices.text().as_bytes())
}

/// Writes the licences of the static libraries, and returns these.
fn write_of_libraries(sysroot: &Sysroot, distribution: &str, into: &Path) -> Result<Vec<Part>> {
    let packages = sysroot.linked_packages()?.into_iter().chain(of_compiler(sysroot)?);
    let parts = packages.map(|package| package.copy(distribution, into)).collect::<Result<_>>()?;
    licences::copy_common(into)?;
    Ok(parts)
}

/// The packages of the C library and of the compiler's own.
pub(crate) fn of_compiler(sysroot: &Sysroot) -> Result<Vec<LinkedPackage>> {
    let (cc, options) = &sysroot.cc();
    let of = |library: &str| {
        let cmd = cmd!(sh(), "{cc} {options...} -print-file-name={library}");
        let file = exec::read(sysroot.add_programs(cmd))?;
        sysroot.package_of(Path::new(&file))
    };
    OF_COMPILER.into_iter().map(of).collect()
}

/// Texts of licences with the copyright lines of all files that have them.
#[derive(Default)]
struct Notices(BTreeMap<String, BTreeSet<String>>);

impl Notices {
    fn add_dir(&mut self, dir: &Path) -> Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                self.add_dir(&path)?;
            } else if path.is_file() {
                self.add(&String::from_utf8_lossy(&fs::read(&path)?));
            }
        }
        Ok(())
    }

    /// Adds the licence in the comment that a file begins with.
    fn add(&mut self, text: &str) {
        let Some((comment, _)) = text.strip_prefix("/*").and_then(|text| text.split_once("*/")) else {
            return;
        };
        let lines: Vec<_> = comment.lines().map(|line| line.trim().trim_start_matches('*').trim()).collect();
        let begins = |line: &&str| BEGINNINGS.iter().any(|beginning| line.starts_with(beginning));
        let Some(start) = lines.iter().position(begins) else { return };
        let holders = lines.iter().filter(|line| line.to_lowercase().contains("copyright (c)"));
        let licence = lines[start..].join("\n").trim_end().to_owned();
        self.0.entry(licence).or_default().extend(holders.map(|line| (*line).to_owned()));
    }

    fn text(&self) -> String {
        licences::grouped("Parts of QEMU have these licences:", &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_the_same_licence_are_together() {
        let file = |who: &str| {
            format!(
                "/*\n * A file\n *\n * Copyright (c) {who}\n *\n * Permission is hereby granted, to all\n * who ask.\n */\ncode\n"
            )
        };
        let mut notices = Notices::default();
        notices.add(&file("2001 Somebody"));
        notices.add(&file("2002 Somebody Else"));
        notices.add("/* SPDX-License-Identifier: GPL-2.0-or-later */");
        notices.add("no comment");
        let text = notices.text();
        let expected = "Copyright (c) 2001 Somebody\nCopyright (c) 2002 Somebody Else\n\n\
                        Permission is hereby granted, to all\nwho ask.\n";
        assert!(text.ends_with(expected), "{text}");
        assert_eq!(text.matches("Permission").count(), 1);
    }
}
