//! Signatures of a release's checksums, and of its images.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use xshell::{Cmd, cmd};

use crate::base::error::Usage;
use crate::base::exec::{self, is_installed, sh};
use crate::base::files;
use crate::base::progress::Bar;
use crate::engine::client::Client;

/// The namespace of SSH signatures, so that none is valid for anything else.
pub(super) const NAMESPACE: &str = "qus-release";

/// The beginnings of cosign's private keys, of which the second is that of versions before 2.
const COSIGN_KEYS: [&str; 2] =
    ["-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----", "-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----"];

/// Whether a file has a signature next to it.
pub(super) fn is_signed(file: &Path) -> bool {
    Kind::ALL.iter().any(|kind| files::with_suffix(file, kind.suffix()).exists())
}

/// A key, and the program that signs with it.
pub(crate) struct Signer {
    key: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ssh,
    Minisign,
    Cosign,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Ssh, Self::Minisign, Self::Cosign];

    /// What the name of a signature has after that of the file.
    fn suffix(self) -> &'static str {
        match self {
            Self::Ssh => "sig",
            Self::Minisign => "minisig",
            Self::Cosign => "sigstore.json",
        }
    }
}

impl Signer {
    /// Recognises a key, before anything is packed.
    ///
    /// # Errors
    /// There is no such key, or its program is not installed.
    pub(crate) fn new(key: &Path) -> Result<Self> {
        ensure!(key.is_file(), Usage(format!("there is no key {}", key.display())));
        let start = fs::read(key)?;
        let start = String::from_utf8_lossy(&start);
        let kind = match () {
            () if start.starts_with("untrusted comment: minisign") => Kind::Minisign,
            () if COSIGN_KEYS.iter().any(|begin| start.starts_with(begin)) => Kind::Cosign,
            // With an agent, the public key is given.
            () if start.starts_with("-----BEGIN")
                || start.starts_with("ssh-")
                || start.starts_with("sk-") =>
            {
                Kind::Ssh
            }
            () => return Err(Usage(format!("{} is no key of SSH, minisign or cosign", key.display())).into()),
        };
        let signer = Self { key: key.to_owned(), kind };
        ensure!(is_installed(signer.program()), "{}, which signs, is not installed", signer.program());
        Ok(signer)
    }

    /// Recognises a key for images.
    ///
    /// # Errors
    /// As for [`Self::new`]; it is not one of cosign.
    pub(crate) fn for_images(key: &Path) -> Result<Self> {
        let signer = Self::new(key)?;
        let program = signer.program();
        ensure!(
            signer.image_key().is_some(),
            Usage(format!(
                "images are signed with keys of cosign, and {} is one of {program}",
                key.display()
            ))
        );
        Ok(signer)
    }

    fn program(&self) -> &'static str {
        match self.kind {
            Kind::Ssh => "ssh-keygen",
            Kind::Minisign => "minisign",
            Kind::Cosign => "cosign",
        }
    }

    /// The key, if it can sign images: if it is one of cosign.
    pub(crate) fn image_key(&self) -> Option<&Path> {
        (self.kind == Kind::Cosign).then_some(&self.key)
    }

    /// Signs a file, next to it. The program asks for the passphrase.
    pub(crate) fn sign(&self, file: &Path) -> Result<()> {
        let Self { key, kind } = self;
        let name = file.file_name().context("no file to sign")?.to_string_lossy();
        let _bar = Bar::new(format!("signing {name}"));
        let signature = files::with_suffix(file, kind.suffix());
        self.run(match kind {
            Kind::Ssh => cmd!(sh(), "ssh-keygen -q -Y sign -n {NAMESPACE} -f {key} {file}"),
            Kind::Minisign => cmd!(sh(), "minisign -S -s {key} -m {file}"),
            Kind::Cosign => {
                let options = cosign_options("sign-blob")?;
                cmd!(sh(), "cosign sign-blob {options...} --key {key} --bundle {signature} {file}")
            }
        })?;
        ensure!(signature.exists(), "{} has not written {}", self.program(), signature.display());
        Ok(())
    }

    /// Signs images, which are named by digest, in their registry. Another run adds another signature.
    ///
    /// # Errors
    /// The passphrase is wrong, or the registry does not accept the signatures.
    pub(crate) fn sign_images(&self, client: &Client, images: &[String]) -> Result<()> {
        let key = &self.key;
        let _bar = Bar::new(format!("signing {} images", images.len()));
        let options = cosign_options("sign")?;
        self.run(client.with_env(cmd!(sh(), "cosign sign {options...} --key {key} {images...}")))
    }

    fn run(&self, sign: Cmd<'_>) -> Result<()> {
        let status = exec::interactive(sign.ignore_stdout())?;
        let (program, key) = (self.program(), self.key.display());
        ensure!(status.success(), "{program} cannot sign with {key}: it ended with {status}");
        Ok(())
    }
}

/// Options of cosign to sign with a key alone: no transparency log, where the release would be public before it is
/// published. Version 3 has another default, and always writes the format that version 2 has to be asked for.
fn cosign_options(command: &str) -> Result<Vec<&'static str>> {
    let help = exec::read(cmd!(sh(), "cosign {command} --help"))?;
    let of_version: &[_] = match command {
        _ if help.contains("--use-signing-config") => &["--use-signing-config=false"],
        "sign-blob" => &["--new-bundle-format"],
        _ => &[],
    };
    Ok([&["--yes", "--tlog-upload=false"], of_version].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        let error = |text: &str| {
            fs::write(&key, text).unwrap();
            Signer::new(&key).err().map(|error| error.to_string()).unwrap_or_default()
        };
        for text in ["", "untrusted comment: x", "RWQ", "\u{0}\u{ff}"] {
            assert!(error(text).contains("is no key of SSH, minisign or cosign"), "{text}");
        }
        assert_eq!(error("-----BEGIN OPENSSH PRIVATE KEY-----\n"), "");
        let missing = Signer::new(&dir.path().join("none")).err().unwrap();
        assert!(missing.is::<Usage>(), "{missing}");
    }
}
