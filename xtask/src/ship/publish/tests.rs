//! Publishing on a forge that is a directory: the tests' `gh` keeps the files of a release there.

use std::os::unix::fs::PermissionsExt;

use qus_core::hint;

use super::*;
use crate::bundle::manifest::SUMS;

/// A client of the forge that keeps a release in `$0.forge`, lists its calls, and fails at the call with the number in
/// `$0.fails`, before or after it has done its work.
const GH: &str = r#"#!/bin/sh
set -eu
forge=$0.forge
echo "$*" >>"$0.calls"
number=$(wc -l <"$0.calls")
fails() { [ "$(cat "$0.fails" 2>/dev/null)" = "$number $1" ] || return 0; echo "HTTP 500" >&2; exit 1; }
fails before
case $2 in
view)
    [ -d "$forge" ] || { fails after; echo "release not found" >&2; exit 1; }
    printf '{"isDraft":%s,"assets":[' "$(cat "$0.draft")"
    first=
    for file in "$forge"/*; do
        [ -f "$file" ] || continue
        printf '%s{"name":"%s","size":%s}' "$first" "${file##*/}" "$(stat -c %s "$file")"
        first=,
    done
    echo ']}'
    ;;
create) mkdir "$forge" && echo true >"$0.draft" ;;
upload)
    [ "$(cat "$0.fails" 2>/dev/null)" != "$number after" ] || { head -c 1 "$4" >"$forge/${4##*/}"; fails after; }
    cp "$4" "$forge"
    ;;
