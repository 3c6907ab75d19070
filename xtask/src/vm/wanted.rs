//! What the user wants of an image, and the machine for it.

use anyhow::{Context as _, Result, bail};
use qemu_src::Machine;
use qus_core::arch::Host;
use qus_core::hint::{WithHint, hinted};

use crate::base::context::Context;
use crate::base::error::Usage;
use crate::vm::machine::{Kind, find};

/// What the user wants of an image.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    /// Needed to run a root file system; selects one image of several.
    pub(crate) arch: Option<&'static Host>,
    /// Runs the image.
    pub(crate) board: Option<&'a Machine>,
    /// Whether it is converted and not run, by the machine that reads all disks.
    pub(crate) converts: bool,
}

impl Wanted<'_> {
    /// Whether an image for this platform is wanted.
    pub(crate) fn accepts(self, platform: &str) -> bool {
        let Ok(host) = platform.parse::<&Host>() else { return self.arch.is_none() && self.board.is_none() };
        self.arch.is_none_or(|arch| host.arch == arch.arch) && self.board.is_none_or(|board| board.runs(host))
    }

    /// The architecture of an image that is not chosen among several.
    pub(crate) fn host(self) -> Option<&'static Host> {
        self.arch.or_else(|| Some(self.board?.host))
    }

    /// The machine for an image of this host.
    pub(crate) fn kind(self, cx: &Context, host: &'static Host, has_file_systems: bool) -> Result<Kind> {
        if self.converts {
            return Kind::with_file_systems(cx, find(cx, cx.data.machines.converter)?);
        }
        match self.board {
            Some(_) if has_file_systems => {
                bail!(Usage(
                    "a board runs images, not disks; `vm import` makes an image of a disk".to_owned()
                ))
            }
            Some(board) if board.runs(host) => Kind::ensure(cx, board),
            Some(board) => Err(unfit(cx, board, host)),
            None if has_file_systems => Kind::with_file_systems(cx, find(cx, host)?),
            None => Kind::ensure(cx, find(cx, host)?),
        }
    }

    /// The machine for a root file system, which does not say for which architecture it is.
    pub(crate) fn kind_of_root(self, cx: &Context, name: &str, has_file_systems: bool) -> Result<Kind> {
        let own = if self.converts { Some(cx.data.machines.converter) } else { self.host() };
        let host = own
            .with_context(|| format!("{name} does not say for which architecture it is"))
            .hint("name it with `--arch`, as in `--arch arm64`")?;
        self.kind(cx, host, has_file_systems)
    }
}

fn unfit(cx: &Context, board: &Machine, host: &Host) -> anyhow::Error {
    let boards = cx.data.machines.boards().filter(|board| board.runs(host));
    let names: Vec<_> = boards.map(Machine::name).collect();
    let hint = match &*names {
        [] => format!("no board does; omit --board, for a machine of {host}"),
        names => format!("these boards do: {}", names.join(", ")),
    };
    hinted(format_args!("the board {} does not run programs for {host}", board.name()), hint)
}
