//! The script of the GitHub action: what it decides, and its arguments; the smoke tests run it with and without docker.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::{Ended, workspace};

/// Runs a step where docker seems to be installed; returns its result and its outputs.
fn run(step: &str, variables: &[(&str, &str)]) -> (Ended, String) {
    run_with(&["docker"], step, variables)
}

/// Runs a step where only these programs are installed.
fn run_with(programs: &[&str], step: &str, variables: &[(&str, &str)]) -> (Ended, String) {
    let (output, path) = (tempfile::NamedTempFile::new().unwrap(), tempfile::tempdir().unwrap());
    for program in programs {
        symlink("/bin/true", path.path().join(program)).unwrap();
    }
    let find = |program: &str| which::which(program).unwrap();
    for program in ["mktemp", "rm"] {
        symlink(find(program), path.path().join(program)).unwrap();
    }
    let mut command = Command::new(find("bash"));
    command.arg(workspace().join("images/action/install.sh")).arg(step);
    command.env("PATH", path.path()).env("GITHUB_OUTPUT", output.path()).envs(variables.iter().copied());
    let ended = Ended::of(command.output().unwrap());
    (ended, fs::read_to_string(output).unwrap())
}

#[test]
fn the_default_image_is_that_of_the_action() {
    for (image, repository, expected) in [
        ("", "Some-One/qus", "image=ghcr.io/some-one/qus:latest\n"),
        ("example.com/Q:1", "Some-One/qus", "image=example.com/Q:1\n"),
        ("example.com/q:1", "", "image=example.com/q:1\n"),
    ] {
        let (ended, output) = run("image", &[("QUS_IMAGE", image), ("QUS_REPOSITORY", repository)]);
        assert_eq!((ended.status, output.as_str()), (Some(0), expected), "{}", ended.stderr);
    }
    run("image", &[]).0.failed(1, &["::error title=qus::", "name one with `image`"]);
}

#[test]
fn a_release_takes_the_place_of_docker() {
    let release = |programs: &[&str], image: &str, version: &str| {
        run_with(programs, "image", &[("QUS_IMAGE", image), ("QUS_VERSION", version)])
    };
    for (image, version, expected) in [
        ("", "", "latest"),
        ("example.com:5000/q", "", "latest"),
        ("example.com:5000/q:latest", "", "latest"),
        ("example.com:5000/q:10.2.2-1", "", "10.2.2-1"),
        ("q:10.2.2-1@sha256:abc", "", "10.2.2-1"),
        ("q:10.2", "10.2.2-2", "10.2.2-2"),
    ] {
        let (ended, output) = release(&[], image, version);
        assert_eq!((ended.status, output), (Some(0), format!("release={expected}\n")), "{}", ended.stderr);
    }
    assert_eq!(release(&["docker"], "q:1", "10.2.2-2").1, "release=10.2.2-2\n");
    release(&[], "q:10.2", "").0.failed(1, &["the tag of q:10.2 names no release", "one with `version`"]);
}

#[test]
fn missing_programs_are_reported() {
    let variables = [("QUS_PLATFORMS", "all"), ("QUS_IMAGE", "q:1")];
    run_with(&[], "install", &variables).0.failed(1, &["this runner has no docker"]);
}

#[test]
fn missing_inputs_are_reported() {
    run("install", &[]).0.failed(1, &["no platform was named"]);
    run("install", &[("QUS_PLATFORMS", " , ")]).0.failed(1, &["no platform was named"]);
    run("install", &[("QUS_PLATFORMS", "all")]).0.failed(1, &["no image was named"]);
    run("nonsense", &[]).0.failed(1, &["usage"]);
}

/// A variable that only one of the files uses has no effect.
#[test]
fn action_and_script_use_the_same_variables() {
    let read = |file: &str| fs::read_to_string(workspace().join("images/action").join(file)).unwrap();
    let (action, script) = (read("action.yml"), read("install.sh"));
    let variables = |text: &str| {
        let words = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
        let mut words: Vec<_> = words.filter(|word| word.starts_with("QUS_")).map(str::to_owned).collect();
        words.sort();
        words.dedup();
        words
    };
    assert_eq!(variables(&action), variables(&script));
}
