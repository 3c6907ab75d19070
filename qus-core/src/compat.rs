//! The argument forms of dbhi/qus, tonistiigi/binfmt and multiarch/qemu-user-static, as commands of qus.
//!
//! They are recognised without a mode switch, because our own arguments begin with a command, or with `--mount` before
//! one. They have the same effect as there, except that a failure has exit status 1, that handlers always have the flags
//! P and F, and that only our own are removed. Options that run a shell or write files of other programs are refused.
//!
//! ```
//! let args = ["--install", "arm64"].map(str::to_owned);
//! let commands = qus_core::compat::translate(&args).unwrap().unwrap();
//! assert_eq!(commands, [vec!["install", "arm64"], vec!["platforms"]]);
//! ```

use std::fmt;

use crate::arch::{ARCHES, Arch};

/// Commands of qus with their arguments, to be run one after the other.
pub type Commands = Vec<Vec<String>>;

/// Why arguments in an old form cannot be translated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompatError(String);

impl fmt::Display for CompatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CompatError {}

/// Translates arguments, without the program's name; `None` if they are in none of the old forms.
///
/// # Errors
/// They are in an old form, and request something that is not supported or not understood.
pub fn translate(args: &[String]) -> Option<Result<Commands, CompatError>> {
    // `--mount` is in both forms: in ours a command follows, in the old one another option.
    let after_mount = match args {
        [mount, _, rest @ ..] if mount == "--mount" => rest,
        [mount, rest @ ..] if mount.starts_with("--mount=") => rest,
        _ => args,
    };
    let is_ours =
        |first: &str| !first.starts_with('-') || ["--help", "-h", "--version", "-V"].contains(&first);
    match args {
        [] => Some(Ok(vec![words(&["platforms"])])),
        [only] if only == "-version" => Some(Ok(vec![words(&["--version"])])),
        _ if after_mount.first().is_some_and(|first| is_ours(first)) => None,
        _ => Some(Request::read(args).map(Request::commands)),
    }
}

/// What was requested in an old form.
#[derive(Debug, Default)]
struct Request {
    /// The form of tonistiigi/binfmt: it ends with a list of platforms, and registers with credentials.
    platforms: bool,
    list: bool,
    /// What is removed; nothing if it is empty.
    remove: Vec<String>,
    install: bool,
    /// Takes precedence over `install`.
    no_install: bool,
    force: bool,
    credentials: bool,
    dry_run: bool,
    targets: Vec<String>,
    dir: Option<String>,
    mount: Option<String>,
}

impl Request {
    fn read(args: &[String]) -> Result<Self, CompatError> {
        let mut this = Self::default();
        let mut args = Args { rest: args, value: None };
        // After `--` dbhi/qus has arguments for another script, where -r and -t have other meanings.
        let mut after_dashes = false;
        // `-- -r` removes the architectures that follow, or all.
        let mut clear = false;
        while let Some(name) = args.next() {
            match (name, after_dashes) {
                ("--", false) => after_dashes = true,
                ("--install" | "-install", _) => {
                    this.platforms = true;
                    // An empty value, as of an unset variable, installs nothing; no target at all would mean all.
                    let targets: Vec<_> = list(args.value(name)?).collect();
                    this.install |= !targets.is_empty();
                    this.targets.extend(targets);
                }
                ("--uninstall" | "-uninstall", _) => {
                    this.platforms = true;
                    this.remove.extend(list(args.value(name)?).flat_map(|pattern| architectures(&pattern)));
                }
                ("--mount" | "-mount", _) => {
                    this.platforms = true;
                    this.mount = Some(args.value(name)?.to_owned());
                }
                ("-Q" | "--path" | "--qemu-path", _) => this.dir = Some(args.value(name)?.to_owned()),
                // Emulators are found with and without a suffix.
                ("-F" | "--suffix" | "--qemu-suffix", _) => drop(args.value(name)?),
                ("-s" | "--static" | "-static", false) => this.install = true,
                ("-l" | "--list" | "-list", false) => this.list = true,
                ("-e" | "--exit" | "-exit", false) => this.no_install = true,
                ("-r" | "--reset" | "-reset", false) => {
                    this.remove = words(&["all"]);
                    (this.install, this.force) = (true, true);
                }
                ("-t" | "--targets" | "-targets", false) => {
                    this.install = true;
                    this.targets.extend(list(args.value(name)?));
                }
                ("-r" | "--clear", true) => (clear, this.no_install) = (true, true),
                ("-t" | "--test", true) => (this.install, this.dry_run) = (true, true),
                // Handlers always have the flag F.
                ("-p" | "--persistent", _) => (this.install, _) = (true, args.yes()),
                ("-c" | "--credential", _) => (this.install, this.credentials) = (true, args.yes()),
                ("-i" | "--interactive" | "-interactive", _) => {
                    return Err(CompatError("-i runs a shell, which qus does not have".to_owned()));
                }
                ("-d" | "--debian" | "--systemd" | "-s" | "-e" | "--exportdir", _) => {
                    return Err(CompatError(format!(
                        "{name} writes files for other programs: see `qus export`"
                    )));
                }
                (target, true) if !target.starts_with('-') => {
                    this.install = true;
                    this.targets.push(target.to_owned());
                }
                _ => return Err(CompatError(format!("unknown argument `{name}`: see `qus --help`"))),
            }
        }
        if clear {
            this.remove = all_if_none(std::mem::take(&mut this.targets));
        }
        this.install &= !this.no_install;
        Ok(this)
    }

