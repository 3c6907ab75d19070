//! The shell blocks of the documents: which commands they have, what they print, and which are not run.
//!
//! A block is indented by four spaces, or fenced as `sh` or `console`. In `console`, a command starts with `$ `, and the
//! lines after it are its output. The comment `<!-- not run: REASON -->` before a block says why a check cannot run it.
//! `xtask/tests/it/documents.rs` includes this file, so that a test finds what no check would run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Languages of fenced blocks that are not shell.
const OTHER_LANGUAGES: [&str; 6] = ["diff", "dockerfile", "ini", "text", "toml", "yaml"];

/// A shell block.
pub(crate) struct Block {
    /// The number of its first line.
    pub(crate) line: usize,
    /// Why it is not run; `None` if it is.
    pub(crate) not_run: Option<String>,
    pub(crate) commands: Vec<Command>,
}

/// A command and what the document shows of its output. An indented block is one command without output.
pub(crate) struct Command {
    pub(crate) script: String,
    pub(crate) output: Vec<String>,
}

/// Returns the paths of all documents.
pub(crate) fn documents(workspace: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for dir in ["", "docs", "images", "qemu-src/patches", "xtask"] {
        for entry in fs::read_dir(workspace.join(dir))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    Ok(paths)
}

/// Finds the shell blocks of a document. An error names the line.
pub(crate) fn blocks(document: &str) -> Result<Vec<Block>, String> {
    let lines: Vec<&str> = document.lines().collect();
    let (mut blocks, mut mark, mut at) = (Vec::new(), None, 0);
    // Indented text is a block after a blank line, unless it belongs to an item of a list.
    let (mut blank, mut list) = (true, false);
    while let Some(line) = lines.get(at) {
        let (first, after_blank) = (at, std::mem::replace(&mut blank, line.trim().is_empty()));
        at += 1;
        let found = if blank {
            continue;
        } else if let Some(reason) = line.strip_prefix("<!-- not run: ") {
            let reason = reason.strip_suffix(" -->").filter(|reason| !reason.is_empty());
            mark = Some(reason.ok_or(format!("line {at}: a mark without a reason"))?.to_owned());
            continue;
        } else if let Some(language) = line.trim_start().strip_prefix("```") {
            let length = lines[at..].iter().position(|line| line.trim() == "```");
            let length = length.ok_or(format!("line {at}: a block without an end"))?;
            let body = &lines[at..at + length];
            at += length + 1;
            match language {
                "sh" => Some(script(body)),
                "console" => Some(session(body).ok_or(format!("line {at}: output before a command"))?),
                other if OTHER_LANGUAGES.contains(&other) => None,
                other => return Err(format!("line {}: unknown language `{other}`", first + 1)),
            }
        } else if after_blank && line.starts_with("    ") {
            if list {
                return Err(format!("line {at}: an indented block in a list; use a fence"));
            }
            let indented = |line: &&&str| line.starts_with("    ") || line.trim().is_empty();
            at = first + lines[first..].iter().take_while(indented).count();
            blank = true;
            Some(script(&lines[first..at]))
        } else {
            if !line.starts_with(' ') {
                let item = line.split(' ').next().unwrap_or_default();
                list =
                    item == "-" || item.strip_suffix('.').is_some_and(|number| number.parse::<u32>().is_ok());
            }
            None
        };
        let not_run = mark.take();
        match found {
            Some(commands) => blocks.push(Block { line: first + 1, not_run, commands }),
            None if not_run.is_some() => {
                return Err(format!("line {}: not a shell block, but marked", first + 1));
            }
            None => {}
        }
    }
    Ok(blocks)
}

fn script(body: &[&str]) -> Vec<Command> {
    let lines: Vec<_> = body.iter().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
    vec![Command { script: lines.join("\n").trim_end().to_owned(), output: Vec::new() }]
}

fn session(body: &[&str]) -> Option<Vec<Command>> {
    let mut commands: Vec<Command> = Vec::new();
    for line in body {
        match line.strip_prefix("$ ") {
            Some(script) => commands.push(Command { script: script.to_owned(), output: Vec::new() }),
            None => commands.last_mut()?.output.push((*line).to_owned()),
        }
    }
    Some(commands)
}

impl Command {
    /// Whether the document shows that it fails.
    pub(crate) fn fails(&self) -> bool {
        self.output.iter().any(|line| line.starts_with("error: "))
    }

    /// Returns the first shown line that is not in the output. Lines in between may be missing in the document, and `...`
    /// stands for any text.
    pub(crate) fn missing(&self, printed: &str) -> Option<&str> {
        let mut printed = printed.lines();
        self.output.iter().map(String::as_str).find(|shown| !printed.any(|line| matches(shown, line)))
    }
}

/// Whether a line is as shown; `...` stands for any text.
fn matches(shown: &str, line: &str) -> bool {
    let Some((first, others)) = shown.trim_end().split_once("...") else {
        return line.trim_end() == shown.trim_end();
    };
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    for part in others.split("...") {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    others.ends_with("...") || others.is_empty() || rest.is_empty()
}
