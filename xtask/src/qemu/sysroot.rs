//! Build dependencies, without root and without installing packages.
//!
//! On a Debian-like system, the distribution's packages are unpacked into the cache: libraries for the host, and
//! programs for the build machine. On other systems the installed ones are used, after preflight has checked them.
//! Python packages are wheels with pinned hashes in both cases. For another host, a second directory contains the cross
//! compiler and libraries.

mod cross;
pub(crate) mod kept;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use fs_err as fs;
use qemu_src::{Tools, Wheel};
use qus_core::arch::Host;
use qus_core::digest::Sha256;
use xshell::{Cmd, cmd};

use crate::base::context::Context;
use crate::base::exec::{self, sh};
use crate::base::progress::{Bar, say};
use crate::base::settings::Settings;
use crate::base::{cache, files};
use crate::bundle::licences::LinkedPackage;
use crate::debian::apt::Apt;
use crate::debian::distribution::Distribution;
use crate::debian::versions::{self, Versions};
use crate::qemu::compiler;
use crate::qemu::preflight;
use crate::qemu::sysroot::cross::Cross;

/// The build dependencies: unpacked packages, or the installed ones.
pub(crate) struct Sysroot {
    dir: PathBuf,
    /// Whether the directory contains unpacked packages in addition to wheels.
    packages: bool,
    /// The cross compiler and libraries, if the host is another than this machine.
    cross: Option<Cross>,
    settings: Settings,
    /// Names of the packages of libraries for this machine.
    libraries: Vec<String>,
}

impl Sysroot {
    /// The dependencies for a host, fetched if they are not in the cache.
    pub(crate) fn ensure(cx: &Context, host: &'static Host, versions: Versions<'_>) -> Result<Self> {
        preflight::check_directories(cx)?;
        let native = Self::native(cx, versions)?;
        let cross = match Host::current() == Some(host) {
            true => None,
            false => Some(Cross::ensure(cx, host, versions)?),
        };
        Ok(Self { cross, ..native })
    }

    /// The dependencies for this machine, fetched if they are not in the cache.
    pub(crate) fn native(cx: &Context, versions: Versions<'_>) -> Result<Self> {
        let host = Host::current().context("this machine's architecture is not a supported host")?;
        let distribution = Distribution::detect()?;
        let dir = cx.paths.sysroot(&id(distribution.as_ref(), &cx.data.tools, host, versions));
        let this = Self {
            dir,
            packages: distribution.is_some(),
            cross: None,
            settings: cx.settings.clone(),
            libraries: cx.data.tools.debian.libraries.clone(),
        };
        versions::discard_outdated(&this.dir, versions)?;
        cache::ensure(&this.dir, |partial| {
            let log = cx.start_log("sysroot")?;
            say("fetching build dependencies (nothing is installed) …");
            let mut manifest = match &distribution {
                Some(distribution) => {
                    let state = cx.paths.apt("build");
                    let apt = Apt::updated(&state, &log, distribution, versions, None)?
                        .keeping(&partial.join(kept::PACKAGES))?;
                    if apt.lacks_updates() {
                        versions::record_missing(partial)?;
                    }
                    let mut manifest =
                        apt.unpack(&cx.data.tools.debian.libraries, &partial.join("libraries"))?;
                    manifest.extend(apt.unpack(&cx.data.tools.debian.programs, &partial.join("programs"))?);
                    manifest
                }
                None => installed_libraries(cx)?,
            };
            install_wheels(&pip(partial)?, &cx.data.tools.wheels, &partial.join("python"), &log)?;
            manifest.extend(
                cx.data
                    .tools
                    .wheels
                    .iter()
                    .map(|wheel| format!("{} {} {}", wheel.name, wheel.version, wheel.sha256)),
            );
            Ok(fs::write(partial.join("manifest"), manifest.join("\n"))?)
        })
        .context("cannot fetch the build dependencies")?;
        Ok(this)
    }