    fn commands(self) -> Commands {
        let mut commands = Commands::new();
        if self.list {
            commands.push(words(&["status"]));
        }
        if !self.remove.is_empty() {
            commands.push([words(&["remove"]), self.remove].concat());
        }
        if self.install {
            let mut command = words(&["install"]);
            let options = [
                ("--no-credentials", !self.credentials && !self.platforms),
                ("--force", self.force),
                ("--dry-run", self.dry_run),
            ];
            command.extend(options.into_iter().filter(|(_, set)| *set).map(|(option, _)| option.to_owned()));
            command.extend(self.dir.map(|dir| format!("--dir={dir}")));
            commands.push([command, all_if_none(self.targets)].concat());
        }
        if self.platforms || commands.is_empty() {
            commands.push(words(&["platforms"]));
        }
        let mount = self.mount.map(|mount| format!("--mount={mount}"));
        commands.into_iter().map(|command| mount.iter().cloned().chain(command).collect()).collect()
    }
}

/// Arguments, of which one may be split at its `=`.
struct Args<'a> {
    rest: &'a [String],
    value: Option<&'a str>,
}

impl<'a> Args<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (arg, rest) = self.rest.split_first()?;
        self.rest = rest;
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) if name.starts_with('-') => (name, Some(value)),
            _ => (&**arg, None),
        };
        self.value = value;
        Some(name)
    }

    fn value(&mut self, name: &str) -> Result<&'a str, CompatError> {
        if let Some(value) = self.value.take() {
            return Ok(value);
        }
        let (value, rest) =
            self.rest.split_first().ok_or_else(|| CompatError(format!("{name} needs a value")))?;
        self.rest = rest;
        Ok(value)
    }

    /// An optional `yes` or `no`; without one it is yes.
    fn yes(&mut self) -> bool {
        if let Some(value) = self.value.take() {
            return value != "no";
        }
        match self.rest.split_first() {
            Some((next, rest)) if next == "yes" || next == "no" => {
                self.rest = rest;
                next == "yes"
            }
            _ => true,
        }
    }
}

/// The architectures whose handlers match a pattern of tonistiigi/binfmt: the name of a handler, perhaps with a star at
/// its end, or any spelling of an architecture. A pattern that matches nothing is returned as it is, so that `remove`
/// reports it.
fn architectures(pattern: &str) -> Vec<String> {
    let matching: Vec<String> = match pattern.strip_suffix('*') {
        Some("qemu-" | "") => words(&["all"]),
        Some(prefix) => {
            let begins = |arch: &&Arch| arch.emulator().starts_with(prefix);
            ARCHES.iter().filter(begins).map(|arch| arch.name.to_owned()).collect()
        }
        None => vec![pattern.strip_prefix("qemu-").unwrap_or(pattern).to_owned()],
    };
    if matching.is_empty() { vec![pattern.to_owned()] } else { matching }
}

fn all_if_none(names: Vec<String>) -> Vec<String> {
    if names.is_empty() { words(&["all"]) } else { names }
}

