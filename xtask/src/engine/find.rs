//! Finds the container engine for building, pushing and testing images.
//!
//! The installed engine is used if it responds and has a recent buildx; its contexts, builders and configuration are
//! not changed. Otherwise, as root on a Debian-like system, a throwaway engine is started, and removed afterwards.

use anyhow::{Context as _, Result, ensure};
use qus_core::hint::hinted;
use semver::Version;

use crate::base::context::Context;
use crate::base::exec;
use crate::base::progress::say;
use crate::engine::client::Client;
use crate::engine::throwaway::{Options, Throwaway};

/// The oldest buildx that lists builders as JSON and supports the bake file.
const BUILDX: Version = Version::new(0, 13, 0);

/// A container engine and its client.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) client: Client,
    /// A throwaway engine that this process has started; stopped when dropped.
    _throwaway: Option<Throwaway>,
}

impl Engine {
    /// Finds the installed engine, or starts a throwaway one. If a builder is given, only its client is needed.
    ///
    /// # Errors
    /// Neither can be used; the error has both reasons and a hint.
    pub(crate) fn find(cx: &Context, builder: Option<&str>) -> Result<Self> {
        let unusable = match check_usable(builder) {
            Ok(()) => return Ok(Self { client: Client::installed(), _throwaway: None }),
            Err(error) => error,
        };
        if let Some(builder) = builder {
            return Err(hinted(
                format_args!("cannot use the builder {builder}: {unusable:#}"),
                format_args!(
                    "--builder needs docker with buildx {BUILDX} or newer, and a builder from `docker buildx ls`"
                ),
            ));
        }
        match Throwaway::start(cx, &cx.paths.engine(), &Options::default()) {
            Ok(engine) => {
                say(format_args!(
                    "using a throwaway engine, because the installed one cannot be used ({unusable:#}); its registry is {}",
                    engine.registry()
                ));
                let client = engine.client();
                Ok(Self { client, _throwaway: Some(engine) })
            }
            Err(error) => Err(hinted(
                format_args!(
                    "no container engine is available:\n  installed: {unusable:#}\n  throwaway: {error:#}"
                ),
                format_args!(
                    "install and start Docker with buildx {BUILDX} or newer, or run this command as root on Debian"
                ),
            )),
        }
    }
}

/// Checks that the installed client and its engine can be used.
fn check_usable(builder: Option<&str>) -> Result<()> {
    let client = Client::find_installed()?;
    let output =
        exec::read(client.cmd(&["buildx", "version"])).ok().context("docker has no buildx plugin")?;
    let version = buildx_version(&output)
        .with_context(|| format!("cannot determine the version of buildx: {output}"))?;
    ensure!(version >= BUILDX, "buildx {version} is too old; {BUILDX} or newer is required");
    match builder {
        Some(builder) => exec::read(client.cmd(&["buildx", "inspect", builder])).map(drop),
        None => client.check_engine(),
    }
}

/// Parses `github.com/docker/buildx v0.13.1 788433953af1`; distributions omit the `v` and add `+ds1`.
fn buildx_version(output: &str) -> Option<Version> {
    let word = output.split_whitespace().nth(1)?;
    let number = word.trim_start_matches('v').split(['+', '-', '~']).next()?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_buildx() {
        let version = |output| buildx_version(output).map(|version| version.to_string());
        assert_eq!(version("github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3").as_deref(), Some("0.13.1"));
        assert_eq!(version("github.com/docker/buildx v0.10.5-docker 1a2b").as_deref(), Some("0.10.5"));
        assert_eq!(version("buildx"), None);
    }
}
