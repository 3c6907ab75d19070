//! Registries that fail as they are told to: real ones, set up so that they have to, and a proxy before a real one,
//! which answers in its stead what it cannot be brought to answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xshell::cmd;

use crate::base::exec::{self, sh};
use crate::base::files;
use crate::check::smoke::fixture::engine::EngineFixture;
use crate::check::smoke::fixture::process::wait;

/// For as long as nobody heals it.
pub(super) const FOR_EVER: Duration = Duration::MAX;

/// What the engine's own registry is, once more, with other settings; it ends when dropped.
pub(super) struct Real {
    child: Child,
    address: SocketAddr,
}

impl Real {
    /// Starts one at an address of this machine, and changes its settings first.
    pub(super) fn start(
        fixture: &EngineFixture<'_>,
        ip: &str,
        settings: impl FnOnce(&mut Value),
    ) -> Result<Self> {
        let address = free_address(ip)?;
        let dir = fixture.path(&format!("registry-{}", address.port()));
        let mut config = json!({
            "version": 0.1,
            "log": { "level": "warn" },
            "storage": { "filesystem": { "rootdirectory": dir.join("data") } },
            "http": { "addr": address.to_string() },
        });
        settings(&mut config);
        let file = dir.join("config.json");
        files::write(&file, &serde_json::to_vec(&config)?)?;
        let program = fixture.engine.program("usr/bin/docker-registry");
        let log = fs_err::File::create(dir.join("log"))?;
        let child = exec::spawn(cmd!(sh(), "{program} serve {file}"), log)?;
        let this = Self { child, address };
        wait("the registry does not answer", || Ok(TcpStream::connect(address).is_ok()))?;
        Ok(this)
    }

    /// A repository in it.
    pub(super) fn repo(&self) -> String {
        repo(self.address)
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address at which nobody listens now.
pub(super) fn free_address(ip: &str) -> Result<SocketAddr> {
    let listener = TcpListener::bind((ip, 0)).with_context(|| format!("cannot listen at {ip}"))?;
    Ok(listener.local_addr()?)
}

/// A repository in the registry at an address. That of the loopback interface has its name, since docker speaks http with
/// it.
pub(super) fn repo(address: SocketAddr) -> String {
    match address.ip().is_loopback() {
        true => format!("localhost:{}/qus", address.port()),
        false => format!("{address}/qus"),
    }
}

/// What is answered instead.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    /// The status, and further lines.
    Head(&'static str),
    /// Nothing, and the connection is closed in the midst of what is sent.
    HangUp,
    /// Nothing, for as long as it is ill.
    Silence,
    /// A manifest that does not have the digest that its head says.
    OtherDigest,
    /// A manifest that does not end.
    Endless,
}

const MANIFEST: &str =
    r#"{ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [] }"#;

/// The head of an answer with a manifest, with a further line.
fn manifest(line: &str) -> Vec<u8> {
    let digest = "b".repeat(64);
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.index.v1+json\r\n\
         Docker-Content-Digest: sha256:{digest}\r\nConnection: close\r\n{line}\r\n"
    )
    .into_bytes()
}

/// A proxy before the engine's registry that is ill for a time, from the first request on to which it says so.
#[derive(Clone)]
pub(super) struct Faulty {
    address: SocketAddr,
    registry: String,
    /// To which requests, by their first line.
    concerns: fn(&str) -> bool,
    answer: Answer,
    lasts: Duration,
    began: Arc<OnceLock<Instant>>,
    healed: Arc<AtomicBool>,
}

impl Faulty {
    /// Starts one that serves until this process ends.
    pub(super) fn start(
        fixture: &EngineFixture<'_>,
        ip: &str,
        concerns: fn(&str) -> bool,
        answer: Answer,
        lasts: Duration,
    ) -> Result<Self> {
        let listener = TcpListener::bind((ip, 0)).with_context(|| format!("cannot listen at {ip}"))?;
        let this = Self {
            address: listener.local_addr()?,
            registry: fixture.engine.registry(),
            concerns,
            answer,
            lasts,
            began: Arc::default(),
            healed: Arc::default(),
        };
        let server = this.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = server.clone();
                // Whoever hangs up has no answer to get.
                thread::spawn(move || server.serve(client).is_ok());
            }
        });
        Ok(this)
    }

    /// A repository behind it.
    pub(super) fn repo(&self) -> String {
        // Each has its own in the registry, which they share.
        format!("{}-{}", repo(self.address), self.address.port())
    }

    /// Whether it has failed to do what it was asked.
    pub(super) fn has_struck(&self) -> bool {
        self.began.get().is_some()
    }

    pub(super) fn heal(&self) {
        self.healed.store(true, Ordering::Relaxed);
    }

    fn is_ill(&self) -> bool {
        !self.healed.load(Ordering::Relaxed) && self.began.get_or_init(Instant::now).elapsed() < self.lasts
    }

    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        const TLS_HELLO: u8 = 0x16;
        let mut byte = [0];
        client.peek(&mut byte)?;
        if byte == [TLS_HELLO] {
            // As a server in Go says that it speaks http; docker then does too.
            return client.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
        }
        let mut request = BufReader::new(client.try_clone()?);
        let mut head = String::new();
        while request.read_line(&mut head)? > 2 {}
        let (line, fields) = head.split_once("\r\n").unwrap_or((&head, ""));
        if (self.concerns)(line) && self.is_ill() {
            return self.strike(line, client, request);
        }
        let mut registry = TcpStream::connect(&self.registry)?;
        // One request for each connection, so that every head is seen.
        let fields: String = fields
            .split_inclusive("\r\n")
            .filter(|field| !field.to_ascii_lowercase().starts_with("connection:"))
            .collect();
        registry.write_all(format!("{line}\r\nConnection: close\r\n{fields}").as_bytes())?;
        let mut body = registry.try_clone()?;
        thread::spawn(move || io::copy(&mut request, &mut body).is_ok());
        io::copy(&mut registry, &mut client)?;
        client.shutdown(Shutdown::Both)
    }

    fn strike(&self, line: &str, mut client: TcpStream, mut request: BufReader<TcpStream>) -> io::Result<()> {
        match self.answer {
            Answer::Head(head) => {
                let head = format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                client.write_all(head.as_bytes())?;
                client.shutdown(Shutdown::Write)?;
                // A connection that is closed with something unread is reset, and the answer lost.
                io::copy(&mut request, &mut io::sink()).map(drop)
            }
            Answer::OtherDigest => {
                let length = format!("Content-Length: {}\r\n", MANIFEST.len());
                client.write_all(&manifest(&length))?;
                client.write_all(if line.starts_with("HEAD") { b"" } else { MANIFEST.as_bytes() })
            }
            Answer::Endless if line.starts_with("HEAD") => {
                client.write_all(&manifest("Content-Length: 1000\r\n"))
            }
            Answer::Endless => {
                client.write_all(&manifest(""))?;
                // Until whoever reads it has enough.
                while client.write_all(&[b' '; 1 << 16]).is_ok() {}
                Ok(())
            }
            Answer::HangUp => request.read_exact(&mut [0; 100]),
            Answer::Silence => {
                while self.is_ill() {
                    thread::sleep(Duration::from_millis(20));
                }
                Ok(())
            }
        }
    }
}
