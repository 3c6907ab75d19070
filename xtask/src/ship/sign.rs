//! Signatures of a release's checksums.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use xshell::cmd;

use crate::base::error::Usage;
use crate::base::exec::{self, is_installed, sh};
use crate::base::files;
use crate::base::progress::Bar;

/// The namespace of SSH signatures, so that none is valid for anything else.
pub(super) const NAMESPACE: &str = "qus-release";

/// A key, and the program that signs with it.
pub(crate) struct Signer {
    key: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Ssh,
    Minisign,
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
            // With an agent, the public key is given.
            () if start.starts_with("-----BEGIN")
                || start.starts_with("ssh-")
                || start.starts_with("sk-") =>
            {
                Kind::Ssh
            }
            () => return Err(Usage(format!("{} is no key of SSH or minisign", key.display())).into()),
        };
        let signer = Self { key: key.to_owned(), kind };
        ensure!(is_installed(signer.program()), "{}, which signs, is not installed", signer.program());
        Ok(signer)
    }

    fn program(&self) -> &'static str {
        match self.kind {
            Kind::Ssh => "ssh-keygen",
            Kind::Minisign => "minisign",
        }
    }

    /// Signs a file, next to it. The program asks for the passphrase.
    pub(crate) fn sign(&self, file: &Path) -> Result<()> {
        let Self { key, kind } = self;
        let name = file.file_name().context("no file to sign")?.to_string_lossy();
        let _bar = Bar::new(format!("signing {name}"));
        let (sign, suffix) = match kind {
            Kind::Ssh => (cmd!(sh(), "ssh-keygen -q -Y sign -n {NAMESPACE} -f {key} {file}"), "sig"),
            Kind::Minisign => (cmd!(sh(), "minisign -S -s {key} -m {file}"), "minisig"),
        };
        let status = exec::interactive(sign.ignore_stdout())?;
        let signature = files::with_suffix(file, suffix);
        ensure!(
            status.success() && signature.exists(),
            "{} cannot sign with {}: it ended with {status}",
            self.program(),
            key.display()
        );
        Ok(())
    }
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
            assert!(error(text).contains("is no key of SSH or minisign"), "{text}");
        }
        assert_eq!(error("-----BEGIN OPENSSH PRIVATE KEY-----\n"), "");
        let missing = Signer::new(&dir.path().join("none")).err().unwrap();
        assert!(missing.is::<Usage>(), "{missing}");
    }
}
