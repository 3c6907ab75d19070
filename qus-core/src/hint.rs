//! What to do about an error, kept apart from what went wrong.
//!
//! A hint is attached to the error where it is known, and is printed once, after the error and its causes. It is a sentence
//! with a command in backticks that can be pasted into a shell.
//!
//! ```
//! use qus_core::hint::{self, WithHint};
//!
//! let read = std::fs::read("/no/such/bundle.json").hint("run `cargo xtask build-qemu`");
//! let error = read.unwrap_err().context("cannot read the bundle");
//! assert_eq!(
//!     hint::render(&error),
//!     "error: cannot read the bundle\n  caused by: No such file or directory (os error 2)\n\
//!      hint: run `cargo xtask build-qemu`\n"
//! );
//! ```

use std::error::Error;
use std::fmt::{self, Display};

use crate::arch::UnknownArch;
use crate::bundle::BundleError;
use crate::emulator::EmulatorDirError;
use crate::install::{ArchFailure, InstallError};
use crate::mount::MountError;
use crate::namespace::NamespaceError;
use crate::persist::PersistError;
use crate::private::PrivateError;
use crate::remove::RemoveError;
use crate::selection::NoEmulators;
use crate::trust::TrustError;

/// An error with a hint; displayed as the error alone.
#[derive(Debug)]
pub struct Hinted {
    error: anyhow::Error,
    hint: String,
}

impl Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for Hinted {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// An error of this message, with a hint.
pub fn hinted(error: impl Display, hint: impl Display) -> anyhow::Error {
    attach(anyhow::Error::msg(error.to_string()), hint)
}

fn attach(error: anyhow::Error, hint: impl Display) -> anyhow::Error {
    Hinted { error, hint: hint.to_string() }.into()
}

/// Attaches hints to results.
pub trait WithHint<T> {
    /// Attaches a hint to the error.
    ///
    /// # Errors
    /// The error, with the hint.
    fn hint(self, hint: impl Display) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> WithHint<T> for Result<T, E> {
    fn hint(self, hint: impl Display) -> anyhow::Result<T> {
        self.map_err(|error| attach(error.into(), hint))
    }
}

/// The hint of an error; if several were attached, the one nearest to its cause. If none was attached, that of the error
/// of this crate that is nearest to the cause and has one.
pub fn of(error: &anyhow::Error) -> Option<String> {
    attached(error).map(str::to_owned).or_else(|| error.chain().filter_map(of_typed).last())
}

fn attached(error: &anyhow::Error) -> Option<&str> {
    let hinted = error.downcast_ref::<Hinted>()?;
    attached(&hinted.error).or(Some(&hinted.hint))
}

/// The hint of one of this crate's errors.
fn of_typed(error: &(dyn Error + 'static)) -> Option<String> {
    macro_rules! first_of {
        ($($kind:ty)*) => {
            $(if let Some(error) = error.downcast_ref::<$kind>() {
                return error.hint();
            })*
        };
    }
    first_of! {
        ArchFailure BundleError EmulatorDirError InstallError MountError NamespaceError NoEmulators PersistError
        PrivateError RemoveError TrustError UnknownArch
    }
    None
}

/// The error of a type in this one, as [`anyhow::Error::downcast_ref`] finds it, under hints too.
pub fn find<E: Display + fmt::Debug + Send + Sync + 'static>(error: &anyhow::Error) -> Option<&E> {
    error.downcast_ref().or_else(|| find(&error.downcast_ref::<Hinted>()?.error))
}

/// The error as it is printed: message, causes, hint, a line each.
pub fn render(error: &anyhow::Error) -> String {
    let causes = error.chain().skip(1).map(|cause| format!("  caused by: {cause}\n"));
    let hint = of(error).map(|hint| format!("hint: {hint}\n"));
    format!("error: {error}\n{}", causes.chain(hint).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[derive(Debug)]
    struct Usage;

    impl Display for Usage {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("wrong usage")
        }
    }

    impl Error for Usage {}

    #[test]
    fn the_hint_nearest_to_the_cause_is_printed_last() {
        let inner = Err::<(), _>(Usage).hint("inner").context("reading");
        let error = inner.hint("outer").context("building").unwrap_err();
        assert_eq!(
            render(&error),
            "error: building\n  caused by: reading\n  caused by: wrong usage\nhint: inner\n"
        );
        assert!(find::<Usage>(&error).is_some());
        assert!(find::<Usage>(&hinted("wrong usage", "none")).is_none());
    }

    #[test]
    fn typed_errors_have_their_own() {
        let error = anyhow::Error::new(InstallError::Mount(MountError::NoProc)).context("installing");
        assert_eq!(
            render(&error),
            "error: installing\n  caused by: /proc is not mounted\nhint: mount it: `mount -t proc proc /proc`\n"
        );
        let error = Err::<(), _>(MountError::NoProc).hint("outer").unwrap_err();
        assert_eq!(of(&error).as_deref(), Some("outer"), "it knows more of what was meant");
    }

    #[test]
    fn an_error_without_a_hint_has_none() {
        assert_eq!(render(&anyhow::anyhow!("alone")), "error: alone\n");
    }
}
