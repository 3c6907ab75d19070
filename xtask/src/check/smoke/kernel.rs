//! Checks `qus` with the real kernel: registration, running programs, and every failure.

mod action;
mod credentials;
mod documents;
mod explained;
mod faults;
mod looking;
mod others;
mod packages;
mod places;
mod programs;
mod rootless;
mod run;
mod user_namespace;
mod watch;

use std::thread;

use anyhow::{Result, anyhow};

use crate::base::context::Context;
use crate::check::report::Report;
use crate::check::smoke::fixture::kernel::{KernelChecks, KernelFixture};

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    let refused = match nix::unistd::geteuid().is_root() {
        true => None,
        false => match user_namespace::run(report) {
            Ok(()) => return Ok(()),
            Err(error) => Some(error),
        },
    };
    // Only this thread and its children enter the mount namespace.
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let fixture = refused.map_or_else(|| KernelFixture::new(cx), Err);
            let mut checks = KernelChecks { fixture, cx, report };
            programs::run(&mut checks)?;
            credentials::run(&mut checks)?;
            faults::run(&mut checks)?;
            explained::run(&mut checks)?;
            places::run(&mut checks)?;
            run::run(&mut checks)?;
            rootless::run(&mut checks)?;
            looking::run(&mut checks)?;
            watch::run(&mut checks)?;
            others::run(&mut checks)?;
            packages::run(&mut checks)?;
            action::run(&mut checks)?;
            documents::run(&mut checks)
        });
        thread.join().map_err(|_| anyhow!("a check of the kernel level panicked"))?
    })
}
