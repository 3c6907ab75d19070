//! Checks the build requirements of this machine. All missing requirements are reported at once, with the
//! distribution's command that installs them.

use anyhow::Result;
use qemu_src::Tools;
use qus_core::hint::hinted;
use qus_core::text::Show;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, is_installed, sh};
use crate::base::progress::{Bar, one_line};
use crate::debian::distribution::{self, Distribution};
use crate::qemu::compiler;

/// Refuses paths that QEMU's configure or `PATH` do not support, before anything is fetched.
pub(crate) fn check_directories(cx: &Context) -> Result<()> {
    for dir in [cx.paths.out(), cx.paths.cache()] {
        let text = dir.to_string_lossy();
        if text.contains([' ', ':', '\n', '\t', '\'', '"']) {
            return Err(hinted(
                format_args!(
                    "QEMU cannot be built in {}, because of a character in this path",
                    one_line(&text)
                ),
                "move the clone, or set CARGO_TARGET_DIR and XDG_CACHE_HOME, to a path without spaces, colons and quotes",
            ));
        }
    }
    Ok(())
}

/// What this machine lacks.
struct Missing {
    name: String,
    reason: String,
    /// What to do about it, if it does not come from a package.
    hint: Option<String>,
}

/// Checks all requirements.
///
/// # Errors
/// At least one is missing; the error lists all of them, and the hint has the command that installs these.
pub(crate) fn check(cx: &Context) -> Result<()> {
    let bar = Bar::short("checking this machine");
    let missing = find_missing(cx)?;
    drop(bar);
    if missing.is_empty() {
        return Ok(());
    }
    let list: String = missing.iter().map(|it| format!("\n  {}: {}", it.name, it.reason)).collect();
    let tools = &cx.data.tools;
    let hint = hint(tools, install_command(tools)?, &missing);
    Err(hinted(format!("this machine lacks build requirements:{list}"), hint))
}

fn find_missing(cx: &Context) -> Result<Vec<Missing>> {
    let mut missing = Vec::new();
    let mut require = |found: bool, name: &str, reason: &str, hint: Option<String>| {
        if !found {
            missing.push(Missing { name: name.to_owned(), reason: reason.to_owned(), hint });
        }
    };
    let cc = cx.settings.cc();
    let has_compiler = is_installed(cc);
    let reason = "the C compiler that builds QEMU; CC selects another one";
    let unset = || "set CC to an installed compiler, or unset it".to_owned();
    require(has_compiler, cc, reason, cx.settings.cc.as_ref().map(|_| unset()));
    if let Some(cache) = &cx.settings.compiler_cache {
        require(
            is_installed(&cache.program),
            &cache.program,
            "the compiler cache that QUS_COMPILER_CACHE selects",
            Some(format!("install {}, or unset QUS_COMPILER_CACHE", cache.program.quoted())),
        );
    }
    require(is_installed("strip"), "strip", "removes symbols from the emulators", None);
    require(is_installed("git"), "git", "applies the patches", None);
    let old = "import sys; sys.exit(sys.version_info < (3, 9))";
    let python = exec::read(cmd!(sh(), "python3 -c {old}")).is_ok();
    require(python, "python3", "version 3.9 or newer, runs QEMU's configure", None);
    if has_compiler {
        let libc = compiler::find_library(cx, "libc.a")?.is_some();
        require(libc, "libc.a", "the static C library", None);
        let musl = exec::read(cmd!(sh(), "{cc} -dumpmachine"))?.contains("musl");
        require(
            !musl,
            "glibc",
            "emulators linked with musl mishandle O_LARGEFILE (QEMU issue 3262)",
            Some("build on a distribution with glibc, such as Debian".to_owned()),
        );
    }
    if Distribution::detect()?.is_none() {
        for program in &cx.data.tools.system {
            let name = &program.name;
            require(is_installed(name), name, &program.reason, None);
        }
        let pip = exec::read(cmd!(sh(), "python3 -m pip --version")).is_ok();
        require(pip, "pip", "installs the pinned Python packages into the cache", None);
        for library in &cx.data.tools.static_libraries {
            let found = !has_compiler || compiler::find_library(cx, &library.name)?.is_some();
            require(found, &library.name, &library.reason, None);
        }
    }
    Ok(missing)
}

