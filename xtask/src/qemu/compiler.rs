//! The C compiler of this machine, and what it finds.

use std::path::PathBuf;

use anyhow::Result;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, sh};

/// Where the compiler finds a static library; `None` if it does not.
pub(crate) fn library(cx: &Context, name: &str) -> Result<Option<PathBuf>> {
    let cc = cx.settings.cc();
    let path = PathBuf::from(exec::read(cmd!(sh(), "{cc} -print-file-name={name}"))?);
    // A name that it does not find comes back as it is.
    Ok(path.is_absolute().then_some(path))
}