fn list(value: &str) -> impl Iterator<Item = String> {
    value.split(',').filter(|word| !word.is_empty()).map(str::to_owned)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Old forms and what they mean, for the README and its test: program, arguments, commands of ours.
pub const FORMS: [(&str, &str, &str); 16] = [
    ("dbhi/qus", "-s -- -p", "install --no-credentials all"),
    ("dbhi/qus", "-s -- -p aarch64", "install --no-credentials aarch64"),
    ("dbhi/qus", "-s -- -c -p aarch64 arm", "install aarch64 arm"),
    ("dbhi/qus", "-s -- -t aarch64", "install --no-credentials --dry-run aarch64"),
    ("dbhi/qus", "-- -r", "remove all"),
    ("dbhi/qus", "-- -r aarch64", "remove aarch64"),
    ("dbhi/qus", "-l", "status"),
    ("dbhi/qus, older", "-s -t aarch64,arm -- -p yes", "install --no-credentials aarch64 arm"),
    ("dbhi/qus, older", "-r -e", "remove all"),
    ("tonistiigi/binfmt", "", "platforms"),
    ("tonistiigi/binfmt", "--install all", "install all; platforms"),
    ("tonistiigi/binfmt", "--install arm64,riscv64", "install arm64 riscv64; platforms"),
    ("tonistiigi/binfmt", "--uninstall qemu-*", "remove all; platforms"),
    ("tonistiigi/binfmt", "--uninstall qemu-aarch64", "remove aarch64; platforms"),
    ("multiarch/qemu-user-static", "--reset -p yes", "remove all; install --no-credentials --force all"),
    ("multiarch/qemu-user-static", "--reset -p yes --credential yes", "remove all; install --force all"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use arbtest::arbtest;

    fn args(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn translated(line: &str) -> String {
        match translate(&args(line)) {
            None => "ours".to_owned(),
            Some(Ok(commands)) => {
                commands.iter().map(|command| command.join(" ")).collect::<Vec<_>>().join("; ")
            }
            Some(Err(unclear)) => format!("error: {unclear}"),
        }
    }

    #[test]
    fn the_published_forms() {
        for (program, line, ours) in FORMS {
            assert_eq!(translated(line), ours, "{program} {line}");
        }
    }

    #[test]
    fn further_spellings() {
        assert_eq!(translated("-install=all"), "install all; platforms");
        assert_eq!(
            translated("--uninstall qemu-mips*"),
            "remove mips mips64 mips64el mipsel mipsn32 mipsn32el; platforms"
        );
        assert_eq!(
            translated("--uninstall linux/arm64,s390x --install arm"),
            "remove linux/arm64 s390x; install arm; platforms"
        );
        assert_eq!(translated("--mount /m --install all"), "--mount=/m install all; --mount=/m platforms");
        assert_eq!(
            translated("--reset --persistent no --credential=no -Q /b"),
            "remove all; install --no-credentials --force --dir=/b all"
        );
        assert_eq!(translated("-version"), "--version");
        assert_eq!(translated("-p=no sh4"), "error: unknown argument `sh4`: see `qus --help`");
        assert_eq!(translated("-- -c=no yes"), "install --no-credentials yes", "it has a value already");
        assert_eq!(translated("--credential yes"), "install all");
    }

    #[test]
    fn what_matches_nothing_is_not_all() {
        assert_eq!(translated("--uninstall vax*"), "remove vax*; platforms");
        assert_eq!(translated("--uninstall="), "platforms");
        assert_eq!(translated("--install="), "platforms");
        assert_eq!(translated("--uninstall= --install arm"), "install arm; platforms");
        assert_eq!(translated("-- -r"), "remove all");
    }

    #[test]
    fn our_own_arguments_are_unchanged() {
        for line in [
            "install all",
            "--help",
            "-h",
            "--version",
            "-V",
            "--mount /m status",
            "--mount=/m status",
            "run -- a",
            "--help install",
            "--mount /m --help",
            "--mount=/m -V",
        ] {
            assert_eq!(translated(line), "ours", "{line}");
        }
    }

    #[test]
    fn what_cannot_be_translated_is_an_error() {
        for line in ["-i ls", "--install", "-- -d", "--nonsense", "-s extra", "-- -s"] {
            assert!(translated(line).starts_with("error: "), "{line}: {}", translated(line));
        }
    }

    #[test]
    fn arbitrary_arguments_never_panic() {
        arbtest(|u| {
            const WORDS: [&str; 12] =
                ["-s", "--", "-p", "yes", "-r", "-t", "--install", "--mount", "a=b", "--reset", "-c=no", "*"];
            let args: Vec<String> = (0..u.int_in_range(0..=6)?)
                .map(|_| if u.arbitrary()? { u.arbitrary() } else { Ok((*u.choose(&WORDS)?).to_owned()) })
                .collect::<Result<_, _>>()?;
            let _ = translate(&args);
            Ok(())
        });
    }
}
