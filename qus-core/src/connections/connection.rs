//! The state of one connection, which three threads use: of the port, and of each direction.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A connection as the thread that reads the port sees it.
pub(super) struct Connection {
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
    /// The number of bytes that have been received, and not yet been passed on.
    pub(super) pending: AtomicUsize,
}

pub(super) struct State {
    /// The number of bytes that may be sent.
    pub(super) credit: usize,
    pub(super) is_reset: bool,
    /// Where received bytes go; an empty list is the end.
    pub(super) received: Option<Sender<Vec<u8>>>,
    pub(super) socket: Option<UnixStream>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    /// A connection on which so many bytes may be sent, and what it receives.
    pub(super) fn new(window: usize) -> (Self, Receiver<Vec<u8>>) {
        let (sender, received) = mpsc::channel();
        let state = State { credit: window, is_reset: false, received: Some(sender), socket: None };
        let this = Self { state: Mutex::new(state), changed: Condvar::new(), pending: AtomicUsize::new(0) };
        (this, received)
    }

    /// Names the socket that a reset closes; `false` after one.
    pub(super) fn uses(&self, socket: UnixStream) -> bool {
        let mut state = lock(&self.state);
        state.socket = Some(socket);
        !state.is_reset
    }

    /// Waits until bytes may be sent; `None` after a reset.
    pub(super) fn credit(&self) -> Option<usize> {
        let wait = |state: &mut State| state.credit == 0 && !state.is_reset;
        let state = self.changed.wait_while(lock(&self.state), wait).unwrap_or_else(PoisonError::into_inner);
        (!state.is_reset).then_some(state.credit)
    }

    /// Lets more bytes be sent.
    pub(super) fn add_credit(&self, count: u32) {
        let mut state = lock(&self.state);
        state.credit = state.credit.saturating_add(count as usize);
        self.changed.notify_all();
    }

    /// Ends both directions.
    pub(super) fn reset(&self) {
        let mut state = lock(&self.state);
        state.is_reset = true;
        state.received = None;
        if let Some(socket) = &state.socket {
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }
}
