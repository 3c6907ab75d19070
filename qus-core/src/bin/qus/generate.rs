//! `qus completions` and `qus man`: generated from the definition of the commands.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Command;
use clap::builder::PossibleValuesParser;
use clap_complete::Shell;
use clap_mangen::Man;
use qus_core::arch::ARCHES;
use qus_core::text::Show;

use crate::output::print_data;

/// Print the completion script for a shell
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  qus completions bash > /etc/bash_completion.d/qus")]
pub(crate) struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

/// Write the manual pages to a directory
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  qus man /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
}

pub(crate) fn completions(args: &CompletionsArgs, qus: Command) -> Result<()> {
    let mut qus = qus.mut_subcommands(with_archs);
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut qus, "qus", &mut script);
    if args.shell == Shell::Fish {
        script.extend(qus.get_subcommands().filter_map(fish_arguments).flat_map(String::into_bytes));
    }
    print_data(script)
}

/// What clap_complete lacks for fish: the values of arguments without a name.
fn fish_arguments(command: &Command) -> Option<String> {
    let values = command.get_positionals().flat_map(|arg| arg.get_possible_values());
    let values: Vec<_> = values.map(|value| value.get_name().to_owned()).collect();
    let condition = format!("__fish_qus_using_subcommand {}", command.get_name());
    (!values.is_empty())
        .then(|| format!("complete -c qus -n \"{condition}\" -f -a \"{}\"\n", values.join(" ")))
}

/// Other spellings are accepted too, so that the arguments themselves have no such list.
fn with_archs(command: Command) -> Command {
    let names = PossibleValuesParser::new(ARCHES.iter().map(|arch| arch.name).chain(["all"]));
    command.mut_args(|arg| if arg.get_id() == "archs" { arg.value_parser(names.clone()) } else { arg })
}

pub(crate) fn man(args: &ManArgs, qus: Command) -> Result<()> {
    let failed = || format!("cannot write manual pages to {}", args.dir.shown());
    fs::create_dir_all(&args.dir).with_context(failed)?;
    let mut qus = qus.disable_help_subcommand(true);
    qus.build();
    for command in std::iter::once(&qus).chain(qus.get_subcommands()) {
        let name = page_name(command);
        fs::write(args.dir.join(format!("{name}.1")), page(&qus, command)?).with_context(failed)?;
    }
    Ok(())
}

/// A command's manual page: `qus-install`.
fn page_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

fn page(qus: &Command, command: &Command) -> Result<Vec<u8>> {
    let man = Man::new(command.clone()).source(concat!("qus ", env!("CARGO_PKG_VERSION"))).manual("qus");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let common = sections(qus);
    let own = sections(command);
    for name in ["EXIT STATUS", "ENVIRONMENT", "EXAMPLES"] {
        let from = if name == "EXAMPLES" { &own } else { &common };
        if let Some((_, text)) = from.iter().find(|(head, _)| head == name) {
            page.extend_from_slice(format!(".SH \"{name}\"\n{text}").as_bytes());
        }
    }
    let others = std::iter::once(qus).chain(qus.get_subcommands()).map(page_name);
    let others: Vec<_> =
        others.filter(|name| *name != page_name(command)).map(|name| format!("\\fB{name}\\fR(1)")).collect();
    page.extend_from_slice(format!(".SH \"SEE ALSO\"\n{}\n", others.join(",\n")).as_bytes());
    Ok(page)
}

/// The sections at the end of a command's help, with their heads in capitals: `Exit status:`, then indented lines.
fn sections(command: &Command) -> Vec<(String, String)> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let section = |paragraph: &str| {
        let (head, lines) = paragraph.split_once(":\n  ")?;
        let head = head.to_uppercase();
        let lines: Vec<_> = lines.lines().map(|line| escape(line.trim_start())).collect();
        let text = if head == "EXAMPLES" {
            format!(".nf\n{}\n.fi\n", lines.join("\n"))
        } else {
            lines.iter().map(|line| described(line)).collect()
        };
        Some((head, text))
    };
    help.split("\n\n").filter_map(section).collect()
}

/// A name and what it means, or a sentence.
fn described(line: &str) -> String {
    match line.split_once("  ") {
        Some((name, meaning)) => format!(".TP\n\\fB{name}\\fR\n{}\n", meaning.trim_start()),
        None => format!(".PP\n{line}\n"),
    }
}

/// Text as roff prints it: no request, no special character.
fn escape(line: &str) -> String {
    format!("\\&{}", line.replace('\\', "\\e").replace('-', "\\-"))
}
