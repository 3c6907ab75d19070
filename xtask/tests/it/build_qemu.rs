//! Invalid arguments of `build-qemu`, and its plan.

use super::{Ended, Xtask, workspace};
use qemu_src::{QemuSrc, Release};
use std::fs;

fn release(channel: &str) -> Release {
    QemuSrc::load(&workspace().join("qemu-src")).unwrap().release(channel).unwrap().clone()
}

#[test]
fn the_error_of_an_unknown_target_suggests_names() {
    Xtask::new()
        .run(&["build-qemu", "aarch46"])
        .failed(2, &["unknown architecture `aarch46`", "did you mean aarch64"]);
}

#[test]
fn the_error_of_an_unknown_host_lists_hosts() {
    Xtask::new().run(&["build-qemu", "--host", "vax"]).failed(2, &["unknown host `vax`", "arm64v8", "s390x"]);
}

#[test]
fn unsupported_targets_and_versions_of_narrow_hosts_are_refused() {
    let ended = Xtask::new().run(&["build-qemu", "--host", "arm32v7", "aarch64", "hppa", "arm"]);
    ended.failed(2, &["QEMU emulates no 64-bit processors on 32-bit hosts: no aarch64, hppa on arm32v7"]);
    let ended = Xtask::new().run(&["build-qemu", "--host", "i386", "--qemu", "edge"]);
    ended.failed(2, &["QEMU 11", "no longer supports 32-bit hosts such as i386", "hint: use --qemu lts"]);
}

#[test]
fn each_host_has_its_own_plan() {
    let xtask = Xtask::new();
    let json = xtask.run(&["build-qemu", "--dry-run", "--json", "--all", "--host", "arm64,armel"]).stdout;
    let plans = serde_json::Deserializer::from_str(&json).into_iter::<serde_json::Value>();
    let plans: Vec<_> = plans.map(Result::unwrap).collect();
    let what = |plan: &serde_json::Value| (plan["qemu"].clone(), plan["targets"].as_array().unwrap().len());
    assert_eq!(what(&plans[0]), (release("default").version.to_string().into(), 33));
    assert_eq!(what(&plans[1]), (release("lts").version.to_string().into(), 17));
    assert!(plans[1]["flags"].to_string().contains("-march=armv6k") && plans.len() == 2);
}

#[test]
fn patches_can_be_omitted_by_name_and_by_purpose() {
    let xtask = Xtask::new();
    let plan = |args: &[&str]| xtask.run(&[&["build-qemu", "--dry-run"], args].concat()).stdout;
    let all = plan(&[]);
    let some = plan(&["--without", "threads", "--without", "jumps/0002-chain-blocks-across-pages"]);
    for gone in ["threads/0001-", "threads/0003-", "jumps/0002-"] {
        assert!(all.contains(gone) && !some.contains(gone), "{gone}: {some}");
    }
    assert!(some.contains("jumps/0003-") && some.contains("security/0001-"), "{some}");
    let ended = xtask.run(&["build-qemu", "--without", "no-such-patch"]);
    ended.failed(2, &["unknown patch no-such-patch", "security/0001-"]);
    let ended = xtask.run(&["build-qemu", "--host", "amd64,s390x", "--into", "x"]);
    ended.failed(2, &["--into takes a single host"]);
    let ended = xtask.run(&["build-qemu", "--builder", "farm", "--training", "x"]);
    ended.failed(2, &["cannot be used with"]);
}

#[test]
fn the_error_of_an_unknown_version_lists_channels() {
    let ended = Xtask::new().run(&["build-qemu", "--qemu", "9.9.9"]);
    ended.failed(2, &["QEMU `9.9.9` is not in sources.toml", "(default)", "(lts)", "(edge)"]);
}

#[test]
fn targets_and_all_exclude_each_other() {
    Xtask::new().run(&["build-qemu", "--all", "arm"]).failed(2, &["cannot be used with"]);
    Xtask::new().run(&["build-qemu", "--jobs", "0"]).failed(2, &["--jobs"]);
}

#[test]
fn the_error_of_a_wrong_hash_contains_both_hashes() {
    let xtask = Xtask::new();
    let release = release("default");
    let mut expected = vec!["has the wrong sha256".to_owned(), "got      ".to_owned()];
    expected
        .extend(release.pins().map(|pin| format!("expected {} ({}, {})", pin.sha256, pin.origin, pin.file)));
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    let file = xtask.path(release.pins().next().unwrap().file);
    fs::write(&file, "not QEMU").unwrap();
    xtask.run(&["build-qemu", "--source", file.to_str().unwrap()]).failed(1, &expected);
    // The same file in a directory is refused too, and is not cached.
    xtask.run(&["build-qemu", "--source", xtask.dir.path().to_str().unwrap()]).failed(1, &expected[..3]);
    assert!(!xtask.path("cache/qus/downloads").exists());
}

#[test]
fn the_error_of_a_missing_source_contains_its_path() {
    let xtask = Xtask::new();
    let ended = xtask.run(&["build-qemu", "--source", "/no/such/file"]);
    ended.failed(1, &["cannot read /no/such/file", "No such file or directory"]);
    let ended = xtask.run(&["build-qemu", "--source", xtask.dir.path().to_str().unwrap()]);
    let release = release("default");
    let files: Vec<_> = release.pins().map(|pin| pin.file).collect();
    let expected = format!("has no {}, the source of QEMU {}", files.join(" or "), release.version);
    ended.failed(1, &[&expected]);
}

