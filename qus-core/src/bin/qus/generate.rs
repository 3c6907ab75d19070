//! `qus completions` and `qus man`: made from the commands themselves.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use crate::Cli;
use crate::output::out;
use qus_core::text::Show;

/// Print the completion script for a shell
#[derive(clap::Args)]
#[command(after_help = "Example: qus completions bash > /etc/bash_completion.d/qus")]
pub(crate) struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

/// Write the manual pages to a folder
#[derive(clap::Args)]
#[command(after_help = "Example: qus man /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "qus", &mut script);
    out(script)
}

pub(crate) fn man(args: &ManArgs) -> Result<()> {
    let failed = || format!("cannot write manual pages to {}", args.dir.shown());
    fs::create_dir_all(&args.dir).with_context(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.dir).with_context(failed)
}