download) cp "$forge"/* "$5" ;;
edit) echo false >"$0.draft" ;;
esac
fails after
"#;

struct Forge {
    dir: tempfile::TempDir,
    commit: String,
}

impl Forge {
    /// A repository with a remote one, and a release of it.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("gh"), GH).unwrap();
        fs::set_permissions(at("gh"), PermissionsExt::from_mode(0o755)).unwrap();
        fs::create_dir(at("release")).unwrap();
        let mut sums = String::new();
        for name in ["a.tar.zst", "b.tar.zst"] {
            fs::write(at("release").join(name), name).unwrap();
            sums += &format!("{}  {name}\n", Sha256::of(name));
        }
        fs::write(at("release").join(SUMS), sums).unwrap();
        fs::write(at("release").join(NOTES), "notes\n").unwrap();
        let (root, remote) = (at("root"), at("remote"));
        let run =
            |command: xshell::Cmd<'_>| exec::read(command.env("GIT_CONFIG_GLOBAL", "/dev/null")).unwrap();
        run(cmd!(sh(), "git init --quiet --bare {remote}"));
        run(cmd!(sh(), "git init --quiet {root}"));
        for (name, value) in [("user.name", "a"), ("user.email", "a@example.org")] {
            run(cmd!(sh(), "git -C {root} config {name} {value}"));
        }
        run(cmd!(sh(), "git -C {root} remote add origin {remote}"));
        run(cmd!(sh(), "git -C {root} commit --quiet --allow-empty --message first"));
        let commit = run(cmd!(sh(), "git -C {root} rev-parse HEAD"));
        Self { dir, commit }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn publish(&self) -> Result<bool> {
        let (root, dir) = (self.at("root"), self.at("release"));
        let publication = Publication {
            gh: self.at("gh"),
            root: &root,
            dir: &dir,
            release: "10.2.2-1".to_owned(),
            commit: &self.commit,
        };
        publication.run(|| {
            assert!(!self.is_public(), "images are pushed after the release is public");
            Ok(())
        })
    }

    fn is_public(&self) -> bool {
        fs::read_to_string(self.at("gh.draft")).is_ok_and(|draft| draft.trim() == "false")
    }

    fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.at("gh.calls")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn tags(&self) -> String {
        let remote = self.at("remote");
        exec::read(cmd!(sh(), "git -C {remote} tag")).unwrap()
    }
}

#[test]
fn a_release_is_public_when_all_is_uploaded_and_read_back() {
    let forge = Forge::new();
    assert!(forge.publish().unwrap());
    let calls = forge.calls();
    let verbs: Vec<_> = calls.iter().map(|call| call.split(' ').nth(1).unwrap()).collect();
    assert_eq!(verbs, ["view", "create", "upload", "upload", "upload", "download", "edit"]);
    assert!(calls[1].contains("v10.2.2-1 --draft --title 10.2.2-1"), "{}", calls[1]);
    assert_eq!((forge.is_public(), &*forge.tags()), (true, "v10.2.2-1"));
    assert!(!forge.publish().unwrap(), "it is published again");
    assert!(!forge.calls()[verbs.len()..].iter().any(|call| call.contains("upload")));
}

#[test]
fn an_interrupted_publication_is_finished_and_repeats_nothing() {
    for number in 1..=7 {
        for when in ["before", "after"] {
            let forge = Forge::new();
            fs::write(forge.at("gh.fails"), format!("{number} {when}")).unwrap();
            let error = forge.publish().unwrap_err();
            assert!(format!("{error:#}").contains("HTTP 500"), "{number} {when}: {error:#}");
            assert!(hint::of(&error).is_some_and(|hint| hint.contains("--resume")), "{number} {when}");
            let is_last = number == 7 && when == "after";
            assert_eq!(forge.is_public(), is_last, "{number} {when}");
            let uploaded = forge.calls().iter().filter(|call| call.contains(" upload ")).count();
            fs::write(forge.at("gh.fails"), "").unwrap();
            assert_eq!(forge.publish().unwrap(), !is_last, "{number} {when}");
            assert_eq!((forge.is_public(), &*forge.tags()), (true, "v10.2.2-1"), "{number} {when}");
            let all = forge.calls().iter().filter(|call| call.contains(" upload ")).count();
            // Only the upload that failed is repeated.
            let repeated = usize::from((3..=5).contains(&number));
            assert_eq!(all, 3 + repeated, "{number} {when}: {uploaded} at first");
            for name in ["a.tar.zst", "b.tar.zst", SUMS] {
                let of = |dir: &str| fs::read(forge.at(dir).join(name)).unwrap();
                assert_eq!(of("gh.forge"), of("release"), "{number} {when}: {name}");
            }
        }
    }
}

#[test]
fn other_files_and_tags_are_refused() {
    let forge = Forge::new();
    fs::create_dir(forge.at("gh.forge")).unwrap();
    fs::write(forge.at("gh.draft"), "true").unwrap();
    // As long as the right one.
    fs::write(forge.at("gh.forge/a.tar.zst"), "x.tar.zst").unwrap();
    let error = forge.publish().unwrap_err().to_string();
    assert!(error.contains("the forge has another a.tar.zst"), "{error}");
    fs::write(forge.at("gh.forge/a.tar.zst"), "a.tar.zst").unwrap();
    fs::write(forge.at("gh.forge/more"), "").unwrap();
    let error = forge.publish().unwrap_err().to_string();
    assert!(error.contains("the forge has more, which is not of this release"), "{error}");
    fs::remove_file(forge.at("gh.forge/more")).unwrap();
    assert!(!forge.is_public());

    let root = forge.at("root");
    exec::read(cmd!(sh(), "git -C {root} commit --quiet --allow-empty --message second")).unwrap();
    exec::read(cmd!(sh(), "git -C {root} tag v10.2.2-1")).unwrap();
    let error = forge.publish().unwrap_err().to_string();
    assert!(error.contains("is at another commit in the local repository"), "{error}");
    exec::read(cmd!(sh(), "git -C {root} push --quiet origin v10.2.2-1")).unwrap();
    exec::read(cmd!(sh(), "git -C {root} tag --delete v10.2.2-1")).unwrap();
    let error = forge.publish().unwrap_err().to_string();
    assert!(error.contains("is at another commit in the remote repository"), "{error}");
    assert!(!forge.is_public());
}

#[test]
fn a_damaged_release_is_not_uploaded() {
    let forge = Forge::new();
    fs::write(forge.at("release/a.tar.zst"), "x").unwrap();
    let error = forge.publish().unwrap_err().to_string();
    assert!(error.contains("a.tar.zst does not match its checksum"), "{error}");
    assert!(forge.calls().is_empty());
}
