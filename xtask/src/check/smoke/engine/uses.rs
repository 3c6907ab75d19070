//! Emulators from every place, registered in every way, used in every way: the table that dbhi/qus tests.
//!
//! Used means: a foreign program called on the host, in a container, and in a step of a build.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use qemu_src::Guest;
use qus_core::probe;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, sh};
use crate::check::smoke::fixture::bench::{FOREIGN, guest_named};
use crate::check::smoke::fixture::dock::{Checks, Dock};
use crate::check::smoke::fixture::ended::Ended;
use crate::check::smoke::fixture::tools;
use crate::debian::{guests, packages};
use crate::ship::tarballs;

/// What the programs of such a root folder do: the linker's cache, threads, pipes, files.
const WORK: &str = "set -e; uname -m; ldconfig; test -s /etc/ld.so.cache; \
                    seq 200000 | sort --parallel=4 --random-source=/bin/bash --random-sort | sort -n | sha256sum; \
                    mkdir /tmp/copy; tar -C /usr/bin -cf - . | tar -C /tmp/copy -xf -; \
                    test \"$(sha256sum < /usr/bin/bash)\" = \"$(sha256sum < /tmp/copy/bash)\"";

pub(super) fn run(checks: &mut Checks<'_>) -> Result<()> {
    checks.check("docker run REPO --install all; then images of six architectures run", containers)?;
    checks.check("docker buildx build: steps of six platforms in one build", builds)?;
    for guest in container_guests(checks.cx) {
        checks.check(
            format!("Debian's root folder of {guest} in a container: ldconfig, threads, tar"),
            |dock| root_folder(dock, guest),
        )?;
    }
    checks.check("registered by the small image of one guest", small_image)?;
    checks
        .check("registered by the image without emulators: those of a folder of the host", register_image)?;
    checks.check("registered by qus on the host: emulators of a tarball", tarball)?;
    checks.check("registered by qus on the host: Debian's emulators", debians_emulators)?;
    checks.check("registered by Debian: told and left; ours in front of it", debians_handler)?;
    checks.check("registered without F: only where the guest's image has the emulator", inside_the_guest)?;
    checks.check("an emulator called by its name, nothing registered", explicit)
}

/// The platform of a guest's images.
fn platform(guest: &Guest) -> Result<String> {
    let platform = guest.platform().with_context(|| format!("{guest} has no platform"))?;
    Ok(format!("linux/{platform}"))
}

/// The output of a guest's `uname -m`. Programs that the machine runs natively print the machine's.
fn machine(guest: &Guest) -> &str {
    if probe::is_native(guest.target) { std::env::consts::ARCH } else { &guest.machine }
}

/// The guests that run in containers.
fn container_guests(cx: &Context) -> impl Iterator<Item = &Guest> {
    cx.data.debian.guests.iter().filter(|guest| guest.container)
}