#[test]
fn a_source_that_is_not_a_regular_file_is_refused() {
    let xtask = Xtask::new();
    let name = release("default").pins().next().unwrap().file.to_owned();
    let fifo = xtask.path(&name);
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let huge = xtask.path("huge");
    fs::File::create(&huge).unwrap().set_len(1 << 42).unwrap();
    let start = std::time::Instant::now();
    for (path, words) in [
        (&*fifo, ": not a regular file"),
        (xtask.dir.path(), ": not a regular file"),
        (std::path::Path::new("/dev/zero"), ": not a regular file"),
        (&*huge, "has 4398046511104 bytes; the source has at most"),
    ] {
        xtask.run(&["build-qemu", "--source", path.to_str().unwrap()]).failed(1, &[words]);
        Ended::of(xtask.command(&["build-qemu"]).env("QUS_SOURCE", path).output().unwrap())
            .failed(1, &[words]);
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(20), "it took {:?}", start.elapsed());
}

#[test]
fn all_missing_requirements_are_listed() {
    let xtask = Xtask::new();
    let ended = Ended::of(xtask.command(&["build-qemu"]).env("CC", "no-such-cc").output().unwrap());
    ended.failed(1, &["no-such-cc: the C compiler", "hint: set CC to an installed compiler"]);
    let mut cached = xtask.command(&["build-qemu"]);
    let ended = Ended::of(cached.env("QUS_COMPILER_CACHE", "no-such-cache").output().unwrap());
    ended.failed(
        1,
        &[
            "no-such-cache: the compiler cache that QUS_COMPILER_CACHE selects",
            "hint: install no-such-cache, or unset QUS_COMPILER_CACHE",
        ],
    );
    let ended = Ended::of(xtask.command(&["build-qemu"]).env("PATH", "/nonexistent").output().unwrap());
    ended.failed(1, &["cc: ", "strip: ", "python3: ", "git: ", "hint: "]);
}

#[test]
fn unsupported_directories_are_refused_first() {
    let xtask = Xtask::new();
    let ended = Ended::of(
        xtask.command(&["build-qemu"]).env("XDG_CACHE_HOME", xtask.path("my cache")).output().unwrap(),
    );
    ended.failed(1, &["my cache", "without spaces"]);
    let ended = Ended::of(xtask.command(&["build-qemu"]).env("XDG_CACHE_HOME", "cache").output().unwrap());
    ended.failed(1, &["not an absolute path", "XDG_CACHE_HOME"]);
    let mut homeless = xtask.command(&["build-qemu"]);
    homeless.env_remove("XDG_CACHE_HOME").env_remove("HOME");
    Ended::of(homeless.output().unwrap()).failed(1, &["neither XDG_CACHE_HOME nor HOME is set"]);
}

#[test]
fn the_plan_has_the_locations_of_the_source() {
    let xtask = Xtask::new();
    let source = |args: &[&str], given: &str| {
        let mut command = xtask.command(&[&["build-qemu", "--dry-run", "--json"], args].concat());
        let ended = Ended::of(command.env("QUS_SOURCE", given).output().unwrap());
        let plan: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        plan["source"].as_str().unwrap().to_owned()
    };
    let release = release("lts");
    assert!(release.upstream.is_none());
    let debian = format!("Debian {}", release.debian.as_ref().unwrap().suite);
    assert_eq!(source(&["--qemu", "lts"], ""), debian);
    assert_eq!(source(&["--qemu", "lts"], "/archives"), format!("/archives, else {debian}"));
    assert_eq!(source(&["--source", "/archive"], "/archives"), "/archive");
    assert!(source(&[], "").starts_with("upstream, else Debian "));
    let pin = release.pins().next().unwrap();
    let cached = xtask.path("cache/qus/downloads").join(pin.sha256.to_string());
    fs::create_dir_all(&cached).unwrap();
    fs::write(cached.join(pin.file), "").unwrap();
    assert_eq!(source(&["--qemu", "lts"], ""), "the cache");
}

#[test]
fn training_requires_the_release_profile() {
    let ended = Xtask::new().run(&["build-qemu", "--training", "/no/such/file", "--dry-run"]);
    ended.failed(2, &["--training requires --profile release"]);
}

#[test]
fn a_dry_run_prints_the_plan_and_writes_nothing() {
    let xtask = Xtask::new();
    let ended = xtask.run(&["build-qemu", "--dry-run", "linux/arm64", "armhf", "--profile", "release"]);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    for expected in ["build QEMU ", "(release)", "--static", "targets   aarch64 arm\n"] {
        assert!(ended.stdout.contains(expected), "{expected}: {}", ended.stdout);
    }
    let json = xtask.run(&["build-qemu", "--dry-run", "--json", "--all", "--qemu", "lts"]).stdout;
    let plan: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(plan["targets"].as_array().unwrap().len(), 33);
    assert_eq!(plan["qemu"], release("lts").version.to_string());
    let patch = |name: &str| plan["patches"].as_array().unwrap().contains(&name.into());
    assert!(patch("build/0002-linux-user-static-without-nss.patch"), "{plan}");
    assert!(!patch("build/0001-skip-device-trees-without-blobs.patch"), "10.0 does not need it: {plan}");
    assert_eq!(fs::read_dir(xtask.dir.path()).unwrap().count(), 0, "something was written");
}
