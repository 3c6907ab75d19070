//! Guest programs from Debian's packages: a static program, or a root filesystem with all dependencies.
//!
//! Packages are unpacked into the cache, not installed. Maintainer scripts are not run; users of a root filesystem must
//! do the setup that they need.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;
use qemu_src::{Guest, Origin, PackageSet};

use crate::base::cache;
use crate::base::context::Context;
use crate::base::error::Skip;
use crate::debian::apt::Apt;
use crate::debian::distribution::Distribution;
use crate::debian::packages;

/// A static program of a guest, fetched if it is not in the cache. If it cannot be fetched, the error is a [`Skip`].
pub(crate) fn program(cx: &Context, guest: &Guest, name: &str) -> Result<PathBuf> {
    let program =
        cx.data.debian.program(name).with_context(|| format!("debian.toml has no program {name}"))?;
    let dir = cx.paths.guest(&guest.debian, name);
    let package = format!("{}:{guest}", program.package);
    fetch(cx, &Origin::Guests, &guest.debian, &format!("{name} for {guest}"), &dir, |apt, into| {
        apt.unpack(&[&package], into).map(drop)
    })?;
    let names = [name.to_owned(), format!("{name}-static")];
    let mut paths =
        names.iter().flat_map(|name| [dir.join("usr/bin").join(name), dir.join("bin").join(name)]);
    paths.find(|path| path.exists()).with_context(|| format!("the package has no {name}"))
}

/// Fetches packages of an architecture into a directory of the cache, unless they are there unchanged. A failure is
/// returned as a [`Skip`].
pub(crate) fn fetch(
    cx: &Context,
    from: &Origin,
    architecture: &str,
    what: &str,
    dir: &Path,
    unpack: impl Fn(Apt, &Path) -> Result<()>,
) -> Result<()> {
    cache::ensure(dir, |partial| {
        let distribution = Distribution::detect()?.ok_or_else(|| {
            Skip(
                "packages for guests and machines come from a Debian mirror, and this machine has no apt"
                    .to_owned(),
            )
        })?;
        packages::fetch(cx, &distribution, from, Some(architecture), what, partial, unpack)
    })
}

/// The directory of a guest's root filesystem in the cache; `name` is its purpose.
pub(crate) fn root_dir(cx: &Context, guest: &Guest, name: &str, set: &PackageSet) -> PathBuf {
    cx.paths.rootfs(&format!("{name}-{}-{guest}", packages::id(set)))
}

/// A root filesystem of a guest: packages and their dependencies, unpacked but not configured, like the result of
/// debootstrap's first stage. If it cannot be fetched, the error is a [`Skip`].
pub(crate) fn root(cx: &Context, guest: &Guest, name: &str, set: &PackageSet) -> Result<PathBuf> {
    let dir = root_dir(cx, guest, name, set);
    if dir.exists() {
        // Not verified: tests change it, for example the linker's cache, and no build uses it.
        return Ok(dir);
    }
    let packages: Vec<_> = set.packages.iter().map(|package| format!("{package}:{guest}")).collect();
    fetch(cx, &set.from, &guest.debian, &format!("a root filesystem of {guest}"), &dir, |apt, into| {
        apt.unpack_all(&packages, into)?;
        merge_usr(into)?;
        Ok(fs::create_dir_all(into.join("tmp"))?)
    })?;
    Ok(dir)
}

/// Moves files of older packages from `/bin`, `/sbin` and `/lib` to `/usr`, as on an installed system with merged
/// `/usr`.
pub(crate) fn merge_usr(root: &Path) -> Result<()> {
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

/// Moves the contents of a directory into another one, which may exist.
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

    #[test]
    fn usr_is_merged() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for (dir, file) in [("lib/arch", "libc.so.6"), ("usr/lib/arch", "libz.so.1"), ("bin", "true")] {
            fs::create_dir_all(root.join(dir)).unwrap();
            fs::write(root.join(dir).join(file), file).unwrap();
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
