//! Our rules in forms that other programs register.
//!
//! systemd reads the kernel's own lines; update-binfmts gets a script of commands, since each of its files holds one
//! handler; OpenRC gets a service that writes the lines.
//!
//! ```
//! use qus_core::binfmt::Flags;
//! use qus_core::emulator::Emulator;
//! use qus_core::export;
//!
//! let arch = "riscv64".parse().unwrap();
//! let emulator = Emulator { arch, path: "/usr/bin/qemu-riscv64".into(), build: [0; 4] };
//! let conf = export::systemd(&[emulator], Flags::DEFAULT).unwrap();
//! assert!(conf.contains("\n:qemu-riscv64:M:0:"));
//! ```

use crate::binfmt::rule::escape;
use crate::binfmt::{BadRule, Files, Flags, Rule};
use crate::emulator::Emulator;
use crate::handler::rules_of;
use crate::text::single_quoted;

/// The first line of what we write, with `qus export` or `qus install --persist`.
const HEAD: &str = "# Written by qus. After `qus install --persist`, `qus remove --persist` removes it.\n";

fn rules(emulators: &[Emulator], flags: Flags) -> impl Iterator<Item = Rule> {
    emulators.iter().flat_map(move |emulator| rules_of(emulator, flags))
}

/// The lines that are written to `register`.
///
/// # Errors
/// A path cannot be part of a rule.
pub fn raw(emulators: &[Emulator], flags: Flags) -> Result<Vec<u8>, BadRule> {
    let mut lines = Vec::new();
    for rule in rules(emulators, flags) {
        lines.extend(rule.line()?);
        lines.push(b'\n');
    }
    Ok(lines)
}

/// A file for `/etc/binfmt.d`.
///
/// # Errors
/// As [`raw`]; systemd reads no path that is not UTF-8.
pub fn systemd(emulators: &[Emulator], flags: Flags) -> Result<String, BadRule> {
    Ok(HEAD.to_owned() + &text(raw(emulators, flags)?)?)
}

/// A service for OpenRC.
///
/// # Errors
/// As [`systemd`].
pub fn openrc(emulators: &[Emulator], flags: Flags) -> Result<String, BadRule> {
    let mut lines = String::new();
    let mut names = String::new();
    for rule in rules(emulators, flags) {
        lines += &format!("{}\n", text(rule.line()?)?);
        names += &format!(" {}", rule.name.to_string_lossy());
    }
    Ok(format!(
        r#"#!/sbin/openrc-run
{HEAD}
description="Registers qus's emulators with the kernel"
dir=/proc/sys/fs/binfmt_misc

depend() {{
	after modules localmount
}}

start() {{
	ebegin "Registering emulators"
	[ -e $dir/register ] || mount -t binfmt_misc binfmt_misc $dir || return 1
	while IFS= read -r line; do
		name=${{line#?}}
		separator=${{line%"$name"}}
		name=${{name%%"$separator"*}}
		[ -e "$dir/$name" ] || printf '%s' "$line" > $dir/register || return 1
	done <<'EOF'
{lines}EOF
	eend $?
}}

stop() {{
	ebegin "Removing emulators"
	for name in{names}; do
		[ ! -e "$dir/$name" ] || echo -1 > "$dir/$name"
	done
	eend $?
}}
"#
    ))
}

/// A script for `sh` that calls update-binfmts.
///
/// # Errors
/// As [`systemd`].
pub fn debian(emulators: &[Emulator], flags: Flags) -> Result<String, BadRule> {
    let mut script = "#!/bin/sh\n# Written by qus.\nset -e\n".to_owned();
    let yes = |set| if set { "yes" } else { "no" };
    for rule in rules(emulators, flags) {
        // For its checks: update-binfmts registers a rule that is as long.
        rule.line()?;
        let Files::Magic(offset, magic) = &rule.files else { continue };
        script += &format!(
            "update-binfmts --package qus --install {} {} \\\n  --offset {offset} --magic '{}' \\\n  --mask '{}' \\\n  \
             --credentials {} --preserve {} --fix-binary {}\n",
            rule.name.to_string_lossy(),
            single_quoted(&text(rule.interpreter.into_os_string().into_encoded_bytes())?),
            text(escape(&magic.magic))?,
            text(escape(&magic.mask))?,
            yes(flags.credentials),
            yes(flags.preserve_argv0),
            yes(flags.fix_binary),
        );
    }
    Ok(script)
}

fn text(bytes: Vec<u8>) -> Result<String, BadRule> {
    String::from_utf8(bytes).map_err(|_| BadRule::Line("a path is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emulators(path: &str) -> Vec<Emulator> {
        vec![Emulator { arch: "i386".parse().unwrap(), path: path.into(), build: [1, 2, 3, 4] }]
    }

    #[test]
    fn systemds_lines_are_rules() {
        let text = systemd(&emulators("/usr/bin/qemu-i386"), Flags::DEFAULT).unwrap();
        let rules: Vec<Rule> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| Rule::parse(line.as_bytes()).unwrap())
            .collect();
        assert_eq!(rules, rules_of(&emulators("/usr/bin/qemu-i386")[0], Flags::DEFAULT));
        assert_eq!(rules.len(), 2, "a second machine number is a second rule");
    }

    #[test]
    fn debians_commands_quote_paths() {
        let text = debian(&emulators("/it's here/qemu"), Flags::NO_CREDENTIALS).unwrap();
        assert!(text.contains(r"--install qemu-i386 '/it'\''s here/qemu'"), "{text}");
        assert!(text.contains("--credentials no --preserve yes --fix-binary yes"), "{text}");
    }

    #[test]
    fn openrcs_service_has_every_line() {
        let text = openrc(&emulators("/usr/bin/qemu-i386"), Flags::DEFAULT).unwrap();
        assert!(text.starts_with("#!/sbin/openrc-run\n"));
        for rule in rules_of(&emulators("/usr/bin/qemu-i386")[0], Flags::DEFAULT) {
            assert!(text.contains(&*String::from_utf8(rule.line().unwrap()).unwrap()));
        }
        assert!(text.contains("for name in qemu-i386 qemu-i386-6; do"), "{text}");
    }
}
