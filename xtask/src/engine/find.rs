//! The engine that images are built, pushed and tried with.
//!
//! Yours is used if it answers and has a recent buildx; its contexts, builders and configuration stay as they are.
//! Else, as root on a Debian-like system, a throwaway engine is started and removed again.

use anyhow::{Context as _, Result, ensure};
use qus_core::hint::hinted;
use semver::Version;

use crate::base::context::Context;
use crate::base::exec::{self, is_installed};
use crate::base::progress::say;
use crate::engine::client::Client;
use crate::engine::throwaway::{Options, Throwaway};

/// The oldest buildx that lists builders as JSON and takes all that our bake file has.
const BUILDX: Version = Version::new(0, 13, 0);

/// A client with what it speaks to.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) client: Client,
    /// Stopped when this is dropped, if we have started it.
    _throwaway: Option<Throwaway>,
}

impl Engine {
    /// Yours, or a throwaway one. With a builder named, only its client has to be there.
    ///
    /// # Errors
    /// Why neither can be used, and what to do.
    pub(crate) fn find(cx: &Context, builder: Option<&str>) -> Result<Self> {
        let yours = match usable(builder) {
            Ok(()) => return Ok(Self { client: Client::installed(), _throwaway: None }),
            Err(why) => why,
        };
        if let Some(builder) = builder {
            return Err(hinted(
                format_args!("the builder {builder} cannot be used: {yours:#}"),
                format_args!(
                    "--builder needs docker with buildx {BUILDX} or newer, and a builder from `docker buildx ls`"
                ),
            ));
        }
        match Throwaway::start(cx, &cx.paths.engine(), &Options::default()) {
            Ok(engine) => {
                say(format_args!(
                    "using a throwaway engine, since yours cannot be used ({yours:#}); its registry is {}",
                    engine.registry()
                ));
                let client = engine.client();
                Ok(Self { client, _throwaway: Some(engine) })
            }
            Err(error) => Err(hinted(
                format_args!(
                    "there is no container engine:\n  yours: {yours:#}\n  a throwaway one: {error:#}"
                ),
                format_args!(
                    "install and start Docker with buildx {BUILDX} or newer; or run this as root on Debian"
                ),
            )),
        }
    }
}

/// Fails with what keeps the installed client and its engine from being used.
fn usable(builder: Option<&str>) -> Result<()> {
    ensure!(is_installed("docker"), "docker is not installed");
    let client = Client::installed();
    let told = exec::read(client.cmd(&["buildx", "version"])).ok().context("docker has no buildx")?;
    let version = buildx_version(&told).with_context(|| format!("buildx tells no version: {told}"))?;
    ensure!(version >= BUILDX, "buildx is {version}, and {BUILDX} is needed");
    match builder {
        Some(builder) => exec::read(client.cmd(&["buildx", "inspect", builder])).map(drop),
        None => exec::read(client.cmd(&["version", "--format", "{{.Server.Version}}"])).map(drop),
    }
}

/// Reads `github.com/docker/buildx v0.13.1 788433953af1`; distributions leave the `v` out and add `+ds1`.
fn buildx_version(told: &str) -> Option<Version> {
    let word = told.split_whitespace().nth(1)?;
    let number = word.trim_start_matches('v').split(['+', '-', '~']).next()?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_buildx() {
        let version = |told| buildx_version(told).map(|version| version.to_string());
        assert_eq!(version("github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3").as_deref(), Some("0.13.1"));
        assert_eq!(version("github.com/docker/buildx v0.10.5-docker 1a2b").as_deref(), Some("0.10.5"));
        assert_eq!(version("buildx"), None);
    }
}
