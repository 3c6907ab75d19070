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
    solution: Solution,
}

/// How a missing requirement is met.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Solution {
    /// By the packages that contain this; see [`PROVIDERS`].
    Packages(&'static str),
    /// By something else.
    Other(String),
}

/// The packages that contain a program or library, whatever distribution names them so. Which of them a distribution has
/// is known from its command in `tools.toml`.
const PROVIDERS: [(&str, &[&str]); 14] = [
    ("cc", &["gcc"]),
    ("strip", &["binutils", "gcc"]),
    ("git", &["git"]),
    ("curl", &["curl"]),
    ("python3", &["python3", "python3-pip", "python-pip"]),
    ("libc.a", &["libc6-dev", "glibc-static", "glibc-devel-static"]),
    ("ninja", &["ninja-build", "ninja"]),
    ("pkg-config", &["pkgconf-pkg-config", "pkgconf"]),
    ("flex", &["flex"]),
    ("bison", &["bison"]),
    ("pip", &["python3-pip", "python-pip"]),
    ("libglib-2.0.a", &["glib2-static", "glib2-devel-static", "glib2", "zlib-static"]),
    ("libpcre2-8.a", &["pcre2-static", "glib2-devel-static", "glib2"]),
    ("libz.a", &["zlib-static"]),
];

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
    let solutions: Vec<_> = missing.into_iter().map(|it| it.solution).collect();
    let install = install_command(&cx.data.tools)?;
    Err(hinted(format!("this machine lacks build requirements:{list}"), hint(install.as_deref(), &solutions)))
}

fn find_missing(cx: &Context) -> Result<Vec<Missing>> {
    let mut missing = Vec::new();
    let mut require = |found: bool, name: &str, reason: &str, solution: Solution| {
        if !found {
            missing.push(Missing { name: name.to_owned(), reason: reason.to_owned(), solution });
        }
    };
    let packages = |name: &str| {
        let known = PROVIDERS.iter().find(|(provided, _)| *provided == name);
        known.map_or_else(|| Solution::Other(format!("install {name}")), |(name, _)| Solution::Packages(name))
    };
    let cc = cx.settings.cc();
    let has_compiler = is_installed(cc);
    let reason = "the C compiler that builds QEMU; CC selects another one";
    match &cx.settings.cc {
        Some(_) => require(
            has_compiler,
            cc,
            reason,
            Solution::Other("set CC to an installed compiler, or unset it".to_owned()),
        ),
        None => require(has_compiler, cc, reason, packages("cc")),
    }
    if let Some(cache) = &cx.settings.compiler_cache {
        require(
            is_installed(&cache.program),
            &cache.program,
            "the compiler cache that QUS_COMPILER_CACHE selects",
            Solution::Other(format!("install {}, or unset QUS_COMPILER_CACHE", cache.program.quoted())),
        );
    }
    require(is_installed("strip"), "strip", "removes symbols from the emulators", packages("strip"));
    require(is_installed("git"), "git", "applies the patches", packages("git"));
    let old = "import sys; sys.exit(sys.version_info < (3, 9))";
    let python = exec::read(cmd!(sh(), "python3 -c {old}")).is_ok();
    require(python, "python3", "version 3.9 or newer, runs QEMU's configure", packages("python3"));
    if has_compiler {
        let libc = compiler::find_library(cx, "libc.a")?.is_some();
        require(libc, "libc.a", "the static C library", packages("libc.a"));
        let musl = exec::read(cmd!(sh(), "{cc} -dumpmachine"))?.contains("musl");
        require(
            !musl,
            "glibc",
            "emulators linked with musl mishandle O_LARGEFILE (QEMU issue 3262)",
            Solution::Other("build on a distribution with glibc, such as Debian".to_owned()),
        );
    }
    if Distribution::detect()?.is_none() {
        for program in &cx.data.tools.system {
            let name = &program.name;
            require(is_installed(name), name, &program.reason, packages(name));
        }
        let pip = exec::read(cmd!(sh(), "python3 -m pip --version")).is_ok();
        require(pip, "pip", "installs the pinned Python packages into the cache", packages("pip"));
        for library in &cx.data.tools.static_libraries {
            let found = !has_compiler || compiler::find_library(cx, &library.name)?.is_some();
            require(found, &library.name, &library.reason, packages(&library.name));
        }
    }
    Ok(missing)
}

/// The command of this distribution, or the one that it derives from, which installs all requirements.
fn install_command(tools: &Tools) -> Result<Option<String>> {
    let release = distribution::os_release()?;
    let names = ["ID", "ID_LIKE"]
        .map(|name| distribution::os_release_field(&release, name).unwrap_or_default())
        .join(" ");
    let install = tools.install.iter().find(|install| names.split(' ').any(|name| name == install.like));
    Ok(install.map(|install| install.command.clone()))
}

/// What to do: install the packages with what is missing, of those that a distribution's command installs, and the rest.
fn hint(install: Option<&str>, solutions: &[Solution]) -> String {
    let mut words = install.unwrap_or_default().split(" #").next().unwrap_or_default().split_whitespace();
    let program: Vec<_> = words.by_ref().take(2).collect();
    let available: Vec<_> = words.collect();
    let (mut packages, mut others): (Vec<&str>, Vec<String>) = (Vec::new(), Vec::new());
    for solution in solutions {
        match solution {
            Solution::Other(text) => others.push(text.clone()),
            Solution::Packages(name) => {
                let providers = PROVIDERS.iter().filter(|(provided, _)| provided == name);
                let found = providers.flat_map(|(_, packages)| *packages).filter(|it| available.contains(it));
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

    /// The commands of `tools.toml` by distribution.
    fn command(like: &str) -> String {
        let tools = Context::new().unwrap().data.tools;
        tools.install.into_iter().find(|install| install.like == like).unwrap().command
    }

    #[test]
    fn only_what_is_missing_is_installed() {
        let hint_for = |like: &str, names: &[&'static str]| {
            let solutions: Vec<_> = names.iter().map(|name| Solution::Packages(name)).collect();
            hint(Some(&command(like)), &solutions)
        };
        assert_eq!(hint_for("debian", &["git"]), "run as root `apt-get install git`");
        assert_eq!(
            hint_for("debian", &["cc", "strip", "libc.a"]),
            "run as root `apt-get install gcc libc6-dev`"
        );
        assert_eq!(
            hint_for("fedora", &["pkg-config", "libc.a", "ninja"]),
            "run as root `dnf install ninja-build pkgconf-pkg-config glibc-static`"
        );
        assert_eq!(hint_for("suse", &["libpcre2-8.a"]), "run as root `zypper install glib2-devel-static`");
    }

    #[test]
    fn what_no_package_provides_has_its_own_hint() {
        let other = Solution::Other("unset X".to_owned());
        assert_eq!(
            hint(Some(&command("debian")), &[other, Solution::Packages("git")]),
            "run as root `apt-get install git`; unset X"
        );
        let none = "install git with the package manager of this distribution";
        assert_eq!(hint(None, &[Solution::Packages("git")]), none);
    }

    #[test]
    fn every_package_of_a_command_provides_something() {
        for install in Context::new().unwrap().data.tools.install {
            for package in
                install.command.split(" #").next().unwrap().split(' ').skip(2).filter(|it| !it.is_empty())
            {
                let provides = PROVIDERS.iter().any(|(_, packages)| packages.contains(&package));
                assert!(provides, "{package} of `{}`", install.command);
            }
        }
    }
}
