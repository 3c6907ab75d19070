//! The plan of `build-qus`, and its locks.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::Xtask;
use nix::fcntl::{Flock, FlockArg};
use qus_core::arch::{HOSTS, Host};
use serde_json::Value;

#[test]
fn the_plan_is_text_or_json() {
    let xtask = Xtask::new();
    let text = xtask.run(&["build-qus", "--dry-run", "--host", "s390x,armel"]).stdout;
    let bundle = xtask.path("target/qus/bundle/s390x");
    assert!(text.starts_with(&format!("build qus for s390x\nbundle  {}\n", bundle.display())), "{text}");
    let json = xtask.run(&["build-qus", "--dry-run", "--json", "--host", "s390x,armel"]).stdout;
    let plans: Vec<Value> =
        serde_json::Deserializer::from_str(&json).into_iter().map(Result::unwrap).collect();
    assert_eq!((&plans[0]["host"], &plans[1]["host"]), (&"s390x".into(), &"arm32v6".into()));
    assert_eq!(plans[0]["bundle"], bundle.to_str().unwrap());
}

/// `build-qemu` locks the cache and then the target directory.
#[test]
fn the_cache_is_locked_before_the_target_directory() {
    let xtask = Xtask::new();
    fs::create_dir_all(xtask.path("cache/qus")).unwrap();
    let held = File::create(xtask.path("cache/qus/lock")).unwrap();
    let held = Flock::lock(held, FlockArg::LockExclusiveNonblock).unwrap();
    let other = HOSTS.iter().find(|host| Host::current() != Some(*host)).unwrap();
    let mut child =
        xtask.command(&["build-qus", "--host", other.name]).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let read = BufReader::new(child.stderr.take().unwrap()).read_line(&mut line);
    let target = xtask.path("target/qus");
    let locked = target.exists();
    // It must not get the lock and start to build.
    child.kill().unwrap();
    child.wait().unwrap();
    drop(held);
    read.unwrap();
    assert!(line.starts_with("waiting for another cargo xtask"), "{line}");
    assert!(!locked, "{} is locked", target.display());
}