impl Dock<'_> {
    /// An image with nothing but busybox, in the engine.
    fn guest_image(&self, guest: &Guest) -> Result<String> {
        let name = format!("box-{guest}");
        if self.docker(&["image", "inspect", &name])?.status != Some(0) {
            let dir = self.path(&name);
            self.busybox_image(&dir, &self.bench.guest(guest, "busybox")?)?;
            self.build(&dir, &platform(guest)?, &["--tag", &name, "--load"])?;
        }
        Ok(name)
    }

    fn build(&self, dir: &Path, platform: &str, args: &[&str]) -> Result<()> {
        let dir = dir.to_string_lossy();
        let build = ["buildx", "build", "--quiet", "--provenance=false", "--platform", platform];
        self.docker(&[&build, args, &[&*dir]].concat())?.succeeds().map(drop)
    }

    /// Runs a program in a container of an image that is in the engine.
    fn contain(&self, guest: &Guest, image: &str, args: &[&str]) -> Result<Ended> {
        let run =
            ["run", "--rm", "--pull", "never", "--network", "none", "--platform", &platform(guest)?, image];
        self.docker(&[&run, args].concat())
    }

    /// Has the guest's busybox tell its machine: called on the host, in a container, and in a step of a build.
    fn works(&self, guest: &Guest) -> Result<()> {
        let expected = format!("{}\n", machine(guest));
        let busybox = self.bench.guest(guest, "busybox")?;
        self.bench.ends(cmd!(sh(), "{busybox} uname -m"))?.writes(&expected).context("on the host")?;
        let image = self.guest_image(guest)?;
        self.contain(guest, &image, &["/bin/busybox", "uname", "-m"])?
            .writes(&expected)
            .context("in a container")?;
        let dir = self.path("step");
        fs::create_dir_all(&dir)?;
        let step = format!(
            "[\"/bin/busybox\", \"sh\", \"-c\", \"test $(/bin/busybox uname -m) = {}\"]",
            machine(guest)
        );
        fs::write(dir.join("Dockerfile"), format!("FROM {image}\nRUN {step}\n"))?;
        self.build(&dir, &platform(guest)?, &["--no-cache"]).context("in a step of a build")
    }

    /// Fails where the guest's busybox runs though nothing is registered for it.
    fn does_not_work(&self, guest: &Guest) -> Result<()> {
        let image = self.guest_image(guest)?;
        let ended = self.contain(guest, &image, &["/bin/busybox", "uname", "-m"])?;
        ensure!(ended.status != Some(0), "{guest} runs without a handler of ours");
        Ok(())
    }

    /// `docker run --privileged` of an image of ours.
    fn privileged(&self, options: &[&str], image: &str, args: &[&str]) -> Result<Ended> {
        let run = ["run", "--rm", "--privileged", "--network", "none"];
        self.docker(&[&run, options, &[image], args].concat())
    }

    /// Emulators of Debian's package.
    fn debians_package(&self) -> Result<PathBuf> {
        let (cx, host) = (self.bench.cx, self.host.debian);
        let set = &cx.data.debian.packages.emulators;
        let dir = cx.paths.rootfs(&format!("emulators-{}-{host}", packages::id(set)));
        guests::fetch(cx, &set.from, host, "Debian's emulators", &dir, |apt, into| {
            apt.unpack(&set.packages, into).map(drop)
        })?;
        Ok(dir)
    }
}

fn containers(dock: &Dock<'_>) -> Result<()> {
    let image = dock.full_image()?;
    let told = dock.privileged(&[], &image, &["--install", "all"])?.succeeds()?;
    for guest in container_guests(dock.bench.cx) {
        let platform = platform(guest)?;
        ensure!(told.contains(&format!("\"{platform}\"")), "{platform} is not among {told}");
        let name = dock.guest_image(guest)?;
        let ran = dock.contain(guest, &name, &["/bin/busybox", "uname", "-m"])?;
        ran.writes(&format!("{}\n", machine(guest))).with_context(|| guest.to_string())?;
    }
    Ok(())
}

fn builds(dock: &Dock<'_>) -> Result<()> {
    let image = dock.full_image()?;
    dock.privileged(&[], &image, &["install", "all"])?.succeeds()?;
    let dir = dock.path("steps");
    fs::create_dir_all(&dir)?;
    let mut platforms = Vec::new();
    for guest in container_guests(dock.bench.cx) {
        // Docker's name without its variant is what a Dockerfile sees.
        let platform = platform(guest)?;
        let name = platform.split('/').nth(1).context("no architecture")?;
        fs::copy(dock.bench.guest(guest, "busybox")?, dir.join(format!("busybox-{name}")))?;
        platforms.push(platform);
    }
    fs::write(
        dir.join("Dockerfile"),
        "FROM scratch AS made\nARG TARGETARCH\nCOPY busybox-$TARGETARCH /bin/busybox\n\
         RUN [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox uname -m > /machine\"]\n\
         FROM scratch\nCOPY --from=made /machine /machine\n",
    )?;
    let to = dock.path("steps-made");
    let to_text = format!("type=local,dest={}", to.display());
    dock.build(&dir, &platforms.join(","), &["--no-cache", "--output", &to_text])?;
    for guest in container_guests(dock.bench.cx) {
        let made = to.join(platform(guest)?.replace('/', "_")).join("machine");
        let written = fs::read_to_string(&made).with_context(|| format!("no {}", made.display()))?;
        ensure!(written.trim() == machine(guest), "{guest} has made {written:?}");
    }
    let tag = dock.repo("steps:1");
    let push = || dock.build(&dir, &platforms.join(","), &["--tag", &tag, "--push"]);
    // Seen once, and not explained: the registry fails when it is asked for a tag that it has just taken. Docker does not
    // try again, where `cargo xtask images` does.
    match push() {
        Err(error) if format!("{error:#}").contains("500 Internal Server Error") => push()?,
        pushed => pushed?,
    }
    let index = dock.inspect(&tag)?;
    let count = index["manifest"]["manifests"].as_array().map_or(0, Vec::len);
    ensure!(count == platforms.len(), "the index has {count} images");
    Ok(())
}

