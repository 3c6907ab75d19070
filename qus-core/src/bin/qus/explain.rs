//! `qus explain`: why a file runs here, or why it does not.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use qus_core::binfmt::Binfmt;
use qus_core::explain::{Explanation, RegisteredHandlers, explain};
use qus_core::text::Show;

use crate::context::warn_switched_off;
use crate::output::{print_json, print_text};

/// Explain what a program needs, and why it does or does not run
///
/// Follows scripts to their interpreters. The files are not started. The exit status is 1 if one of them cannot run.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  qus explain ./a-program /bin/sh")]
pub(crate) struct Args {
    /// Programs or scripts
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(binfmt: &Binfmt, args: &Args) -> Result<()> {
    let handlers = RegisteredHandlers::read(binfmt)?;
    if !handlers.switched_on {
        // Each explanation that this matters to has a hint.
        warn_switched_off(binfmt, handlers.state, false);
    }
    let explained: Vec<Explanation> = args.files.iter().map(|file| explain(file, &handlers)).collect();
    if args.json {
        print_json(&explained)?;
    } else {
        let mut text = String::new();
        for this in &explained {
            write_text(&mut text, this, "")?;
        }
        print_text(&text)?;
    }
    let failing: Vec<_> =
        explained.iter().filter(|this| !this.runs).map(|this| this.file.shown().to_string()).collect();
    if !failing.is_empty() {
        bail!("cannot be run here: {}", failing.join(" "));
    }
    Ok(())
}

fn write_text(text: &mut String, this: &Explanation, indent: &str) -> Result<()> {
    writeln!(text, "{indent}{}: {}", this.file.shown(), this.what)?;
    let mut line = |head: &str, value: &str| writeln!(text, "{indent}  {head:10} {}", value.shown());
    if let Some(abi) = this.abi {
        line("abi", abi)?;
    }
    if let Some(loader) = &this.loader {
        line("loader", loader)?;
    }
    if let Some(native) = this.native {
        line("native", if native { "yes" } else { "no" })?;
    }
    if let Some(handler) = &this.handler {
        line("handler", handler)?;
    }
    if let (Some(processor), Some(_)) = (this.processor, &this.handler) {
        line("processor", &format!("{processor}; QEMU_CPU=max has more features"))?;
    }
    line("runs", if this.runs { "yes" } else { "no" })?;
    for why in &this.why {
        line("reason", why)?;
    }
    if let Some(hint) = &this.hint {
        line("hint", hint)?;
    }
    if let Some(interpreter) = &this.interpreter {
        write_text(text, interpreter, &format!("{indent}    "))?;
    }
    Ok(())
}
