//! An image, in one of its forms, as disks and what it runs.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use qus_core::digest::HashingReader;
use qus_core::hint::hinted;
use qus_core::machine::Root;

use crate::base::context::Context;
use crate::base::progress::Bar;
use crate::base::{exec, files};
use crate::engine::client::Client;
use crate::vm::config::{Config, Execution};
use crate::vm::disks;
use crate::vm::drive::{self, Driver};
use crate::vm::machine::Kind;
use crate::vm::store::{Store, Stored, decompressed};
use crate::vm::wanted::Wanted;

/// The disks of an image, and what it runs.
pub(crate) struct Image {
    pub(crate) kind: Kind,
    /// The lowest layer first.
    pub(crate) disks: Vec<File>,
    /// The form of a disk that is not a layer; then it is the only one.
    pub(crate) driver: Option<Driver>,
    pub(crate) execution: Execution,
}

impl Image {
    /// Where the machine finds the root file system; `partition` is of a disk.
    pub(crate) fn root(&self, partition: Option<u32>) -> Root {
        match self.driver {
            Some(_) => Root::Disk { partition },
            None => Root::Layers(self.disks.len()),
        }
    }
}

/// Where an image is.
enum Location {
    /// A directory with a root file system.
    Root(PathBuf),
    /// An archive of a root file system.
    Archive(PathBuf),
    /// A disk or a file system.
    Disk(PathBuf, Driver),
    /// An OCI layout, or an archive of one.
    Store(Store),
    /// An engine or a registry.
    Reference(String),
}

/// Finds an image, and makes its disks unless they are in the cache.
pub(crate) fn open(cx: &Context, name: &str, wanted: Wanted<'_>) -> Result<Image> {
    let of_root = |kind: Kind, disk: File, driver: Option<Driver>| {
        let execution = Execution { cmd: Some(vec!["/bin/sh".to_owned()]), ..Execution::default() };
        Ok(Image { kind, disks: vec![disk], driver, execution })
    };
    match locate(name)? {
        Location::Root(dir) => {
            let kind = wanted.kind_of_root(cx, name, false)?;
            let disk = disks::of_directory(cx, kind.programs(), &dir)?;
            of_root(kind, disk, None)
        }
        Location::Disk(path, driver) => {
            let kind = wanted.kind_of_root(cx, name, true)?;
            drive::check(cx, &path, driver)?;
            of_root(kind, files::open(&path)?, Some(driver))
        }
        Location::Archive(path) => {
            let kind = wanted.kind_of_root(cx, name, false)?;
            let open = || Ok(decompressed(BufReader::new(files::open(&path)?))?);
            let digest = {
                let _bar = Bar::short(format!("reading {}", path.display()));
                let mut reader = HashingReader::new(open()?);
                io::copy(&mut reader, &mut io::sink())?;
                reader.finish()
            };
            let disk = disks::ensure(cx, kind.programs(), &digest, open)?;
            of_root(kind, disk, None)
        }
        Location::Store(store) => {
            let stored = store.image(|platform| wanted.accepts(platform))?;
            from_store(cx, &store, stored, wanted)
        }
        Location::Reference(reference) => from_engine(cx, &reference, wanted),
    }
}

fn locate(name: &str) -> Result<Location> {
    let path = Path::new(name);
    if path.is_dir() {
        let is_layout = path.join("oci-layout").exists();
        return Ok(if is_layout {
            Location::Store(Store::Directory(path.to_owned()))
        } else {
            Location::Root(path.to_owned())
        });
    }
    if path.is_file() {
        if let Some(driver) = drive::recognize(&files::open(path)?)? {
            return Ok(Location::Disk(path.to_owned(), driver));
        }
        let store = Store::archive(File::open(path)?)
            .with_context(|| format!("{name} is neither a tar archive nor a known kind of disk"))?;
        let is_image = store.has("index.json") || store.has("manifest.json");
        return Ok(if is_image { Location::Store(store) } else { Location::Archive(path.to_owned()) });
    }
    ensure!(!name.starts_with(['/', '.']), "{name} does not exist");
    Ok(Location::Reference(name.to_owned()))
}

