//! Writes images of one layer: as an OCI layout, an archive of one, or as `docker image save` writes them.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use fs_err as fs;
use qus_core::arch::Host;
use qus_core::digest::{HashingReader, Sha256};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::vm::new_file::{self, NewFile};

/// The compression level of a layer.
const LEVEL: i32 = 3;

/// An image of one layer.
pub(crate) struct NewImage {
    /// The layer's uncompressed tar archive.
    pub(crate) layer: File,
    pub(crate) host: &'static Host,
    /// Its name in an engine.
    pub(crate) reference: Option<String>,
}

/// A file of a layout.
struct Entry {
    path: String,
    file: File,
}

impl NewImage {
    /// Writes a directory with an OCI layout.
    pub(crate) fn write_layout(self, output: &NewFile) -> Result<()> {
        let entries = self.layout(output)?;
        let dir = tempfile::Builder::new().prefix(".").tempdir_in(output.dir())?;
        for entry in entries {
            let path = dir.path().join(entry.path);
            let parent = path.parent().context("a file is in no directory")?;
            fs::create_dir_all(parent)?;
            new_file::link(entry.file, &path, parent)?;
        }
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        fs::rename(dir.path(), output.path())?;
        // It has another name now.
        drop(dir.keep());
        Ok(())
    }

    /// Writes a tar archive of an OCI layout.
    pub(crate) fn write_layout_archive(self, output: &NewFile) -> Result<()> {
        let entries = self.layout(output)?;
        output.publish(archive(entries, output.unnamed()?)?)
    }

    /// Writes a tar archive as of `docker image save`.
    pub(crate) fn write_docker_archive(mut self, output: &NewFile) -> Result<File> {
        let id = digest_of(&mut self.layer)?;
        let config = self.config(&id).to_string();
        let (config_path, layer) = (format!("{}.json", Sha256::of(&config)), format!("{id}/layer.tar"));
        let tags: Vec<_> = self.reference.iter().collect();
        let manifest = json!([{ "Config": config_path, "RepoTags": tags, "Layers": [layer] }]).to_string();
        let entries = [
            Entry { path: layer.clone(), file: self.layer },
            Entry { path: config_path.clone(), file: text(&config, output)? },
            Entry { path: "manifest.json".to_owned(), file: text(&manifest, output)? },
        ];
        archive(entries.into(), output.unnamed()?)
    }

    fn config(&self, layer: &Sha256) -> Value {
        let (architecture, variant) = match self.host.platform.split_once('/') {
            Some((architecture, variant)) => (architecture, Some(variant)),
            None => (self.host.platform, None),
        };
        let mut config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Cmd": ["/bin/sh"],
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        });
        if let Some(variant) = variant {
            config["variant"] = variant.into();
        }
        config
    }

    fn layout(mut self, output: &NewFile) -> Result<Vec<Entry>> {
        self.layer.rewind()?;
        let mut compressed = output.unnamed()?;
        let mut reader = HashingReader::new(BufReader::new(&self.layer));
        let mut encoder = zstd::Encoder::new(BufWriter::new(&compressed), LEVEL)?;
        io::copy(&mut reader, &mut encoder)?;
        encoder.finish()?.flush()?;
        let id = reader.finish();
        let digest = digest_of(&mut compressed)?;
        let mut entries = Vec::new();
        let size = compressed.metadata()?.len();
        let layer = descriptor("layer.v1.tar+zstd", &digest, size);
        entries.push(Entry { path: blob(&digest), file: compressed });
        let mut add = |kind: &str, value: &Value| -> Result<Value> {
            let bytes = value.to_string();
            let digest = Sha256::of(&bytes);
            entries.push(Entry { path: blob(&digest), file: text(&bytes, output)? });
            Ok(descriptor(kind, &digest, bytes.len() as u64))
        };
        let config = add("config.v1+json", &self.config(&id))?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type("manifest.v1+json"),
            "config": config,
            "layers": [layer],
        });
        let manifest = add("manifest.v1+json", &manifest)?;
        let index = json!({
            "schemaVersion": 2,
            "mediaType": media_type("index.v1+json"),
            "manifests": [manifest],
        });
        for (path, value) in [("index.json", index), ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }))]
        {
            entries.push(Entry { path: path.to_owned(), file: text(&value.to_string(), output)? });
        }
        Ok(entries)
    }
}

fn media_type(kind: &str) -> String {
    format!("application/vnd.oci.image.{kind}")
}

fn descriptor(kind: &str, digest: &Sha256, size: u64) -> Value {
    json!({ "mediaType": media_type(kind), "digest": format!("sha256:{digest}"), "size": size })
}

fn blob(digest: &Sha256) -> String {
    format!("blobs/sha256/{digest}")
}

fn text(text: &str, output: &NewFile) -> Result<File> {
    let mut file = output.unnamed()?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

fn digest_of(file: &mut File) -> Result<Sha256> {
    file.rewind()?;
    Ok(Sha256::of_reader(file)?)
}

fn archive(entries: Vec<Entry>, to: File) -> Result<File> {
    let mut builder = Builder::new(BufWriter::new(to));
    for Entry { path, mut file } in entries {
        file.rewind()?;
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(file.metadata()?.len());
        header.set_mtime(0);
        builder.append_data(&mut header, Path::new(&path), BufReader::new(file))?;
    }
    Ok(builder.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::store::Store;

    /// What the reader of images finds in each form.
    #[test]
    fn what_is_written_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let output = NewFile::new(&path).unwrap();
        let new = || {
            let mut layer = output.unnamed().unwrap();
            layer.write_all(b"layer").unwrap();
            NewImage { layer, host: "arm/v7".parse().unwrap(), reference: Some("a:1".to_owned()) }
        };
        let check = |store: &Store| {
            let stored = store.image(|platform| platform == "arm/v7").unwrap();
            assert_eq!(stored.config.layers().unwrap(), [Sha256::of("layer")]);
            let blob = store.open(&stored.blobs[0]).unwrap();
            let mut text = String::new();
            io::Read::read_to_string(&mut crate::vm::store::decompressed(blob).unwrap(), &mut text).unwrap();
            assert_eq!(text, "layer");
            assert_eq!(stored.config.execution().cmd.unwrap(), ["/bin/sh"]);
        };
        new().write_layout(&output).unwrap();
        check(&Store::Directory(path.clone()));
        fs::remove_dir_all(&path).unwrap();
        new().write_layout_archive(&output).unwrap();
        check(&Store::archive(File::open(&path).unwrap()).unwrap());
        check(&Store::archive(new().write_docker_archive(&output).unwrap()).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
