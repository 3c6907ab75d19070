//! Queries the C compiler of this machine.

use std::path::PathBuf;

use anyhow::Result;
use xshell::cmd;

use crate::base::context::Context;
use crate::base::exec::{self, sh};

/// The path at which the compiler finds a static library; `None` if it does not find it.
pub(crate) fn find_library(cx: &Context, name: &str) -> Result<Option<PathBuf>> {
    let cc = cx.settings.cc();
    let path = PathBuf::from(exec::read(cmd!(sh(), "{cc} -print-file-name={name}"))?);
    // The compiler prints a name unchanged if it does not find the file.
    Ok(path.is_absolute().then_some(path))
}