/// The emulators' work when a container image is made: dynamic programs, and those that crashed most often.
fn root_folder(dock: &Dock<'_>, guest: &Guest) -> Result<()> {
    dock.privileged(&[], &dock.full_image()?, &["install", guest.target.name])?.succeeds()?;
    let cx = dock.bench.cx;
    let root = guests::root(cx, guest, "container", &cx.data.debian.packages.container_rootfs)?;
    let name = format!("root-{guest}");
    fs::write(dock.path("Dockerfile"), "FROM scratch\nCOPY --from=root / /\n")?;
    let context = format!("root={}", root.display());
    dock.build(dock.dir.path(), &platform(guest)?, &["--build-context", &context, "--tag", &name, "--load"])?;
    let expected = exec::read(cmd!(sh(), "sh -c {EXPECTED}"))?;
    let ended = dock.contain(guest, &name, &["/bin/bash", "-c", WORK])?;
    ended.writes(&format!("{}\n{expected}\n", machine(guest)))?;
    dock.docker(&["image", "rm", &name])?.succeeds().map(drop)
}

/// What the host computes of the same numbers.
const EXPECTED: &str = "seq 200000 | sha256sum";

fn small_image(dock: &Dock<'_>) -> Result<()> {
    let guest = guest_named(dock.bench.cx, FOREIGN[1])?;
    dock.full_image()?;
    let version = crate::check::smoke::engine::push::bundle_version(dock)?;
    let image = format!("{}:{version}-{}", dock.repo("qus"), guest.target);
    dock.does_not_work(guest)?;
    dock.privileged(&[], &image, &["install", "all"])?.succeeds()?;
    // F has the kernel keep the emulator open when container and image are gone.
    dock.docker(&["image", "rm", &image])?.succeeds()?;
    dock.works(guest)
}

fn register_image(dock: &Dock<'_>) -> Result<()> {
    let guest = guest_named(dock.bench.cx, FOREIGN[1])?;
    dock.full_image()?;
    let image = format!("{}:register", dock.repo("qus"));
    let none = dock.privileged(&[], &image, &["install", "all"])?;
    none.fails(1, &["there is no emulator in", "QEMU_BIN_DIR"])?;
    let volume = format!("{}:/emulators:ro", dock.bench.bundle.display());
    let options = ["--volume", &volume, "--env", "QEMU_BIN_DIR=/emulators"];
    dock.privileged(&options, &image, &["install", guest.target.name])?.succeeds()?;
    dock.works(guest)
}

fn tarball(dock: &Dock<'_>) -> Result<()> {
    let guest = guest_named(dock.bench.cx, FOREIGN[1])?;
    let log = dock.bench.cx.start_log("smoke-tarball")?;
    let file = format!("{}-static_{}.tar.zst", guest.target.emulator(), dock.host);
    let tarballs = tarballs::plan(dock.host, &dock.bench.bundle)?;
    let tarball = tarballs.iter().find(|tarball| tarball.file == file).context("it is not planned")?;
    let dir = dock.path("unpacked");
    fs::create_dir_all(&dir)?;
    let zstd = tools::zstd(dock.bench.cx)?;
    let packed = tarball.write(&dir)?;
    exec::run(cmd!(sh(), "tar -I {zstd} -xf {packed} -C {dir}"), &log, |_| {})?;
    let dir = dir.to_string_lossy();
    dock.bench.qus(&["install", guest.target.name, "--dir", &dir])?.succeeds()?;
    dock.works(guest)
}

