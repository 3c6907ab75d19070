//! Checks images with a real engine and a real registry: building, pushing, pulling, running, and every failure.
//!
//! Only throwaway engines are used, never the machine's Docker. As at the level `kernel`, handlers are registered in
//! the machine's kernel and unregistered afterwards.

mod around;
mod builders;
mod faults;
mod faulty;
mod hosts;
mod lifecycle;
mod nodes;
mod push;
mod signed;
mod uses;

use std::thread;

use anyhow::{Result, anyhow};

use crate::base::context::Context;
use crate::base::progress::say;
use crate::bundle::hosts::built;
use crate::check::report::Report;
use crate::check::smoke::fixture::engine::{EngineChecks, EngineFixture};
use crate::check::smoke::fixture::kernel::KernelFixture;

pub(super) fn run(cx: &Context, report: &mut Report) -> Result<()> {
    // Only this thread and its children enter the mount namespace.
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let fixture = KernelFixture::new(cx).and_then(EngineFixture::new);
            let mut checks = EngineChecks { fixture, cx, report };
            lifecycle::run(&mut checks)?;
            push::run(&mut checks)?;
            signed::run(&mut checks)?;
            uses::run(&mut checks)?;
            around::run(&mut checks)?;
            builders::run(&mut checks)?;
            hosts::run(&mut checks)?;
            if built(cx).count() > 2 {
                nodes::run(&mut checks)?;
            } else {
                say("not checked: a builder with two nodes, which compiles for minutes unless three hosts are built");
            }
            faults::run(&mut checks)
        });
        thread.join().map_err(|_| anyhow!("a check of the engine level panicked"))?
    })
}
