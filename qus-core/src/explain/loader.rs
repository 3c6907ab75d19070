//! The loader of a dynamic program, and where it and the program's libraries come from.

use std::ffi::OsString;
use std::path::{Path, PathBuf, absolute};

use crate::arch::Arch;
use crate::text::Show;

/// The variable that names a directory in which QEMU looks for the loader and for libraries first.
const PREFIX: &str = "QEMU_LD_PREFIX";

/// Whether the loader exists, as the kernel finds it, or QEMU for an architecture that is not native.
pub(super) fn is_found(loader: &Path, native: bool) -> bool {
    found_with(loader, std::env::var_os(PREFIX).filter(|_| !native))
}

fn found_with(loader: &Path, prefix: Option<OsString>) -> bool {
    loader.exists() || prefix.is_some_and(|prefix| has(Path::new(&prefix), loader))
}

/// Whether a root filesystem has the loader. There it is often a link that leads elsewhere from outside.
fn has(root: &Path, loader: &Path) -> bool {
    root.join(loader.strip_prefix("/").unwrap_or(loader)).symlink_metadata().is_ok()
}

/// Where a program gets its loader: from the root filesystem that it is in, from a cross compiler's, or from a package.
pub(super) fn hint(program: &Path, arch: &Arch, native: bool, loader: &Path) -> String {
    let file = absolute(program).unwrap_or_else(|_| program.to_owned());
    let run_in = |root: &str, command: &str| match native {
        true => format!("as root `chroot {root} {command}`"),
        false => format!("`qus run {arch} --root {root} -- {command}`"),
    };
    let mut above = file.ancestors().skip(1).filter(|dir| dir.parent().is_some());
    if let Some(root) = above.find(|root| has(root, loader)) {
        let inside = Path::new("/").join(file.strip_prefix(root).unwrap_or(&file));
        return format!(
            "its root filesystem is {0}: {1}",
            root.shown(),
            run_in(&root.quoted(), &inside.quoted())
        );
    }
    let with_prefix = |prefix: &str| format!("`{PREFIX}={prefix} qus run {arch} -- {}`", file.quoted());
    let mut sysroots = arch.triples.iter().map(|triple| PathBuf::from("/usr").join(triple));
    if let Some(sysroot) = sysroots.find(|sysroot| !native && has(sysroot, loader)) {
        return format!("a cross compiler has it: {}", with_prefix(&sysroot.quoted()));
    }
    let mut ways = vec![format!("run it in a root filesystem of its system: {}", run_in("DIR", "CMD"))];
    if !native {
        ways.push(format!("or name that directory: {}", with_prefix("DIR")));
    }
    if let Some((package, debian)) = package(arch, loader) {
        let add = format!("dpkg --add-architecture {debian} && apt update");
        ways.push(format!("or install it, on Debian as root: `{add} && apt install {package}:{debian}`"));
    }
    ways.join("; ")
}

/// Debian's package with a loader, and Debian's name of the architecture.
fn package(arch: &Arch, loader: &Path) -> Option<(&'static str, &'static str)> {
    let name = loader.file_name()?.to_str()?;
    // The only one of Debian's architectures that shares a row with another.
    let is_armel = name == "ld-linux.so.3";
    let debian = arch.debian.iter().find(|debian| (**debian == "armel") == is_armel)?;
    let package = match arch.name {
        _ if name.starts_with("ld-musl-") => "musl",
        "alpha" => "libc6.1",
        _ => "libc6",
    };
    Some((package, debian))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_hint_has_what_is_nearest() {
        // A cross compiler may be installed, which has the real one.
        let (arch, loader) = ("alpha".parse().unwrap(), Path::new("/lib/ld-of-no-machine.so.2"));
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("bin/program");
        let hint = |program: &Path| hint(program, arch, false, loader);
        let package = "`dpkg --add-architecture alpha && apt update && apt install libc6.1:alpha`";
        assert!(hint(&program).contains(package), "{}", hint(&program));
        fs::create_dir(dir.path().join("lib")).unwrap();
        std::os::unix::fs::symlink("/no/such/file", dir.path().join("lib/ld-of-no-machine.so.2")).unwrap();
        let command = format!("`qus run alpha --root {} -- /bin/program`", dir.path().display());
        assert!(hint(&program).contains(&command), "{}", hint(&program));
        assert!(found_with(loader, Some(dir.path().into())), "QEMU_LD_PREFIX names it");
        assert!(!found_with(Path::new("/lib/ld-other"), Some(dir.path().into())));
    }

    #[test]
    fn packages_follow_the_loader() {
        let package = |arch: &str, loader: &str| package(arch.parse().unwrap(), Path::new(loader));
        assert_eq!(package("arm64", "/lib/ld-linux-aarch64.so.1"), Some(("libc6", "arm64")));
        assert_eq!(package("arm", "/lib/ld-linux-armhf.so.3"), Some(("libc6", "armhf")));
        assert_eq!(package("arm", "/lib/ld-linux.so.3"), Some(("libc6", "armel")));
        assert_eq!(package("riscv64", "/lib/ld-musl-riscv64.so.1"), Some(("musl", "riscv64")));
        assert_eq!(package("hexagon", "/lib/ld-musl-hexagon.so.1"), None);
    }
}
