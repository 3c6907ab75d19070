//! The configuration of an image, as OCI defines it and as engines print it.

use anyhow::{Context, Result, ensure};
use qus_core::arch::Host;
use qus_core::digest::Sha256;
use serde::Deserialize;

/// The configuration of an image. Engines write the same fields with capital letters.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Config {
    #[serde(alias = "Architecture")]
    architecture: String,
    #[serde(default, alias = "Variant")]
    variant: Option<String>,
    #[serde(default, alias = "Config")]
    config: Option<Execution>,
    #[serde(default, alias = "RootFS")]
    rootfs: Layers,
}

/// What an image runs.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Execution {
    pub(crate) env: Option<Vec<String>>,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) user: Option<String>,
    pub(crate) working_dir: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Layers {
    #[serde(default, alias = "Layers")]
    diff_ids: Vec<String>,
}

impl Config {
    /// The platform without `linux/`.
    pub(crate) fn platform(&self) -> String {
        match self.variant.as_deref().filter(|variant| !variant.is_empty()) {
            Some(variant) => format!("{}/{variant}", self.architecture),
            None => self.architecture.clone(),
        }
    }

    /// The host whose programs the image has.
    pub(crate) fn host(&self) -> Result<&'static Host> {
        match (&*self.architecture, self.variant.as_deref().unwrap_or_default()) {
            // An image without a variant is of the common one.
            ("arm", "") => Ok("arm/v7".parse()?),
            ("arm64", _) => Ok("arm64".parse()?),
            _ => self
                .platform()
                .parse()
                .with_context(|| format!("no machine runs images for linux/{}", self.platform())),
        }
    }

    /// The digests of the uncompressed layers, the lowest first.
    pub(crate) fn layers(&self) -> Result<Vec<Sha256>> {
        ensure!(!self.rootfs.diff_ids.is_empty(), "the image has no layers");
        self.rootfs.diff_ids.iter().map(|digest| parse_digest(digest)).collect()
    }

    pub(crate) fn execution(self) -> Execution {
        self.config.unwrap_or_default()
    }
}

/// Parses `sha256:…`.
pub(crate) fn parse_digest(digest: &str) -> Result<Sha256> {
    let hex =
        digest.strip_prefix("sha256:").with_context(|| format!("the digest {digest:?} is not of SHA-256"))?;
    hex.parse().with_context(|| format!("the digest {digest:?} is invalid"))
}

impl Execution {
    /// The program and its arguments: the entry point, and the given arguments instead of the image's own.
    pub(crate) fn argv(&self, arguments: &[String]) -> Result<Vec<String>> {
        let own = self.cmd.as_deref().unwrap_or_default();
        let arguments = if arguments.is_empty() { own } else { arguments };
        let argv = [self.entrypoint.as_deref().unwrap_or_default(), arguments].concat();
        ensure!(!argv.is_empty(), "the image names no program to run");
        Ok(argv)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Config {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn both_forms_are_read() {
        let digest = format!("sha256:{}", "0f".repeat(32));
        for text in [
            format!(
                r#"{{"architecture":"arm","variant":"v6","os":"linux","config":{{"Cmd":["sh"],"Env":["A=b"]}},
                "rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#
            ),
            format!(
                r#"{{"Architecture":"arm","Variant":"v6","Os":"linux","Config":{{"Cmd":["sh"],"Env":["A=b"],
                "Entrypoint":null}},"RootFS":{{"Type":"layers","Layers":["{digest}"]}}}}"#
            ),
        ] {
            let config = parsed(&text);
            assert_eq!((config.platform().as_str(), config.host().unwrap().name), ("arm/v6", "arm32v6"));
            assert_eq!(config.layers().unwrap().len(), 1);
            let execution = config.execution();
            assert_eq!(execution.env.as_deref(), Some(&["A=b".to_owned()][..]));
            assert_eq!(execution.argv(&[]).unwrap(), ["sh"]);
        }
    }

    #[test]
    fn platforms_without_a_variant() {
        let host = |text| parsed(text).host().map(|host| host.name);
        assert_eq!(host(r#"{"architecture":"arm"}"#).unwrap(), "arm32v7");
        assert_eq!(host(r#"{"architecture":"arm64","variant":"v8"}"#).unwrap(), "arm64v8");
        let error = host(r#"{"architecture":"sparc64"}"#).unwrap_err().to_string();
        assert_eq!(error, "no machine runs images for linux/sparc64");
    }

    #[test]
    fn arguments_replace_the_images_own() {
        let words = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        let execution =
            Execution { entrypoint: words(&["tini", "--"]), cmd: words(&["serve"]), ..Execution::default() };
        assert_eq!(execution.argv(&[]).unwrap(), ["tini", "--", "serve"]);
        assert_eq!(execution.argv(&["date".to_owned()]).unwrap(), ["tini", "--", "date"]);
        assert!(Execution::default().argv(&[]).is_err());
    }

    #[test]
    fn other_digests_are_refused() {
        assert!(parse_digest("sha512:00").is_err() && parse_digest("sha256:../../x").is_err());
    }
}