    /// The directory of an unpacked wheel that is not part of the build, fetched if it is not in the cache.
    pub(crate) fn wheel(&self, cx: &Context, wheel: &Wheel) -> Result<PathBuf> {
        let dir = cx.paths.wheel(&wheel.sha256);
        cache::ensure(&dir, |partial| {
            let log = cx.start_log(&wheel.name)?;
            install_wheels(&pip(&self.dir)?, std::slice::from_ref(wheel), partial, &log)
        })?;
        Ok(dir)
    }

    /// The directory of wheels that are not unpacked, fetched if they are not in the cache. Few of their thousands of
    /// files are read.
    pub(crate) fn archives(&self, cx: &Context, wheels: &[Wheel]) -> Result<PathBuf> {
        let hashes: Vec<_> = wheels.iter().map(|wheel| wheel.sha256.to_string()).collect();
        let dir = cx.paths.wheel(&Sha256::of(hashes.join(" ")));
        cache::ensure(&dir, |partial| {
            let log = cx.start_log("archives")?;
            let download = ["download".into(), "--dest".into(), partial.into()];
            run_pip(&pip(&self.dir)?, &download, wheels, &log)
        })?;
        Ok(dir)
    }

    /// Name, version and hash of every package and wheel.
    pub(crate) fn manifest(&self) -> Result<Vec<String>> {
        let mut manifest = read_manifest(&self.dir)?;
        if let Some(cross) = &self.cross {
            manifest.extend(read_manifest(&cross.dir)?);
        }
        Ok(manifest)
    }

    /// The distribution whose packages the libraries are, so that their licences are known.
    pub(crate) fn distribution(&self) -> Result<Option<String>> {
        let distribution = if self.packages { Distribution::detect()? } else { None };
        Ok(distribution.map(|distribution| distribution.id))
    }

    /// Adds the packages to a bundle, unless it has them, or the libraries are not those of packages.
    pub(crate) fn keep(&self, bundle: &Path) -> Result<()> {
        if !self.packages {
            return Ok(());
        }
        let dirs: Vec<&Path> =
            [&*self.dir].into_iter().chain(self.cross.as_ref().map(|cross| &*cross.dir)).collect();
        kept::write(&dirs, bundle)
    }

    /// The packages of the static libraries beside those of the compiler.
    pub(crate) fn linked_packages(&self) -> Result<Vec<LinkedPackage>> {
        let (dir, root) = match &self.cross {
            None => (&self.dir, self.dir.join("libraries")),
            Some(cross) => (&cross.dir, cross.libraries()),
        };
        let names =
            self.cross.as_ref().and_then(|cross| cross.spec.libraries.as_ref()).unwrap_or(&self.libraries);
        names.iter().map(|name| linked_package(dir, &root, |package| package == name)).collect()
    }

    /// The package with a library of the compiler, `libc.a` or `libgcc.a`.
    pub(crate) fn package_of(&self, library: &Path) -> Result<LinkedPackage> {
        let Some(cross) = &self.cross else { return LinkedPackage::of_file(library) };
        let is_libc = library.file_name().is_some_and(|name| name == "libc.a");
        let root = if library.starts_with(cross.libraries()) {
            cross.libraries()
        } else {
            cross.dir.join("compiler")
        };
        let wanted = |name: &str| match is_libc {
            true => name.starts_with("libc6") && name.contains("-dev"),
            false => name.starts_with("libgcc-") && name.contains("-dev"),
        };
        linked_package(&cross.dir, &root, wanted)
    }

    /// The C compiler and its mandatory options.
    pub(crate) fn cc(&self) -> (String, Vec<String>) {
        self.cross.as_ref().map_or_else(|| (self.settings.cc().to_owned(), Vec::new()), Cross::cc)
    }

    /// The linker, if the compiler does not report it.
    pub(crate) fn ld(&self) -> Option<&str> {
        self.cross.as_ref().map(|cross| &*cross.spec.ld)
    }

    /// Options for linking.
    pub(crate) fn link(&self) -> &[String] {
        self.cross.as_ref().map_or(&[], |cross| &cross.spec.link)
    }

