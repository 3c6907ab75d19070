//! Downloads a file with curl, which supports proxies and certificates, resumes partial downloads, and retries a
//! limited number of times. The file is not trusted: the caller verifies its hash.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use fs_err as fs;
use xshell::cmd;

use crate::base::exec::{self, is_installed, sh};
use crate::base::progress::Bar;

/// The maximum size in bytes of a file of unknown size.
const MAX_SIZE: u64 = 1 << 30;

/// Downloads a file, starting at the end of an existing `partial` one, and at most `size` bytes if the size is known.
///
/// # Errors
/// The server sends more than the limit, or curl fails; curl's message distinguishes name resolution, refused
/// connections, certificates and HTTP statuses. The partial file is kept for the next attempt, unless the server cannot
/// resume it.
pub(crate) fn resume(url: &str, size: Option<u64>, partial: &Path, log: &Path) -> Result<()> {
    ensure!(is_installed("curl"), "curl is not installed");
    exec::start_log(log)?;
    // Redirects must not downgrade https, and must not lead to local files.
    let protocols = if url.starts_with("https:") { "=https" } else { "=http,https" };
    let curl = cmd!(
        sh(),
        "curl --fail --location --silent --show-error --connect-timeout 20 --speed-time 60 --speed-limit 1000
              --max-time 7200 --max-redirs 10 --proto {protocols} --proto-redir {protocols}
              --retry 3 --continue-at - --output {partial} {url}"
    );
    let most = size.unwrap_or(MAX_SIZE);
    let what = format!("downloading {}", url.rsplit('/').next().unwrap_or(url));
    let Err(error) = with_progress(partial, what, size, || exec::run_limited(curl, log, most)) else {
        return Ok(());
    };
    let text = error.to_string();
    if text.contains("SIGXFSZ") {
        let _ = fs::remove_file(partial);
        bail!("the server sends more than the maximum of {most} bytes");
    }
    let message = text.lines().rev().find_map(|line| line.trim().strip_prefix("curl: "));
    // The server does not support byte ranges, or the offset is invalid: (33), (36), and status 416.
    if message.is_some_and(|message| {
        message.starts_with("(33)") || message.starts_with("(36)") || message.ends_with("416")
    }) {
        let _ = fs::remove_file(partial);
    }
    Err(message.map_or(error, |message| anyhow!("{message}")))
}

/// Shows the size of a file as progress while `work` runs.
fn with_progress<T>(
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
    .inspect(|_| bar.finish())
}
