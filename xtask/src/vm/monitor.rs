//! QEMU's monitor: commands and events as lines of JSON, the QEMU Machine Protocol.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// The maximum length of a message in bytes.
const LONGEST: u64 = 1 << 20;

/// The maximum time for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the monitor.
pub(crate) struct Monitor {
    port: BufReader<UnixStream>,
    /// The names of events that nobody has waited for.
    events: Vec<String>,
}

impl Monitor {
    pub(crate) fn new(port: UnixStream) -> Result<Self> {
        port.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { port: BufReader::new(port), events: Vec::new() })
    }

    /// Waits until the emulator has started, and enables commands.
    pub(crate) fn negotiate(&mut self) -> Result<()> {
        self.receive()?;
        self.execute("qmp_capabilities", json!({})).map(drop)
    }

    /// Stops the machine, and saves its memory and devices in a file. What it has written is on its disks then.
    pub(crate) fn save(&mut self, file: &Path) -> Result<()> {
        self.execute("migrate", json!({ "uri": uri(file) }))?;
        loop {
            let state = self.execute("query-migrate", json!({}))?;
            match state["status"].as_str().unwrap_or_default() {
                "completed" => return Ok(()),
                "failed" | "cancelled" => {
                    bail!("{}", state["error-desc"].as_str().unwrap_or("it was cancelled"))
                }
                _ => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Lets a machine that has been saved continue.
    pub(crate) fn resume(&mut self) -> Result<()> {
        self.execute("cont", json!({})).map(drop)
    }

    /// Restores what [`Self::save`] has saved, in an emulator that waits for it, and lets the machine continue.
    pub(crate) fn restore(&mut self, file: &Path) -> Result<()> {
        self.execute("migrate-incoming", json!({ "uri": uri(file) }))?;
        self.wait_for("RESUME")
    }

    fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        self.port.get_ref().write_all(line.as_bytes()).context("QEMU has ended")?;
        loop {
            let mut message = self.receive()?;
            if let Some(error) = message.get("error") {
                bail!("QEMU refuses {command}: {}", error["desc"].as_str().unwrap_or_default());
            }
            if let Some(result) = message.get_mut("return") {
                return Ok(result.take());
            }
        }
    }

    fn wait_for(&mut self, event: &str) -> Result<()> {
        while !self.events.iter().any(|name| name == event) {
            self.receive()?;
        }
        self.events.clear();
        Ok(())
    }

    /// Receives a message, and remembers the name of an event.
    fn receive(&mut self) -> Result<Value> {
        let mut line = Vec::new();
        self.port.by_ref().take(LONGEST).read_until(b'\n', &mut line).context("QEMU does not answer")?;
        ensure!(line.ends_with(b"\n"), "QEMU has ended");
        let message: Value = serde_json::from_slice(&line)?;
        if let Some(event) = message["event"].as_str() {
            self.events.push(event.to_owned());
        }
        Ok(message)
    }
}

fn uri(file: &Path) -> String {
    format!("file:{}", file.display())
}
