//! `qus completions` and `qus man`: generated from the definition of the commands.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;
use qus_core::text::Show;

use crate::output::print_data;

/// Print the completion script for a shell
#[derive(clap::Args)]
#[command(after_help = "Example: qus completions bash > /etc/bash_completion.d/qus")]
pub(crate) struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

/// Write the manual pages to a directory
#[derive(clap::Args)]
#[command(after_help = "Example: qus man /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn completions(args: &CompletionsArgs, mut qus: Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut qus, "qus", &mut script);
    print_data(script)
}

pub(crate) fn man(args: &ManArgs, qus: Command) -> Result<()> {
    let failed = || format!("cannot write manual pages to {}", args.dir.shown());
    fs::create_dir_all(&args.dir).with_context(failed)?;
    clap_mangen::generate_to(qus, &args.dir).with_context(failed)
}
