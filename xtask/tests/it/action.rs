//! The script of the GitHub action, without docker; the smoke tests run it with docker.

use std::fs;
use std::process::Command;

use super::{Ended, workspace};

/// Runs a step; returns its result and its outputs.
fn run(step: &str, variables: &[(&str, &str)]) -> (Ended, String) {
    let output = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(workspace().join("images/action/install.sh"));
    command.arg(step).env("GITHUB_OUTPUT", output.path()).envs(variables.iter().copied());
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