/// The command of this distribution, or the one that it derives from, which installs all requirements.
fn install_command(tools: &Tools) -> Result<Option<&str>> {
    let release = distribution::os_release()?;
    let names = ["ID", "ID_LIKE"]
        .map(|name| distribution::os_release_field(&release, name).unwrap_or_default())
        .join(" ");
    let install = tools.install.iter().find(|install| names.split(' ').any(|name| name == install.like));
    Ok(install.map(|install| &*install.command))
}

/// What to do: install the packages with what is missing, of those that a distribution's command installs, and the rest.
fn hint(tools: &Tools, install: Option<&str>, missing: &[Missing]) -> String {
    let mut words = install.unwrap_or_default().split(" #").next().unwrap_or_default().split_whitespace();
    let program: Vec<_> = words.by_ref().take(2).collect();
    let available: Vec<_> = words.collect();
    let (mut packages, mut others): (Vec<&str>, Vec<String>) = (Vec::new(), Vec::new());
    for Missing { name, hint, .. } in missing {
        if let Some(hint) = hint {
            others.push(hint.clone());
            continue;
        }
        match tools.providers.get(name) {
            None => others.push(format!("install {name}")),
            Some(providers) => {
                let found = available.iter().filter(|package| providers.iter().any(|it| it == *package));
                let found: Vec<_> = found.copied().collect();
                if found.is_empty() {
                    others.push(format!("install {name} with the package manager of this distribution"));
                }
                packages.extend(found);
            }
        }
    }
    let needed: Vec<_> = available.into_iter().filter(|package| packages.contains(package)).collect();
    if !needed.is_empty() {
        others.insert(0, format!("run as root `{} {}`", program.join(" "), needed.join(" ")));
    }
    others.dedup();
    others.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools() -> Tools {
        Context::new().unwrap().data.tools
    }

    fn missing(name: &str, hint: Option<&str>) -> Missing {
        Missing { name: name.to_owned(), reason: String::new(), hint: hint.map(str::to_owned) }
    }

    /// The hint on a distribution if these are missing.
    fn hint_on(like: &str, missing: &[Missing]) -> String {
        let tools = tools();
        let install = tools.install.iter().find(|install| install.like == like);
        hint(&tools, install.map(|install| &*install.command), missing)
    }

    #[test]
    fn only_what_is_missing_is_installed() {
        let hint_on = |like, names: &[&str]| {
            hint_on(like, &names.iter().map(|name| missing(name, None)).collect::<Vec<_>>())
        };
        assert_eq!(hint_on("debian", &["git"]), "run as root `apt-get install git`");
        assert_eq!(
            hint_on("debian", &["cc", "strip", "libc.a"]),
            "run as root `apt-get install gcc libc6-dev`"
        );
        assert_eq!(
            hint_on("fedora", &["pkg-config", "libc.a", "ninja"]),
            "run as root `dnf install ninja-build pkgconf-pkg-config glibc-static`"
        );
        assert_eq!(hint_on("suse", &["libpcre2-8.a"]), "run as root `zypper install glib2-devel-static`");
    }

    #[test]
    fn what_no_package_provides_has_its_own_hint() {
        assert_eq!(
            hint_on(
                "debian",
                &[missing("x", Some("unset X")), missing("git", None), missing("nonesuch", None)]
            ),
            "run as root `apt-get install git`; unset X; install nonesuch"
        );
        let none = "install git with the package manager of this distribution";
        assert_eq!(hint_on("no such distribution", &[missing("git", None)]), none);
    }

    #[test]
    fn every_package_of_a_command_provides_something() {
        let tools = tools();
        for install in &tools.install {
            for package in
                install.command.split(" #").next().unwrap().split(' ').skip(2).filter(|it| !it.is_empty())
            {
                let provides = tools.providers.values().flatten().any(|it| it == package);
                assert!(provides, "{package} of `{}`", install.command);
            }
        }
    }
}
