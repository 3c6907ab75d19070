//! This process's terminal while a machine's program uses it.

use std::io;
use std::os::fd::AsFd;
use std::sync::Mutex;

use anyhow::{Context, Result};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use qus_core::machine::Size;

/// The settings that are restored.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Passes every key to the program until it is dropped.
pub(crate) struct Raw(());

impl Raw {
    pub(crate) fn enter() -> Result<Self> {
        let settings = tcgetattr(io::stdin()).context("cannot read the terminal's settings")?;
        let mut raw = settings.clone();
        cfmakeraw(&mut raw);
        if let Ok(mut saved) = SAVED.lock() {
            *saved = Some(settings);
        }
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw).context("cannot change the terminal's settings")?;
        Ok(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the settings, if they have been changed; for every end of this process.
pub(crate) fn restore() {
    let saved = SAVED.lock().ok().and_then(|mut saved| saved.take());
    if let Some(settings) = saved {
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &settings);
    }
}

/// The size of a terminal; `None` if the stream is none.
pub(crate) fn size(stream: impl AsFd) -> Option<Size> {
    let (columns, rows) = qus_core::terminal::size(stream)?;
    Some(Size { rows, columns })
}
