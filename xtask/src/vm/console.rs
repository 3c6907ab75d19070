//! What the kernel of a machine prints.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use qus_core::text::Show;

/// The number of lines that an error shows, and their maximum length in bytes.
const LAST_LINES: usize = 20;
const LONGEST: u64 = 1000;

/// The last lines that a kernel has printed.
#[derive(Clone)]
pub(crate) struct Console(Arc<Mutex<VecDeque<String>>>);

impl Console {
    /// Reads a console to its end in a thread. If `verbose`, prints everything to stderr.
    pub(crate) fn follow(port: UnixStream, verbose: bool) -> Self {
        let console = Self(Arc::default());
        let lines = console.clone();
        thread::spawn(move || lines.read(BufReader::new(port), verbose));
        console
    }

    fn read(&self, mut port: impl BufRead, verbose: bool) {
        loop {
            let mut line = Vec::new();
            match port.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if verbose {
                let _ = io::stderr().write_all(&line);
            }
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            last.push_back(String::from_utf8_lossy(&line).trim_end().shown().to_string());
        }
    }

    /// The last lines, as the end of an error's message.
    pub(crate) fn last_lines(&self) -> String {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<_> = last.iter().map(|line| format!("\n    {line}")).collect();
        if lines.is_empty() {
            ", and the kernel has printed nothing".to_owned()
        } else {
            format!("; the kernel's last lines:{}", lines.concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept() {
        let console = Console(Arc::default());
        assert_eq!(console.last_lines(), ", and the kernel has printed nothing");
        let text: String = (1..=30).map(|number| format!("line {number}\r\n")).collect();
        console.read(text.as_bytes(), false);
        console.read(&b"\x1b[2J"[..], false);
        let lines = console.last_lines();
        assert!(lines.starts_with("; the kernel's last lines:\n    line 12\n"), "{lines}");
        assert!(lines.ends_with("\n    line 30\n    \\u{1b}[2J"), "{lines}");
        console.read(&*vec![b'x'; 5000], false);
        assert!(console.last_lines().lines().all(|line| line.len() < 1100));
    }
}
