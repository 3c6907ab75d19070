//! Registries that fail in a chosen way: real ones whose settings make them fail, and a proxy that answers some requests
//! to a real one with faults that no setting causes.

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

/// The fault lasts until [`FaultyProxy::repair`] is called.
pub(super) const PERMANENT: Duration = Duration::MAX;

/// Another registry of the engine's packages, with other settings. It is killed when dropped.
pub(super) struct Registry {
    child: Child,
    address: SocketAddr,
}

impl Registry {
    /// Starts a registry at an IP address of this machine, after its settings are changed.
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
        wait("the registry answers", || Ok(TcpStream::connect(address).is_ok()))?;
        Ok(this)
    }

    /// Name of a repository in this registry.
    pub(super) fn repo(&self) -> String {
        repo(self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns an address on which no process listens now.
pub(super) fn free_address(ip: &str) -> Result<SocketAddr> {
    let listener = TcpListener::bind((ip, 0)).with_context(|| format!("cannot listen at {ip}"))?;
    Ok(listener.local_addr()?)
}

/// Name of a repository in the registry at an address. The loopback address becomes `localhost`, with which docker uses
/// HTTP.
pub(super) fn repo(address: SocketAddr) -> String {
    match address.ip().is_loopback() {
        true => format!("localhost:{}/qus", address.port()),
        false => format!("{address}/qus"),
    }
}

/// What the proxy does instead of forwarding a request.
#[derive(Clone, Copy)]
pub(super) enum Fault {
    /// Responds with a status and further header lines.
    Status(&'static str),
    /// Closes the connection in the middle of the request.
    CloseConnection,
    /// Sends nothing while the fault lasts.
    NoResponse,
    /// Responds with a manifest that does not match the digest in its header.
    WrongDigest,
    /// Responds with a manifest without end.
    EndlessManifest,
}

const MANIFEST: &str =
    r#"{ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [] }"#;

/// The head of a response with a manifest, with a further header line.
fn manifest_head(line: &str) -> Vec<u8> {
    let digest = "b".repeat(64);
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.index.v1+json\r\n\
         Docker-Content-Digest: sha256:{digest}\r\nConnection: close\r\n{line}\r\n"
    )
    .into_bytes()
}

/// A proxy in front of the engine's registry. Its fault starts with the first request that it affects.
#[derive(Clone)]
pub(super) struct FaultyProxy {
    address: SocketAddr,
    registry: String,
    /// Whether the fault affects a request with this first line.
    affects: fn(&str) -> bool,
    fault: Fault,
    duration: Duration,
    started: Arc<OnceLock<Instant>>,
    repaired: Arc<AtomicBool>,
}

impl FaultyProxy {
    /// Starts a proxy that serves until this process exits.
    pub(super) fn start(
        fixture: &EngineFixture<'_>,
        ip: &str,
        affects: fn(&str) -> bool,
        fault: Fault,
        duration: Duration,
    ) -> Result<Self> {
        let listener = TcpListener::bind((ip, 0)).with_context(|| format!("cannot listen at {ip}"))?;
        let this = Self {
            address: listener.local_addr()?,
            registry: fixture.engine.registry(),
            affects,
            fault,
            duration,
            started: Arc::default(),
            repaired: Arc::default(),
        };
        let server = this.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = server.clone();
                // Errors are expected, because clients close connections early.
                thread::spawn(move || server.serve(client).is_ok());
            }
        });
        Ok(this)
    }

    /// Name of a repository behind this proxy.
    pub(super) fn repo(&self) -> String {
        // The proxies share a registry, so that each needs its own repository.
        format!("{}-{}", repo(self.address), self.address.port())
    }

    /// Whether the fault has affected a request.
    pub(super) fn has_failed(&self) -> bool {
        self.started.get().is_some()
    }

    pub(super) fn repair(&self) {
        self.repaired.store(true, Ordering::Relaxed);
    }

    fn is_faulty(&self) -> bool {
        !self.repaired.load(Ordering::Relaxed)
            && self.started.get_or_init(Instant::now).elapsed() < self.duration
    }

    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        const TLS_HELLO: u8 = 0x16;
        let mut byte = [0];
        client.peek(&mut byte)?;
        if byte == [TLS_HELLO] {
            // The response of HTTP servers written in Go, after which docker falls back to HTTP.
            return client.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
        }
        let mut request = BufReader::new(client.try_clone()?);
        let mut head = String::new();
        while request.read_line(&mut head)? > 2 {}
        let (line, fields) = head.split_once("\r\n").unwrap_or((&head, ""));
        if (self.affects)(line) && self.is_faulty() {
            return self.fail(line, client, request);
        }
        let mut registry = TcpStream::connect(&self.registry)?;
        // One request for each connection, so that the proxy sees the head of every request.
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

    fn fail(&self, line: &str, mut client: TcpStream, mut request: BufReader<TcpStream>) -> io::Result<()> {
        match self.fault {
            Fault::Status(head) => {
                let head = format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                client.write_all(head.as_bytes())?;
                client.shutdown(Shutdown::Write)?;
                // Closing a connection with unread data resets it, and the response is lost.
                io::copy(&mut request, &mut io::sink()).map(drop)
            }
            Fault::WrongDigest => {
                let length = format!("Content-Length: {}\r\n", MANIFEST.len());
                client.write_all(&manifest_head(&length))?;
                client.write_all(if line.starts_with("HEAD") { b"" } else { MANIFEST.as_bytes() })
            }
            Fault::EndlessManifest if line.starts_with("HEAD") => {
                client.write_all(&manifest_head("Content-Length: 1000\r\n"))
            }
            Fault::EndlessManifest => {
                client.write_all(&manifest_head(""))?;
                // Until the client closes the connection.
                while client.write_all(&[b' '; 1 << 16]).is_ok() {}
                Ok(())
            }
            Fault::CloseConnection => request.read_exact(&mut [0; 100]),
            Fault::NoResponse => {
                while self.is_faulty() {
                    thread::sleep(Duration::from_millis(20));
                }
                Ok(())
            }
        }
    }
}
