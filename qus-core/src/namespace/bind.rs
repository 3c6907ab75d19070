//! Files and directories of the host in a root filesystem.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{self, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};

use super::NamespaceError;
use crate::text::Show;

/// A file or directory, and the path at which the command sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Its path outside.
    pub source: PathBuf,
    /// Its absolute path inside.
    pub target: PathBuf,
}

impl Bind {
    /// Reads `SRC[:DST]`.
    ///
    /// # Errors
    /// There is no such file, or the path inside is not absolute.
    pub fn parse(text: &OsStr) -> io::Result<Self> {
        let mut parts = text.as_bytes().splitn(2, |&byte| byte == b':').map(OsStr::from_bytes);
        let source = path::absolute(parts.next().unwrap_or_default())?;
        let target = parts.next().map_or_else(|| source.clone(), PathBuf::from);
        source
            .metadata()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", source.shown())))?;
        if !target.is_absolute() {
            return Err(io::Error::other(format!("{} is not an absolute path", target.shown())));
        }
        Ok(Self { source, target })
    }

    /// Mounts it in a root filesystem, or else in that of this process, with all that is mounted below it. Links in a
    /// root filesystem lead to files in it, as they do for the command.
    pub(crate) fn mount(&self, root: Option<&Path>) -> Result<(), NamespaceError> {
        let root = root.unwrap_or(Path::new("/"));
        let shown = root.join(self.target.strip_prefix("/").unwrap_or(&self.target));
        let mounted = || {
            let root =
                File::open(root).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
            let how =
                OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
            let target = openat2(&root, &self.target, how)?;
            let target = format!("/proc/self/fd/{}", target.as_raw_fd());
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(&self.source), &*target, None::<&str>, flags, None::<&str>)
        };
        mounted().map_err(|errno| NamespaceError::Bind(shown, errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_has_a_source_and_perhaps_a_target() {
        let parse = |text: &str| Bind::parse(OsStr::new(text));
        let bind = |source: &str, target: &str| Bind { source: source.into(), target: target.into() };
        assert_eq!(parse("/tmp").unwrap(), bind("/tmp", "/tmp"));
        assert_eq!(parse("/tmp:/srv/a:b").unwrap(), bind("/tmp", "/srv/a:b"));
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            parse("src").unwrap(),
            bind(&here.join("src").to_string_lossy(), &here.join("src").to_string_lossy())
        );
        assert!(parse("/tmp:srv").unwrap_err().to_string().contains("srv is not an absolute path"));
        assert!(parse("/no/such:/srv").unwrap_err().to_string().contains("/no/such: "));
        assert!(parse("").is_err() && parse("/tmp:").is_err());
    }
}