/// The machine for an image of this configuration.
fn kind(cx: &Context, config: &Config, wanted: Wanted<'_>) -> Result<Kind> {
    let host = config.host()?;
    if let Some(arch) = wanted.arch {
        ensure!(arch.arch == host.arch, "the image is for linux/{}, not for {arch}", config.platform());
    }
    wanted.kind(cx, host, false)
}

fn from_store(cx: &Context, store: &Store, stored: Stored, wanted: Wanted<'_>) -> Result<Image> {
    let Stored { config, blobs } = stored;
    let kind = kind(cx, &config, wanted)?;
    let layers = config.layers()?;
    ensure!(
        layers.len() == blobs.len(),
        "the image has {} layers, and digests of {}",
        blobs.len(),
        layers.len()
    );
    let disks = layers.iter().zip(&blobs).map(|(layer, blob)| {
        disks::ensure(cx, kind.programs(), layer, || Ok(decompressed(store.open(blob)?)?))
    });
    let disks = disks.collect::<Result<_>>()?;
    Ok(Image { kind, disks, driver: None, execution: config.execution() })
}

/// Asks the engine for an image, which it pulls if it lacks it; layers that are in the cache are not copied.
fn from_engine(cx: &Context, reference: &str, wanted: Wanted<'_>) -> Result<Image> {
    let client = engine_for(reference)?;
    let inspect = || exec::read(client.cmd(&["image", "inspect", "--format", "{{json .}}", reference]));
    let parse = |text: &str| {
        serde_json::from_str::<Config>(text).context("the engine describes the image in an unknown form")
    };
    let config = match inspect() {
        Ok(text) => parse(&text)?,
        Err(_) => {
            let _bar = Bar::new(format!("pulling {reference}"));
            let platform = wanted.host().map(|arch| format!("--platform=linux/{}", arch.platform));
            let pull = client.cmd(&["pull", "--quiet"]).args(platform).arg(reference);
            exec::read(pull).with_context(|| format!("{reference} is neither a file nor an image"))?;
            parse(&inspect()?)?
        }
    };
    if let Some(arch) = wanted.arch.filter(|_| !wanted.accepts(&config.platform())) {
        return Err(hinted(
            format_args!("the engine's {reference} is for linux/{}, not for {arch}", config.platform()),
            format_args!("`docker pull --platform linux/{} {reference}` replaces it", arch.platform),
        ));
    }
    let kind = kind(cx, &config, wanted)?;
    let layers = config.layers()?;
    let cached: Option<Vec<File>> = layers.iter().map(|layer| disks::cached(cx, layer)).collect();
    if let Some(disks) = cached {
        return Ok(Image { kind, disks, driver: None, execution: config.execution() });
    }
    let store = save(cx, &client, reference)?;
    from_store(cx, &store, store.image(|platform| wanted.accepts(platform))?, wanted)
}

/// The client of an engine that answers.
pub(crate) fn engine_for(reference: &str) -> Result<Client> {
    let check = |client: Client| client.check_engine().map(|()| client);
    Client::find_installed().and_then(check).map_err(|error| {
        hinted(
            format_args!("{reference} is no file, and images come from an engine: {error:#}"),
            "start Docker, or a throwaway engine: `eval \"$(cargo xtask engine up)\"`",
        )
    })
}

/// Copies an image from the engine into a temporary file without a name.
fn save(cx: &Context, client: &Client, reference: &str) -> Result<Store> {
    let _bar = Bar::new(format!("copying {reference} from the engine"));
    let log = cx.start_log("docker-save")?;
    let mut child = exec::spawn_piped(client.cmd(&["image", "save", reference]), File::create(&log)?)?;
    let mut file = tempfile::tempfile()?;
    let mut stdout = child.stdout.take().context("docker has no output")?;
    io::copy(&mut stdout, &mut file)?;
    let status = child.wait()?;
    if !status.success() {
        bail!("docker image save failed ({status}); see {}", log.display());
    }
    Store::archive(file)
}
