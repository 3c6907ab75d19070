//! A host in a directory: what is written, removed and refused.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

use super::*;

/// A host with systemd, and two emulators beside it.
fn host(service: &str) -> (tempfile::TempDir, HostSystem, Vec<Emulator>) {
    let dir = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = dir.path().join(path);
        // Whatever the umask is, as on a host.
        for dir in path.parent().unwrap().ancestors().filter(|inner| inner.starts_with(dir.path())) {
            fs::create_dir_all(dir).unwrap();
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    put(&format!("root/{service}"), "");
    put("bundle/bundle.json", "{}");
    let emulators = ["arm", "sh4"].map(|arch| Emulator {
        arch: arch.parse().unwrap(),
        path: put(&format!("bundle/qemu-{arch}"), arch),
        build: [0; 4],
    });
    let host = HostSystem::at(dir.path().join("root"));
    (dir, host, emulators.to_vec())
}

/// All that is there, directories with a slash.
fn all_files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![dir.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            if path.is_dir() && !path.is_symlink() {
                found.push(name + "/");
                directories.push(path);
            } else {
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_was_written_is_removed() {
    for (service, own) in [
        ("usr/lib/systemd/systemd-binfmt", &["etc/binfmt.d/qus.conf"][..]),
        ("sbin/openrc-run", &["etc/init.d/qus", "etc/runlevels/boot/qus"]),
    ] {
        let (dir, host, emulators) = host(service);
        let root = dir.path().join("root");
        let before = all_files(&root);
        let moved = host.install("1.2", &emulators, Flags::DEFAULT).unwrap();
        assert_eq!(moved[0].path, Path::new("/usr/local/lib/qus/1.2/qemu-arm"));
        for path in own.iter().chain(&["usr/local/lib/qus/1.2/qemu-sh4", "usr/local/lib/qus/1.2/bundle.json"])
        {
            assert!(all_files(&root).contains(&(*path).to_owned()), "{path}");
        }
        let after = all_files(&root);
        host.install("1.2", &emulators, Flags::DEFAULT).unwrap();
        assert_eq!(all_files(&root), after, "again is the same");
        let (dry, done) = (host.files().unwrap(), host.remove().unwrap());
        assert_eq!((done.intact.len(), done.changed.len()), (own.len() + 3, 0));
        assert_eq!((dry.intact, dry.changed), (done.intact, done.changed));
        assert_eq!(all_files(&root), before);
        assert_eq!(host.remove().unwrap().intact.len(), 0, "there is nothing more to remove");
    }
}

#[test]
fn another_version_replaces_the_first() {
    let (dir, host, emulators) = host("usr/lib/systemd/systemd-binfmt");
    host.install("1.2", &emulators, Flags::DEFAULT).unwrap();
    let lib = dir.path().join("root/usr/local/lib/qus");
    let before = all_files(&lib);
    let error = host.install("1.3", &emulators[..1], Flags::DEFAULT).unwrap_err();
    assert!(matches!(&error, PersistError::WouldDrop(archs) if archs == &["sh4"]), "{error}");
    assert_eq!(all_files(&lib), before);
    host.install("1.3", &emulators, Flags::DEFAULT).unwrap();
    let files = ["1.3/", "1.3/bundle.json", "1.3/qemu-arm", "1.3/qemu-sh4", "manifest.json"];
    assert_eq!(all_files(&lib), files);
}

#[test]
fn what_others_changed_stays() {
    let (dir, host, emulators) = host("usr/lib/systemd/systemd-binfmt");
    host.install("1.2", &emulators, Flags::DEFAULT).unwrap();
    let conf = dir.path().join("root/etc/binfmt.d/qus.conf");
    fs::write(&conf, "# mine\n").unwrap();
    let error = host.install("1.2", &emulators, Flags::NO_CREDENTIALS).unwrap_err();
    assert!(matches!(&error, PersistError::NotOurs(path) if path == Path::new(BINFMT_D)), "{error}");
    assert_eq!(host.files().unwrap().changed, [PathBuf::from(BINFMT_D)]);
    assert_eq!(host.remove().unwrap().changed, [PathBuf::from(BINFMT_D)]);
    assert!(matches!(host.install("1.2", &emulators, Flags::DEFAULT), Err(PersistError::NotOurs(_))));
    assert_eq!(fs::read_to_string(conf).unwrap(), "# mine\n");
}

#[test]
fn an_interrupted_change_is_continued_or_removed() {
    let (dir, host, emulators) = host("usr/lib/systemd/systemd-binfmt");
    host.install("1.2", &emulators, Flags::DEFAULT).unwrap();
    // The second emulator cannot be copied: the manifest knows both contents of the rules by then.
    let emulator = dir.path().join("bundle/qemu-sh4");
    fs::write(&emulator, "another").unwrap();
    let part = dir.path().join("root/usr/local/lib/qus/1.2/qemu-sh4.part");
    fs::create_dir(&part).unwrap();
    assert!(matches!(
        host.install("1.2", &emulators, Flags::NO_CREDENTIALS),
        Err(PersistError::Io("write", ..))
    ));
    fs::remove_dir(&part).unwrap();
    host.install("1.2", &emulators, Flags::NO_CREDENTIALS).unwrap();
    assert_eq!(host.remove().unwrap().changed, Vec::<PathBuf>::new());
}

#[test]
fn failures_are_reported_and_nothing_exists_in_part() {
    let (dir, host, mut emulators) = host("no/service");
    assert!(matches!(host.install("1", &emulators, Flags::DEFAULT), Err(PersistError::NoService)));
    mode(&dir.path().join("root/sbin"), 0o755);
    fs::write(dir.path().join("root/sbin/openrc-run"), "").unwrap();
    emulators[1].path = "/no/such/emulator".into();
    let error = host.install("1", &emulators, Flags::DEFAULT).unwrap_err().to_string();
    assert!(error.contains("cannot read /no/such/emulator"), "{error}");
    assert!(!dir.path().join("root/usr").exists());
    let manifest = dir.path().join("root/usr/local/lib/qus/manifest.json");
    mode(manifest.parent().unwrap(), 0o755);
    fs::write(&manifest, "garbage").unwrap();
    fs::set_permissions(&manifest, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(host.remove(), Err(PersistError::Manifest(..))));
}

/// A directory, with a mode that no umask has changed.
fn mode(path: &Path, mode: u32) {
    let missing: Vec<_> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        fs::create_dir(dir).unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_other_users_can_replace_is_refused() {
    type Prepare<'a> = &'a dyn Fn(&Path);
    let prepared: [(&str, Prepare<'_>); 6] = [
        ("writable", &|root| mode(&root.join("etc/binfmt.d"), 0o777)),
        ("writable above", &|root| mode(&root.join("usr/local"), 0o777)),
        ("link of another", &|root| {
            mode(&root.join("usr/local/lib"), 0o755);
            symlink("../../../../outside", root.join("usr/local/lib/qus")).unwrap();
            lchown(root.join("usr/local/lib/qus"), Some(1234), Some(1234)).unwrap();
        }),
        ("file", &|root| {
            mode(&root.join("usr/local/lib"), 0o755);
            fs::write(root.join("usr/local/lib/qus"), "").unwrap();
        }),
        ("link as a file", &|root| {
            mode(&root.join("etc/binfmt.d"), 0o755);
            symlink("../../../outside/file", root.join("etc/binfmt.d/qus.conf")).unwrap();
        }),
        ("directory of another", &|root| {
            mode(&root.join("usr/local/lib/qus"), 0o755);
            chown(root.join("usr/local/lib/qus"), Some(1234), Some(1234)).unwrap();
        }),
    ];
    // Only root can create files of other users.
    let root = nix::unistd::geteuid().is_root();
    for (what, prepare) in prepared.iter().filter(|(what, _)| root || !what.ends_with("of another")) {
        let (dir, host, emulators) = host("usr/lib/systemd/systemd-binfmt");
        fs::create_dir(dir.path().join("outside")).unwrap();
        prepare(&dir.path().join("root"));
        let error = host.install("1.2", &emulators, Flags::DEFAULT).unwrap_err();
        assert!(matches!(error, PersistError::Unsafe(..) | PersistError::NotOurs(_)), "{what}: {error}");
        assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0, "{what}");
    }
}

#[test]
fn links_of_root_are_followed_in_the_hosts_tree() {
    let (dir, host, emulators) = host("usr/lib/systemd/systemd-binfmt");
    let root = dir.path().join("root");
    mode(&root.join("var/usrlocal"), 0o755);
    // As on systems whose /usr cannot be written; the second leads out of a container, but not of the host.
    for target in ["../../../var/usrlocal", "/var/usrlocal"] {
        symlink(target, root.join("usr/local")).unwrap();
        host.install("1.2", &emulators, Flags::DEFAULT).unwrap();
        assert!(root.join("var/usrlocal/lib/qus/1.2/qemu-arm").exists(), "{target}");
        assert_eq!(host.remove().unwrap().changed, Vec::<PathBuf>::new());
        fs::remove_file(root.join("usr/local")).unwrap();
    }
}

#[test]
fn what_is_ours_is_made_safe_again() {
    let (dir, host, emulators) = host("usr/lib/systemd/systemd-binfmt");
    host.install("1.2", &emulators, Flags::DEFAULT).unwrap();
    let ours = dir.path().join("root/usr/local/lib/qus");
    let emulator = ours.join("1.2/qemu-arm");
    for (path, bits) in [(&ours, 0o777), (&ours.join("1.2"), 0o2775), (&emulator, 0o6777)] {
        fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
    }
    host.install("1.2", &emulators, Flags::DEFAULT).unwrap();
    for path in [&ours, &ours.join("1.2"), &emulator] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o755, "{}", path.display());
    }
}

#[test]
fn a_manifest_names_only_what_qus_writes() {
    let parse = |path: &str, directory: &str| {
        let sum = Sha256::of("");
        let text = format!(r#"{{"files":[{{"path":"{path}","sha256":"{sum}"}}],"folders":["{directory}"]}}"#);
        Manifest::parse(text.as_bytes())
    };
    assert!(parse("/usr/local/lib/qus/1/qemu-arm", "/usr/local/lib").is_ok());
    for bad in ["/etc/passwd", "/usr/local/lib/qus/../../../etc/passwd", "etc/binfmt.d/qus.conf", ""] {
        assert!(parse(bad, "/etc").unwrap_err().contains("qus does not write"), "{bad}");
        assert!(parse("/etc/init.d/qus", bad).is_err(), "{bad}");
    }
    for cut in ["", "{", r#"{"files":[{"path":"/etc/binfmt.d/qus.conf""#] {
        let (dir, host, _) = host("usr/lib/systemd/systemd-binfmt");
        let ours = dir.path().join("root/usr/local/lib/qus");
        mode(&ours, 0o755);
        fs::write(ours.join("manifest.json"), cut).unwrap();
        fs::set_permissions(ours.join("manifest.json"), fs::Permissions::from_mode(0o644)).unwrap();
        let error = host.remove().unwrap_err();
        assert!(
            error.to_string().contains("is damaged") && error.hint().unwrap().contains("`rm "),
            "{error}"
        );
    }
}

/// Killed after any step: what remains is removed.
#[test]
fn nothing_stays_of_what_was_interrupted() {
    let (dir, host, emulators) = host("usr/lib/systemd/systemd-binfmt");
    let root = dir.path().join("root");
    let before = all_files(&root);
    mode(&root.join("usr/local/lib/qus"), 0o755);
    fs::write(root.join("usr/local/lib/qus/manifest.json.part"), "{").unwrap();
    host.remove().unwrap();
    assert!(!root.join("usr/local/lib/qus").exists());
    fs::remove_dir_all(root.join("usr/local")).unwrap();
    host.install("1.2", &emulators, Flags::DEFAULT).unwrap();
    for part in ["etc/binfmt.d/qus.conf.part", "usr/local/lib/qus/1.2/qemu-sh4.part"] {
        fs::write(root.join(part), "").unwrap();
    }
    fs::remove_file(root.join("usr/local/lib/qus/1.2/qemu-sh4")).unwrap();
    assert_eq!(host.remove().unwrap().changed, Vec::<PathBuf>::new());
    assert_eq!(all_files(&root), before);
}

#[test]
fn several_at_once_leave_nothing_behind() {
    let (dir, host, emulators) = host("usr/lib/systemd/systemd-binfmt");
    let root = dir.path().join("root");
    let before = all_files(&root);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                (0..20).for_each(|_| drop(host.install("1.2", &emulators, Flags::DEFAULT).unwrap()))
            });
            scope.spawn(|| {
                (0..20).for_each(|_| assert_eq!(host.remove().unwrap().changed, Vec::<PathBuf>::new()))
            });
        }
    });
    host.remove().unwrap();
    assert_eq!(all_files(&root), before);
}
