//! Checks downloads from malicious servers: too much data, a wrong size, a redirect to a file.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use fs_err as fs;

use crate::base::error::Skip;
use crate::base::exec::is_installed;
use crate::check::report::Report;
use crate::check::smoke::fixture::build::{BuildFixture, LEVEL};
use crate::qemu::download;

/// The expected size of the download, in bytes.
const SIZE: u64 = 100_000;

pub(super) fn run(fixture: &BuildFixture<'_>, report: &mut Report) -> Result<()> {
    report.check(LEVEL, "endless download, wrong size, redirect to a file", || malicious_servers(fixture))
}

fn malicious_servers(fixture: &BuildFixture<'_>) -> Result<()> {
    if !is_installed("curl") {
        bail!(Skip("curl is not installed".to_owned()));
    }
    let (partial, log) = (fixture.path("malicious.partial"), fixture.path("malicious.log"));
    let secret = fixture.path("secret");
    fs::write(&secret, "of this machine")?;
    let redirect = format!("HTTP/1.1 302 Found\r\nLocation: file://{}\r\n", secret.display());
    let too_large = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", SIZE + 1);
    let cases = [
        ("HTTP/1.1 200 OK\r\n", "the server sends more than the maximum of 100000 bytes"),
        (&*too_large, "the server sends more than the maximum of 100000 bytes"),
        (&*redirect, "\"file\""),
    ];
    for (head, expected) in cases {
        let server = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/content", server.local_addr()?);
        let head = head.to_owned();
        thread::spawn(move || endless(&server, &head));
        let start = Instant::now();
        let outcome = download::resume(&url, Some(SIZE), &partial, &log);
        let message = outcome.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(message.contains(expected), "`{expected}` is not in: {message}");
        ensure!(start.elapsed() < Duration::from_secs(30), "it took {:?}", start.elapsed());
        ensure!(!partial.exists(), "the partial file is kept");
    }
    Ok(())
}

/// Answers a request with this head, and then with zeros until the connection is closed.
fn endless(server: &TcpListener, head: &str) -> Result<()> {
    let (mut stream, _) = server.accept()?;
    let mut request = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while request.read_line(&mut line)? > 2 {}
    write!(stream, "{head}Connection: close\r\n\r\n")?;
    loop {
        stream.write_all(&[0; 4096])?;
    }
}
