//! What packages contain; the smoke check "packages" has dpkg, rpm and lintian read them.

use super::*;

use qus_core::arch::HOSTS;

use crate::bundle::manifest;
use crate::ship::tarballs::tests::bundle;

/// The packages of a bundle with one emulator.
fn planned(dir: &Path) -> Vec<Package> {
    bundle(dir);
    let built = manifest::built("amd64".parse().unwrap(), dir).unwrap();
    plan(&built.released("10.2.2-1".parse().unwrap()), dir, 1_700_000_000).unwrap()
}

fn files(package: &Package) -> Vec<&str> {
    let files = package.entries.iter().filter(|entry| !entry.is_directory());
    files.map(|entry| &*entry.path).collect()
}

#[test]
fn packages_have_their_layouts() {
    let dir = tempfile::tempdir().unwrap();
    let packages = planned(dir.path());
    let names: Vec<_> = packages.iter().map(|package| &*package.file).collect();
    assert_eq!(
        names,
        [
            "qus_10.2.2-1_amd64.deb",
            "qus-10.2.2-1.x86_64.rpm",
            "qus-user-static_10.2.2-1_amd64.deb",
            "qus-user-static-10.2.2-1.x86_64.rpm",
        ]
    );
    let expected = [
        "usr/bin/qus",
        "usr/libexec/qus/qus",
        "usr/share/doc/qus/changelog.Debian.gz",
        "usr/share/doc/qus/copyright",
        "usr/share/lintian/overrides/qus",
        "usr/share/man/man1/qus.1.gz",
        "usr/share/sbom/qus_10.2.2-1_amd64.cdx.json",
        "usr/share/sbom/qus_10.2.2-1_amd64.spdx.json",
        "usr/share/zsh/vendor-completions/_qus",
    ];
    assert_eq!(files(&packages[0]), expected);
    let expected = [
        "usr/lib/binfmt.d/qus-arm.conf",
        "usr/libexec/qus/bundle.json",
        "usr/libexec/qus/qemu-arm",
        "usr/share/licenses/qus-user-static/libc6-dev-2/copyright",
        "usr/share/licenses/qus-user-static/qemu-10.2.2/COPYING",
        "usr/share/sbom/qemu_10.2.2-1_amd64.cdx.json",
        "usr/share/sbom/qemu_10.2.2-1_amd64.spdx.json",
    ];
    assert_eq!(files(&packages[3]), expected);
    let of = |package: &Package, end: &str| {
        let entry = package.entries.iter().find(|entry| entry.path.ends_with(end)).unwrap();
        String::from_utf8(entry.bytes().unwrap()).unwrap()
    };
    assert!(of(&packages[3], ".conf").contains("\n:qemu-arm:M:0:"));
    let copyright = of(&packages[2], "copyright");
    assert!(copyright.contains("libc6-dev-2/copyright\n\nLGPL\n"), "{copyright}");
}

/// The directories of a distribution are not those of a package.
#[test]
fn directories_of_packages() {
    let dir = tempfile::tempdir().unwrap();
    let packages = planned(dir.path());
    let directories = |package: &Package| {
        let found = package.entries.iter().filter(|entry| entry.is_directory());
        found.map(|entry| entry.path.clone()).collect::<Vec<_>>()
    };
    assert_eq!(directories(&packages[2])[..2], ["usr", "usr/lib"]);
    let expected = [
        "usr/libexec/qus",
        "usr/share/licenses/qus-user-static",
        "usr/share/licenses/qus-user-static/libc6-dev-2",
        "usr/share/licenses/qus-user-static/qemu-10.2.2",
        "usr/share/sbom",
    ];
    assert_eq!(directories(&packages[3]), expected);
}

#[test]
fn equal_files_make_equal_packages() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = dirs.each_ref().map(|dir| {
        let packages = planned(dir.path());
        packages
            .iter()
            .map(|package| fs_err::read(write(package, dir.path()).unwrap()).unwrap())
            .collect::<Vec<_>>()
    });
    assert!(first == second);
    assert!(
        first[0].starts_with(b"!<arch>\ndebian-binary   1700000000  0     0     100644  4         `\n2.0\n")
    );
    assert!(first[1].starts_with(b"\xed\xab\xee\xdb\x03\0\0\0\0\x01qus-10.2.2-1.x86_64.rpm\0"));
}

#[test]
fn architectures_have_the_names_of_distributions() {
    let names: Vec<_> =
        HOSTS.iter().filter_map(architectures).map(|(deb, rpm)| format!("{deb} {rpm}")).collect();
    let expected = [
        "amd64 x86_64",
        "arm64 aarch64",
        "armhf armv7hl",
        "i386 i686",
        "ppc64el ppc64le",
        "s390x s390x",
        "riscv64 riscv64",
        "loong64 loongarch64",
    ];
    assert_eq!(names, expected);
}
