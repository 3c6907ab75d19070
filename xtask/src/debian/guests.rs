//! Programs of other architectures, from Debian's packages: one static program, or a root folder with all that
//! its programs need. They are unpacked into the cache and nothing of them is installed, so that no maintainer
//! script has run: what those would set up has to be set up by whoever uses the folder.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use fs_err as fs;

use crate::base::context::Context;
use crate::base::error::Skip;
use crate::base::progress::say;
use crate::base::{cache, exec, files};
use crate::debian::apt::Apt;
use crate::debian::distribution::Distribution;

/// A Debian architecture and what its `uname -m` says.
pub(crate) struct Guest {
    pub(crate) debian: &'static str,
    pub(crate) machine: &'static str,
}

/// All that Debian 12 and 13 build. Their 32-bit programs see the machine that QEMU's default CPU is.
pub(crate) const GUESTS: [Guest; 10] = [
    Guest { debian: "amd64", machine: "x86_64" },
    Guest { debian: "arm64", machine: "aarch64" },
    Guest { debian: "armel", machine: "armv7l" },
    Guest { debian: "armhf", machine: "armv7l" },
    Guest { debian: "i386", machine: "i686" },
    Guest { debian: "mips64el", machine: "mips64" },
    Guest { debian: "mipsel", machine: "mips" },
    Guest { debian: "ppc64el", machine: "ppc64le" },
    Guest { debian: "riscv64", machine: "riscv64" },
    Guest { debian: "s390x", machine: "s390x" },
];

/// Where their programs come from, newest release first: not every architecture is in each, and a
/// mirror in the middle of an update serves indexes that apt rightly refuses.
const SUITES: [&str; 3] = ["trixie", "bookworm", "sid"];

/// The static program of a package of an architecture, fetched if it is not in the cache. A failure to fetch is
/// the reason of a skip.
pub(crate) fn program(cx: &Context, debian: &str, program: &str) -> Result<PathBuf> {
    let dir = cx.paths.guest(debian, program);
    let package = format!("{program}-static:{debian}");
    fetch(cx, debian, &format!("{program} for {debian}"), &dir, |apt, into| {
        apt.unpack(&[&package], into).map(drop)
    })?;
    let names = [program.to_owned(), format!("{program}-static")];
    let mut places =
        names.iter().flat_map(|name| [dir.join("usr/bin").join(name), dir.join("bin").join(name)]);
    places.find(|path| path.exists()).with_context(|| format!("the package has no {program}"))
}

/// Fills a folder of the cache with packages of an architecture, from the first suite that gives them, if it is
/// not there, or was changed. A failure is the reason of a skip.
pub(crate) fn fetch(
    cx: &Context,
    debian: &str,
    what: &str,
    dir: &Path,
    unpack: impl Fn(&Apt, &Path) -> Result<()>,
) -> Result<()> {
    cache::ensure(dir, |partial| fill(cx, debian, what, partial, unpack))
}

fn fill(
    cx: &Context,
    debian: &str,
    what: &str,
    partial: &Path,
    unpack: impl Fn(&Apt, &Path) -> Result<()>,
) -> Result<()> {
    let distribution = Distribution::detect()?
        .ok_or_else(|| Skip("guests come from a Debian mirror, and this machine has no apt".to_owned()))?;
    let mut failures = Vec::new();
    for suite in SUITES {
        let name = format!("guest-{}-{suite}", what.replace(' ', "-"));
        let (log, state) = (cx.paths.log(&name), cx.paths.apt(&name));
        exec::start_log(&log)?;
        files::clear(partial)?;
        let fetched =
            Apt::foreign(&state, &log, &distribution, suite, &[debian]).and_then(|apt| unpack(&apt, partial));
        match fetched {
            Ok(()) => {
                say(format_args!("fetched {what} from Debian {suite}"));
                return Ok(());
            }
            Err(_) => failures.push(format!("Debian {suite} (see {})", log.display())),
        }
    }
    bail!(Skip(format!("no suite gave {what}: {}", failures.join(", "))))
}

/// A root folder of a Debian architecture: packages and what they depend on, unpacked, as debootstrap's first stage
/// leaves them; `id` stands for the packages. A failure to fetch is the reason of a skip.
pub(crate) fn root(cx: &Context, debian: &str, id: &str, packages: &[&str]) -> Result<PathBuf> {
    let dir = cx.paths.root_folder(&format!("{id}-{debian}"));
    if dir.exists() {
        // Those who use it change it, as with the linker's cache; no build takes anything from it.
        return Ok(dir);
    }
    let packages: Vec<_> = packages.iter().map(|package| format!("{package}:{debian}")).collect();
    fetch(cx, debian, &format!("a root folder of {debian}"), &dir, |apt, into| {
        apt.unpack_all(&packages, into)?;
        merge_usr(into)?;
        Ok(fs::create_dir_all(into.join("tmp"))?)
    })?;
    Ok(dir)
}

/// Moves what older packages have in `/bin`, `/sbin` and `/lib` to where it lies on every installed system.
fn merge_usr(root: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let (old, new) = (root.join(name), root.join("usr").join(name));
        if old.is_dir() && !old.is_symlink() {
            move_into(&old, &new)
                .and_then(|()| symlink(Path::new("usr").join(name), &old))
                .with_context(|| format!("cannot move {} to {}", old.display(), new.display()))?;
        }
    }
    Ok(())
}

/// Moves a folder, all of it, into one that may be there already.
fn move_into(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            move_into(&entry.path(), &target)?;
        } else {
            fs::rename(entry.path(), target)?;
        }
    }
    fs::remove_dir(from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use qus_core::arch::Arch;

    #[test]
    fn every_guest_is_in_the_table() {
        for guest in &GUESTS {
            assert!(guest.debian.parse::<&Arch>().is_ok(), "{}", guest.debian);
        }
    }
    #[test]
    fn usr_is_merged() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for (folder, file) in [("lib/arch", "libc.so.6"), ("usr/lib/arch", "libz.so.1"), ("bin", "true")] {
            fs::create_dir_all(root.join(folder)).unwrap();
            fs::write(root.join(folder).join(file), file).unwrap();
        }
        symlink("arch/libc.so.6", root.join("lib/ld.so")).unwrap();
        for _ in 0..2 {
            merge_usr(root).unwrap();
            for (path, text) in
                [("bin/true", "true"), ("usr/lib/ld.so", "libc.so.6"), ("lib/arch/libz.so.1", "libz.so.1")]
            {
                assert_eq!(fs::read_to_string(root.join(path)).unwrap(), text);
            }
        }
        assert!(root.join("lib").is_symlink() && !root.join("sbin").exists());
    }
}