    /// Arguments of QEMU's configure for these dependencies.
    pub(crate) fn configure(&self) -> Vec<String> {
        let link = self.link().iter().map(|option| format!("--extra-ldflags={option}"));
        link.chain(self.cross.iter().flat_map(|cross| cross.spec.configure.clone())).collect()
    }

    /// The name of a binary utility, such as `strip`, for the host.
    pub(crate) fn tool(&self, name: &str) -> String {
        self.cross.as_ref().map_or_else(|| name.to_owned(), |cross| cross.spec.tool(name))
    }

    /// Whether the host is another than this machine.
    pub(crate) fn is_cross(&self) -> bool {
        self.cross.is_some()
    }

    /// Replaces a command's environment by that of the dependencies, so that the caller's variables do not affect the
    /// build.
    pub(crate) fn enter<'a>(&self, cmd: Cmd<'a>) -> Cmd<'a> {
        let mut cmd = cmd
            .env_clear()
            .env("LC_ALL", "C")
            // QEMU's decodetree writes sets in hash order.
            .env("PYTHONHASHSEED", "0")
            .env("PYTHONPATH", self.dir.join("python"));
        for (name, value) in self.settings.essential() {
            cmd = cmd.env(name, value);
        }
        if !self.packages {
            return cmd;
        }
        let programs = self.dir.join("programs/usr");
        let libraries = self.dir.join("libraries");
        let triple = Host::current().map_or("", |host| host.triple);
        let pkg_config = programs.join("bin/pkgconf").display().to_string();
        cmd = match &self.cross {
            None => cmd.env("PKG_CONFIG", &pkg_config),
            Some(cross) => {
                // The variables below apply to programs that run during the build; the host's are set only here.
                let variables = pkg_config_variables(&cross.libraries(), cross.host.triple);
                let variables = variables.map(|(name, value)| format!("{name}={value}")).join(" ");
                let mut cmd = cmd
                    .env("PKG_CONFIG", format!("env {variables} {pkg_config}"))
                    .env("PKG_CONFIG_FOR_BUILD", &pkg_config);
                for name in ["AR", "NM", "OBJCOPY", "RANLIB", "READELF", "STRIP"] {
                    cmd = cmd.env(name, cross.spec.tool(&name.to_lowercase()));
                }
                cmd
            }
        };
        for (name, value) in pkg_config_variables(&libraries, triple) {
            cmd = cmd.env(name, value);
        }
        self.add_programs(cmd)
            .env("BISON_PKGDATADIR", programs.join("share/bison"))
            .env("M4", programs.join("bin/m4"))
    }

    /// Adds the programs of these dependencies to a command's `PATH`; the rest of its environment is unchanged.
    pub(crate) fn add_programs<'a>(&self, cmd: Cmd<'a>) -> Cmd<'a> {
        self.add_programs_with(cmd, None)
    }

    /// Like [`Self::add_programs`], including the programs of another root directory.
    pub(crate) fn add_programs_with<'a>(&self, cmd: Cmd<'a>, further: Option<&Path>) -> Cmd<'a> {
        let triple = Host::current().map_or("", |host| host.triple);
        let mut roots = vec![(self.dir.join("programs/usr"), "bin")];
        roots.extend(self.cross.as_ref().map(|cross| (cross.compiler(), &*cross.spec.bin)));
        roots.extend(further.map(|root| (root.join("usr"), "bin")));
        let path = self.settings.path_with(roots.iter().map(|(root, bin)| root.join(bin)));
        let libraries = roots.iter().map(|(root, _)| root.join("lib").join(triple));
        cmd.env("PATH", path.unwrap_or_default())
            .env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap_or_default())
    }
}

