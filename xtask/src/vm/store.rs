//! Images in files: an OCI layout, an archive of one, or what `docker image save` writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;
use qus_core::digest::{HashingReader, Sha256};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::base::files;
use crate::base::progress::one_line;
use crate::vm::config::{Config, parse_digest};

/// The maximum size of a manifest, an index or a configuration.
const LARGEST: u64 = 16 << 20;

/// The maximum depth of indexes in indexes.
const DEEPEST: u32 = 4;

/// Named files: a directory, or a tar archive that is read in place.
pub(crate) enum Store {
    Directory(PathBuf),
    Archive { file: File, entries: BTreeMap<PathBuf, (u64, u64)> },
}

/// An image in a store.
pub(crate) struct Stored {
    pub(crate) config: Config,
    /// The files of the layers, the lowest first. The configuration has the digests of their contents.
    pub(crate) blobs: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: PathBuf,
    layers: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Store {
    /// Reads the list of an archive's files. A compressed archive is decompressed into a temporary file without a name.
    pub(crate) fn archive(file: File) -> Result<Self> {
        let mut head = [0; 4];
        let read = file.read_at(&mut head, 0)?;
        let file = if is_compressed(&head[..read]) {
            let mut plain = tempfile::tempfile()?;
            let all = Part { file: &file, position: 0, end: u64::MAX };
            io::copy(&mut decompressed(BufReader::new(all))?, &mut plain)?;
            plain
        } else {
            file
        };
        let mut entries = BTreeMap::new();
        let all = Part { file: &file, position: 0, end: u64::MAX };
        for entry in tar::Archive::new(all).entries()? {
            let entry = entry?;
            let path = entry.path()?.components().filter(|part| *part != Component::CurDir).collect();
            entries.insert(path, (entry.raw_file_position(), entry.size()));
        }
        Ok(Self::Archive { file, entries })
    }

    /// Whether it has a file.
    pub(crate) fn has(&self, path: &str) -> bool {
        match self {
            Self::Directory(dir) => dir.join(path).exists(),
            Self::Archive { entries, .. } => entries.contains_key(Path::new(path)),
        }
    }

    /// Opens a file.
    pub(crate) fn open(&self, path: &Path) -> Result<Box<dyn BufRead + '_>> {
        let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
        ensure!(is_below, "the image refers to {}, which is outside of it", one_line(path.display()));
        match self {
            Self::Directory(dir) => Ok(Box::new(BufReader::new(files::open(&dir.join(path))?))),
            Self::Archive { file, entries } => {
                let entry = entries
                    .get(path)
                    .with_context(|| format!("the archive lacks {}", one_line(path.display())))?;
                let (position, size) = *entry;
                let end = position.saturating_add(size);
                Ok(Box::new(BufReader::new(Part { file, position, end })))
            }
        }
    }

    fn json<T: DeserializeOwned>(&self, path: &Path) -> Result<T> {
        let mut text = Vec::new();
        self.open(path)?.take(LARGEST).read_to_end(&mut text)?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", one_line(path.display())))
    }

    /// The JSON of a blob, whose digest is verified.
    fn blob<T: DeserializeOwned>(&self, digest: &str) -> Result<T> {
        let sha256 = parse_digest(digest)?;
        let path = blob(&sha256);
        let mut reader = HashingReader::new(self.open(&path)?.take(LARGEST));
        let mut text = Vec::new();
        reader.read_to_end(&mut text)?;
        ensure!(reader.finish() == sha256, "{} does not match its digest", path.display());
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// The image for a platform; any if `wanted` accepts all.
    ///
    /// # Errors
    /// There is none or more than one, or a file is missing or damaged.
    pub(crate) fn image(&self, wanted: impl Fn(&str) -> bool) -> Result<Stored> {
        if self.has("manifest.json") {
            let saved: Vec<Saved> = self.json(Path::new("manifest.json"))?;
            let [saved] = &saved[..] else {
                bail!("the archive has {} images; save a single one", saved.len())
            };
            return Ok(Stored { config: self.json(&saved.config)?, blobs: saved.layers.clone() });
        }
        let index: Index = self.json(Path::new("index.json"))?;
        let mut found = Vec::new();
        self.list(&index, DEEPEST, &mut found)?;
        let offered: Vec<_> = found.iter().map(|image: &Stored| image.config.platform()).collect();
        found.retain(|image| wanted(&image.config.platform()));
        let count = found.len();
        match found.pop() {
            Some(image) if count == 1 => Ok(image),
            Some(_) => bail!("the layout has {count} images ({})", offered.join(", ")),
            None => bail!("the layout has no image for this platform; it has {}", offered.join(", ")),
        }
    }

    /// Collects the images of an index and of the indexes in it.
    fn list(&self, index: &Index, depth: u32, found: &mut Vec<Stored>) -> Result<()> {
        ensure!(depth > 0, "the image has more than {DEEPEST} indexes in each other");
        for descriptor in &index.manifests {
            let is_attestation =
                descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
            if is_attestation {
                continue;
            }
            if descriptor.media_type.contains("index") || descriptor.media_type.contains("manifest.list") {
                self.list(&self.blob(&descriptor.digest)?, depth - 1, found)?;
                continue;
            }
            let manifest: Manifest = self.blob(&descriptor.digest)?;
            let layer = |layer: &Descriptor| parse_digest(&layer.digest).map(|sha256| blob(&sha256));
            let blobs = manifest.layers.iter().map(layer).collect::<Result<_>>()?;
            found.push(Stored { config: self.blob(&manifest.config.digest)?, blobs });
        }
        Ok(())
    }
}

fn blob(sha256: &Sha256) -> PathBuf {
    Path::new("blobs/sha256").join(sha256.to_string())
}

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

fn is_compressed(head: &[u8]) -> bool {
    head.starts_with(&GZIP) || head.starts_with(&ZSTD)
}

/// Decompresses gzip and zstd; anything else is returned as it is.
pub(crate) fn decompressed<'a>(mut reader: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let head = reader.fill_buf()?;
    Ok(if head.starts_with(&GZIP) {
        Box::new(MultiGzDecoder::new(reader))
    } else if head.starts_with(&ZSTD) {
        Box::new(zstd::Decoder::with_buffer(reader)?)
    } else {
        Box::new(reader)
    })
}

