//! Copies a program's streams between this process and the ports of a machine.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use anyhow::Result;

/// The size of the buffers in bytes.
const BUFFER: usize = 64 << 10;

/// A stream of output that a thread copies.
pub(crate) struct Output {
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    copied: u64,
    has_ended: bool,
    error: Option<io::Error>,
}

impl Output {
    /// Starts to copy to a stream of this process. If that cannot be written, `control` is closed, which ends the session.
    pub(crate) fn start(from: UnixStream, to: impl AsFd, control: UnixStream) -> Result<Self> {
        // The standard library's streams have buffers of their own.
        let to = File::from(to.as_fd().try_clone_to_owned()?);
        let state: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let shared = state.clone();
        thread::spawn(move || {
            let copied = copy(from, to, |length| update(&shared, |state| state.copied += length));
            let has_failed = copied.is_err();
            update(&shared, |state| {
                state.has_ended = true;
                state.error = copied.err();
            });
            // The session asks for the error when its connection is closed.
            if has_failed {
                let _ = control.shutdown(Shutdown::Both);
            }
        });
        Ok(Self { state })
    }

    /// Waits until so many bytes have been copied.
    ///
    /// # Errors
    /// They cannot be written, or the stream has ended before.
    pub(crate) fn wait(&self, bytes: u64) -> io::Result<()> {
        let (state, changed) = &*self.state;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = |state: &mut State| state.copied < bytes && !state.has_ended;
        let mut state = changed.wait_while(state, wait).unwrap_or_else(PoisonError::into_inner);
        match state.error.take() {
            Some(error) => Err(error),
            None if state.copied < bytes => Err(ErrorKind::UnexpectedEof.into()),
            None => Ok(()),
        }
    }

    /// The error that has ended the stream.
    pub(crate) fn error(&self) -> Option<io::Error> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner).error.take()
    }
}

fn update(state: &(Mutex<State>, Condvar), change: impl FnOnce(&mut State)) {
    change(&mut state.0.lock().unwrap_or_else(PoisonError::into_inner));
    state.1.notify_all();
}

/// Starts to copy this process's standard input to a port, and its end. Nothing waits for it: the program may end before.
pub(crate) fn start_input(port: UnixStream) -> Result<()> {
    let from = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    thread::spawn(move || {
        // A machine that has ended does not read; this process ends, too.
        if let Ok(to) = port.try_clone() {
            let _ = copy(from, to, |_| {});
        }
        let _ = port.shutdown(Shutdown::Write);
    });
    Ok(())
}

/// Copies to the end. An error of reading is an end: the machine has ended.
fn copy(mut from: impl Read, mut to: impl Write, mut on_copied: impl FnMut(u64)) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                to.write_all(&buffer[..length])?;
                on_copied(length as u64);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Ok(()),
        }
    }
}
