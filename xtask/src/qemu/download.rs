//! Downloads a file with curl, which knows proxies and certificates, resumes what was cut off, and
//! retries a bounded number of times. What arrives is not trusted: the caller checks its hash.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use fs_err as fs;
use xshell::cmd;

use crate::base::exec::{self, is_installed, sh};
use crate::base::progress::Bar;

/// What no archive has, where its size is not known, in bytes.
const TOO_LARGE: u64 = 1 << 30;

/// Fetches what is not yet in `partial`, and no more than `size` bytes, where that is known.
///
/// # Errors
/// The server sends more than that; else in curl's own words, which tell names that do not resolve, refused connections, certificates and
/// HTTP statuses apart. What has arrived by then stays for the next attempt, unless the server cannot
/// continue it.
pub(crate) fn resume(url: &str, size: Option<u64>, partial: &Path, log: &Path) -> Result<()> {
    ensure!(is_installed("curl"), "curl is not installed");
    exec::start_log(log)?;
    // Whoever asks by https is not sent elsewhere without, and nobody to a file of this machine.
    let protocols = if url.starts_with("https:") { "=https" } else { "=http,https" };
    let curl = cmd!(
        sh(),
        "curl --fail --location --silent --show-error --connect-timeout 20 --speed-time 60 --speed-limit 1000
              --max-time 7200 --max-redirs 10 --proto {protocols} --proto-redir {protocols}
              --retry 3 --continue-at - --output {partial} {url}"
    );
    let most = size.unwrap_or(TOO_LARGE);
    let what = format!("downloading {}", url.rsplit('/').next().unwrap_or(url));
    let Err(error) = watch_growth(partial, what, size, || exec::run_limited(curl, log, most)) else {
        return Ok(());
    };
    let text = error.to_string();
    if text.contains("SIGXFSZ") {
        let _ = fs::remove_file(partial);
        bail!("the server sends more than the {most} bytes that the file can have");
    }
    let said = text.lines().rev().find_map(|line| line.trim().strip_prefix("curl: "));
    // No byte ranges, or none left: (33), (36), and status 416.
    if said.is_some_and(|said| said.starts_with("(33)") || said.starts_with("(36)") || said.ends_with("416"))
    {
        let _ = fs::remove_file(partial);
    }
    Err(said.map_or(error, |said| anyhow!("{said}")))
}

/// Shows how a file grows while something else fills it.
fn watch_growth<T>(
    file: &Path,
    what: String,
    size: Option<u64>,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let mut bar = Bar::new(what);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(200));
                if let (Some(size), Ok(now)) = (size, fs::metadata(file)) {
                    bar.set(now.len().min(size), size);
                }
            }
        });
        let result = work();
        ended.store(true, Ordering::Relaxed);
        result
    })
}