/// A part of a file, read without changing the file's position.
struct Part<'a> {
    file: &'a File,
    position: u64,
    end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let length = self.file.read_at(&mut buffer[..wanted], self.position)?;
        self.position += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    use serde_json::{Value, json};

    /// An OCI layout in a temporary directory.
    struct Layout(tempfile::TempDir);

    impl Layout {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs_err::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
            Self(dir)
        }

        fn put(&self, value: &Value, kind: &str) -> Value {
            let text = value.to_string();
            let digest = Sha256::of(&text);
            fs_err::write(self.0.path().join(blob(&digest)), &text).unwrap();
            json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{digest}") })
        }

        fn image(&self, architecture: &str) -> Value {
            let ids = [format!("sha256:{}", "1".repeat(64))];
            let config = self.put(
                &json!({ "architecture": architecture, "rootfs": { "diff_ids": ids } }),
                "config.v1+json",
            );
            let layer = json!({ "mediaType": "layer", "digest": format!("sha256:{}", "2".repeat(64)) });
            self.put(&json!({ "config": config, "layers": [layer] }), "manifest.v1+json")
        }

        fn index(&self, manifests: &[Value]) -> Store {
            fs_err::write(self.0.path().join("index.json"), json!({ "manifests": manifests }).to_string())
                .unwrap();
            Store::Directory(self.0.path().to_owned())
        }
    }

    #[test]
    fn an_image_is_chosen_by_its_platform() {
        let layout = Layout::new();
        let mut attestation = layout.image("unknown");
        attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
        let images = [layout.image("arm64"), layout.image("s390x"), attestation];
        let nested = layout.put(&json!({ "manifests": images }), "index.v1+json");
        let store = layout.index(&[nested]);
        let image = store.image(|platform| platform == "s390x").unwrap();
        assert_eq!(image.config.platform(), "s390x");
        assert_eq!(image.blobs, [Path::new("blobs/sha256").join("2".repeat(64))]);
        let error = |wanted: fn(&str) -> bool| store.image(wanted).err().unwrap().to_string();
        assert_eq!(error(|_| true), "the layout has 2 images (arm64, s390x)");
        assert_eq!(error(|_| false), "the layout has no image for this platform; it has arm64, s390x");
    }

    #[test]
    fn damaged_layouts_are_refused() {
        let layout = Layout::new();
        let mut index = layout.put(&json!({ "manifests": [] }), "index.v1+json");
        for _ in 0..DEEPEST {
            index = layout.put(&json!({ "manifests": [index] }), "index.v1+json");
        }
        let error = |store: Store| format!("{:#}", store.image(|_| true).err().unwrap());
        assert_eq!(error(layout.index(&[index])), "the image has more than 4 indexes in each other");
        let image = layout.image("arm64");
        let digest = parse_digest(image["digest"].as_str().unwrap()).unwrap();
        let store = layout.index(&[image]);
        fs_err::write(layout.0.path().join(blob(&digest)), "{}").unwrap();
        assert!(error(store).ends_with("does not match its digest"));
    }

    #[test]
    fn archives_are_read_in_place() {
        let mut builder = tar::Builder::new(Vec::new());
        let manifest = json!([{ "Config": "a.json", "Layers": ["one/layer.tar"] }]).to_string();
        for (path, text) in [
            ("./manifest.json", &*manifest),
            ("a.json", "{\"architecture\":\"arm64\"}"),
            ("one/layer.tar", "layer"),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        let archive = builder.into_inner().unwrap();
        for bytes in [archive.clone(), zstd::encode_all(&*archive, 1).unwrap()] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let store = Store::archive(file).unwrap();
            let image = store.image(|_| true).unwrap();
            let mut text = String::new();
            store.open(&image.blobs[0]).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), image.config.platform().as_str()), ("layer", "arm64"));
            let error = |path: &str| store.open(Path::new(path)).err().unwrap().to_string();
            assert_eq!(error("none"), "the archive lacks none");
            assert_eq!(error("../etc/passwd"), "the image refers to ../etc/passwd, which is outside of it");
        }
    }
}