/// Variables that make pkg-config find the libraries in a directory.
fn pkg_config_variables(libraries: &Path, triple: &str) -> [(&'static str, String); 2] {
    let dir = libraries.display();
    [
        ("PKG_CONFIG_LIBDIR", format!("{dir}/usr/lib/{triple}/pkgconfig:{dir}/usr/share/pkgconfig")),
        ("PKG_CONFIG_SYSROOT_DIR", dir.to_string()),
    ]
}

/// The first package of a manifest that has this name and is unpacked in `root`.
fn linked_package(dir: &Path, root: &Path, wanted: impl Fn(&str) -> bool) -> Result<LinkedPackage> {
    for line in read_manifest(dir)? {
        let words: Vec<_> = line.split(' ').collect();
        let &[name, version, architecture, sha256] = &*words else { continue };
        if wanted(name) && root.join("usr/share/doc").join(name).exists() {
            return Ok(LinkedPackage {
                name: name.to_owned(),
                version: version.replace("%3a", ":"),
                architecture: architecture.to_owned(),
                sha256: sha256.parse().ok(),
                root: root.to_owned(),
            });
        }
    }
    bail!("a package that is linked is not in {}", dir.display())
}

fn read_manifest(dir: &Path) -> Result<Vec<String>> {
    let path = dir.join("manifest");
    let text = fs::read_to_string(&path)?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// An identifier of the requested packages.
fn id(distribution: Option<&Distribution>, tools: &Tools, host: &Host, versions: Versions<'_>) -> String {
    let mut wanted: Vec<String> = tools.wheels.iter().map(|wheel| wheel.sha256.to_string()).collect();
    let system = match distribution {
        Some(distribution) => {
            wanted.extend(tools.debian.libraries.iter().chain(&tools.debian.programs).cloned());
            format!("{}-{}", distribution.id, distribution.codename)
        }
        None => "system".to_owned(),
    };
    wanted.push(kept::layout(versions));
    format!("{system}-{host}-{}", files::short_id(wanted.join(" ")))
}

/// Installs wheels into a directory.
fn install_wheels(pip: &[PathBuf], wheels: &[Wheel], into: &Path, log: &Path) -> Result<()> {
    let install = ["install", "--no-compile", "--root-user-action=ignore", "--target"].map(PathBuf::from);
    run_pip(pip, &[&install[..], &[into.to_owned()]].concat(), wheels, log)
}

/// Runs pip on wheels with pinned hashes.
fn run_pip(pip: &[PathBuf], what: &[PathBuf], wheels: &[Wheel], log: &Path) -> Result<()> {
    let line = |wheel: &Wheel| format!("{}=={} --hash=sha256:{}\n", wheel.name, wheel.version, wheel.sha256);
    let requirements = files::with_suffix(log, "requirements");
    files::write(&requirements, wheels.iter().map(line).collect::<String>().as_bytes())?;
    let _bar = Bar::new(format!("fetching {} Python packages", wheels.len()));
    exec::run(
        cmd!(
            sh(),
            "python3 {pip...} {what...} --quiet --disable-pip-version-check --no-input --no-cache-dir
             --only-binary=:all: --no-deps --require-hashes --requirement {requirements}"
        )
        .env_remove("PYTHONPATH"),
        log,
        |_| {},
    )
    .context("cannot fetch the Python packages")
}

/// The arguments of Python that run pip. Debian ships pip as a wheel, which runs without installation.
fn pip(partial: &Path) -> Result<Vec<PathBuf>> {
    let wheels = partial.join("programs/usr/share/python-wheels");
    if !wheels.is_dir() {
        return Ok(vec!["-m".into(), "pip".into()]);
    }
    let names = fs::read_dir(wheels)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let is_pip =
        |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pip-"));
    let wheel = names.iter().find(is_pip).context("python3-pip-whl contains no wheel of pip")?;
    Ok(vec![wheel.join("pip")])
}

/// The manifest of installed libraries that are linked into the emulators.
fn installed_libraries(cx: &Context) -> Result<Vec<String>> {
    let mut manifest = Vec::new();
    for library in cx.data.tools.static_libraries.iter().map(|library| &library.name) {
        let path = compiler::find_library(cx, library)?
            .with_context(|| format!("{library} is no longer installed"))?;
        manifest.push(format!("{library} installed {}", files::sha256(&path)?));
    }
    Ok(manifest)
}