fn debians_emulators(dock: &Dock<'_>) -> Result<()> {
    let guest = guest_named(dock.bench.cx, FOREIGN[1])?;
    let dir = dock.debians_package()?.join("usr/bin");
    let dir = dir.to_string_lossy();
    dock.bench.qus(&["install", guest.target.name, "--dir", &dir])?.succeeds()?;
    dock.works(guest)
}

/// What systemd-binfmt does on a Debian machine with its package, for one architecture.
fn debians_handler(dock: &Dock<'_>) -> Result<()> {
    let guest = guest_named(dock.bench.cx, FOREIGN[1])?;
    let package = dock.debians_package()?;
    let name = guest.target.emulator();
    let rule = fs::read_to_string(package.join("usr/lib/binfmt.d").join(format!("{name}.conf")))
        .context("Debian's package has no rule")?;
    let unpacked = format!(":{}/usr/", package.display());
    let handler = dock.bench.foreign_handler(&name, &rule.trim().replace(":/usr/", &unpacked))?;
    let before = handler.text()?;
    dock.works(guest)?;
    let image = dock.full_image()?;
    dock.privileged(&[], &image, &["install", guest.target.name])?
        .fails(1, &["another program has registered a handler", "--force"])?;
    dock.privileged(&[], &image, &["install", guest.target.name, "--force"])?.succeeds()?;
    dock.works(guest)?;
    dock.privileged(&[], &image, &["remove", "all"])?.succeeds()?;
    ensure!(handler.text()? == before, "Debian's handler was changed");
    dock.works(guest)
}

fn inside_the_guest(dock: &Dock<'_>) -> Result<()> {
    let guest = guest_named(dock.bench.cx, FOREIGN[1])?;
    let name = guest.target.emulator();
    let without = dock.guest_image(guest)?;
    let dir = dock.path("with-emulator");
    fs::create_dir_all(&dir)?;
    fs::copy(dock.bench.bundle.join(&name), dir.join("emulator"))?;
    fs::write(dir.join("Dockerfile"), format!("FROM {without}\nCOPY emulator /qus-smoke-emulator\n"))?;
    dock.build(&dir, &platform(guest)?, &["--tag", "with-emulator", "--load"])?;
    // As old tools did: the path counts where the program is started.
    let raw = dock.bench.qus(&["export", "raw", guest.target.name])?.succeeds()?;
    let emulator = dock.bench.bundle.join(&name);
    let rule =
        raw.lines().next().context("no rule")?.replace(&*emulator.to_string_lossy(), "/qus-smoke-emulator");
    let (rule, flags) = rule.rsplit_once(':').context("a rule ends in flags")?;
    let _handler = dock.bench.foreign_handler(&name, &format!("{rule}:{}", flags.replace('F', "")))?;
    let args = ["/bin/busybox", "uname", "-m"];
    dock.contain(guest, "with-emulator", &args)?.writes(&format!("{}\n", machine(guest)))?;
    ensure!(dock.contain(guest, &without, &args)?.status != Some(0), "it runs without an emulator");
    Ok(())
}

fn explicit(dock: &Dock<'_>) -> Result<()> {
    let guest = guest_named(dock.bench.cx, FOREIGN[1])?;
    let dir = dock.path("explicit");
    fs::create_dir_all(&dir)?;
    fs::copy(dock.bench.guest(guest, "busybox")?, dir.join("busybox"))?;
    dock.full_image()?;
    let from = format!("FROM {}:pkg\nCOPY busybox /busybox\n", dock.repo("qus"));
    fs::write(dir.join("Dockerfile"), from)?;
    let host = format!("linux/{}", dock.host.platform);
    dock.build(&dir, &host, &["--tag", "explicit", "--load"])?;
    dock.does_not_work(guest)?;
    let emulator = format!("/usr/bin/{}", guest.target.emulator());
    let run = ["run", "--rm", "--network", "none", "explicit", &emulator, "/busybox", "uname", "-m"];
    dock.docker(&run)?.writes(&format!("{}\n", machine(guest)))
}
