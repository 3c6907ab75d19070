//! Several streams over one line.
//!
//! Boards have no virtio-serial ports, and often one serial line only, on which the kernel prints its messages, too. A
//! frame is a byte 0, which no message has, the number of a channel, a length of two bytes, the higher one first, and so
//! many bytes; without bytes, it is the end of the channel. 128 is added to the number for a frame that has a length alone:
//! the receiver has passed on so many bytes of the channel. No more than 8 KiB of a channel are on the way, because a line
//! does not wait: what exceeds the kernel's buffer of it is lost.
//!
//! Both sides use the same code, with the same channels:
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::Shutdown;
//! use std::os::unix::net::UnixStream;
//! use qus_core::multiplex;
//!
//! let (line, other_line) = UnixStream::pair()?;
//! let ((mut near, channel), (mut far, other_channel)) = (UnixStream::pair()?, UnixStream::pair()?);
//! multiplex::connect(line.try_clone()?, line, vec![channel], |_| {})?;
//! multiplex::connect(other_line.try_clone()?, other_line, vec![other_channel], |_| {})?;
//! near.write_all(b"text")?;
//! near.shutdown(Shutdown::Write)?;
//! let mut received = String::new();
//! far.read_to_string(&mut received)?;
//! assert_eq!(received, "text");
//! # Ok::<(), std::io::Error>(())
//! ```

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

/// The first byte of a frame.
const START: u8 = 0;
/// What is added to the number of a channel in a frame that says how many bytes have been taken.
const TAKEN: u8 = 0x80;
/// The maximum number of bytes in a frame.
const LONGEST: usize = 1 << 10;
/// The maximum number of bytes of a channel that the other side has not taken. The kernel keeps 64 KiB of a line.
const WINDOW: usize = 8 << 10;

/// Connects channels with those of the other side of a line until it ends. Bytes of the line that are in no frame are
/// `text`.
///
/// # Errors
/// A stream cannot be duplicated.
pub fn connect(
    from: impl Read + Send + 'static,
    to: impl Write + Send + 'static,
    channels: Vec<UnixStream>,
    text: impl FnMut(&[u8]) + Send + 'static,
) -> io::Result<()> {
    let to = Arc::new(Mutex::new(to));
    let mut inbound = Vec::new();
    for (number, channel_end) in (0..).zip(channels) {
        let window = Arc::new(Window::default());
        let (sender, receiver) = channel();
        let line = Line { to: to.clone(), number };
        let (stream, of_line) = (channel_end.try_clone()?, line.clone());
        thread::spawn(move || pass_on(&receiver, stream, &of_line));
        inbound.push(Inbound { sender, window: window.clone() });
        thread::spawn(move || send(channel_end, &line, &window));
    }
    thread::spawn(move || receive(BufReader::new(from), &inbound, text));
    Ok(())
}

/// The line, to which all channels write.
struct Line<W> {
    to: Arc<Mutex<W>>,
    number: u8,
}

impl<W> Clone for Line<W> {
    fn clone(&self) -> Self {
        Self { to: self.to.clone(), number: self.number }
    }
}

impl<W: Write> Line<W> {
    fn write(&self, kind: u8, length: usize, bytes: &[u8]) -> io::Result<()> {
        let length = u16::try_from(length).map_err(io::Error::other)?.to_be_bytes();
        let frame = [&[START, self.number | kind], &length[..], bytes].concat();
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        to.write_all(&frame)?;
        to.flush()
    }
}

/// The number of bytes that are on the way, and whether the line has ended.
#[derive(Default)]
struct Window(Mutex<(usize, bool)>, Condvar);

impl Window {
    /// Waits until bytes can be sent, and returns how many; `None` if the line has ended.
    fn wait(&self) -> Option<usize> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |(used, has_ended): &mut (usize, bool)| *used >= WINDOW && !*has_ended;
        let state = self.1.wait_while(state, is_full).unwrap_or_else(PoisonError::into_inner);
        (!state.1).then(|| WINDOW - state.0)
    }

    fn change(&self, change: impl FnOnce(&mut (usize, bool))) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.1.notify_all();
    }
}

/// What the reader of the line knows of a channel.
struct Inbound {
    sender: Sender<Vec<u8>>,
    window: Arc<Window>,
}

/// Writes a channel's bytes to the line.
fn send<W: Write>(mut from: UnixStream, line: &Line<W>, window: &Window) {
    let mut buffer = [0; LONGEST];
    while let Some(free) = window.wait() {
        let length = match from.read(&mut buffer[..free.min(LONGEST)]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.unwrap_or(0),
        };
        window.change(|(used, _)| *used += length);
        if line.write(0, length, &buffer[..length]).is_err() || length == 0 {
            return;
        }
    }
}

/// Writes what the line had for a channel. Nobody may read it any more; then it is discarded, as by a closed pipe.
fn pass_on<W: Write>(from: &Receiver<Vec<u8>>, mut to: UnixStream, line: &Line<W>) {
    while let Ok(bytes) = from.recv() {
        if bytes.is_empty() {
            break;
        }
        let _ = to.write_all(&bytes);
        let _ = line.write(TAKEN, bytes.len(), &[]);
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Reads the line to its end.
fn receive(mut from: impl Read, channels: &[Inbound], mut text: impl FnMut(&[u8])) {
    let mut read = || -> io::Result<()> {
        loop {
            let mut byte = [0];
            from.read_exact(&mut byte)?;
            if byte != [START] {
                text(&byte);
                continue;
            }
            let mut header = [0; 3];
            from.read_exact(&mut header)?;
            let [kind, high, low] = header;
            let length = usize::from(u16::from_be_bytes([high, low]));
            // The kernel's messages can destroy a frame; what has an unknown number is none.
            let Some(channel) = channels.get(usize::from(kind & !TAKEN)) else { continue };
            if kind & TAKEN != 0 {
                channel.window.change(|(used, _)| *used = used.saturating_sub(length));
                continue;
            }
            let mut bytes = vec![0; length];
            from.read_exact(&mut bytes)?;
            let _ = channel.sender.send(bytes);
        }
    };
    // Whatever the reason: the line has ended, and with it all channels.
    let _ = read();
    for channel in channels {
        channel.window.change(|(_, has_ended)| *has_ended = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two sides of one channel, and the two ends of the line.
    fn connected(text: impl FnMut(&[u8]) + Send + 'static) -> (UnixStream, UnixStream, [UnixStream; 2]) {
        let (line, other_line) = UnixStream::pair().unwrap();
        let ((near, channel), (far, other_channel)) =
            (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let ends = [line.try_clone().unwrap(), other_line.try_clone().unwrap()];
        connect(line.try_clone().unwrap(), line, vec![channel], |_| {}).unwrap();
        connect(other_line.try_clone().unwrap(), other_line, vec![other_channel], text).unwrap();
        (near, far, ends)
    }

    #[test]
    fn everything_arrives_in_both_directions() {
        let (near, far, _) = connected(|_| {});
        let bytes: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
        thread::scope(|scope| {
            for stream in [&near, &far] {
                let bytes = &bytes;
                scope.spawn(move || {
                    let mut writer = stream;
                    writer.write_all(bytes).unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                });
                scope.spawn(move || {
                    let (mut reader, mut received) = (stream, Vec::new());
                    reader.read_to_end(&mut received).unwrap();
                    assert!(received == *bytes);
                });
            }
        });
    }

    #[test]
    fn what_is_in_no_frame_is_text() {
        let (sender, texts) = channel();
        let (_near, mut far, [line, _]) = connected(move |text| sender.send(text.to_vec()).unwrap());
        for part in
            [&b"[1.0] panic"[..], &[START, 5, 0, 0], b"!", &[START, 0, 0, 2], b"ab", &[START, 0, 0, 0]]
        {
            (&line).write_all(part).unwrap();
        }
        let mut received = String::new();
        far.read_to_string(&mut received).unwrap();
        assert_eq!(received, "ab");
        let text: Vec<u8> = texts.try_iter().flatten().collect();
        assert_eq!(text, b"[1.0] panic!");
    }

    #[test]
    fn no_more_than_the_window_is_on_the_way() {
        let (line, mut other_line) = UnixStream::pair().unwrap();
        let (mut near, channel) = UnixStream::pair().unwrap();
        connect(line.try_clone().unwrap(), line, vec![channel], |_| {}).unwrap();
        near.write_all(&[7; 3 * WINDOW]).unwrap();
        let mut frames = vec![0; WINDOW + WINDOW / LONGEST * 4];
        other_line.read_exact(&mut frames).unwrap();
        other_line.set_nonblocking(true).unwrap();
        assert_eq!(other_line.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        other_line.set_nonblocking(false).unwrap();
        other_line.write_all(&[START, TAKEN, 0, 10]).unwrap();
        let mut frame = [0; 14];
        other_line.read_exact(&mut frame).unwrap();
        assert_eq!(frame[..5], [START, 0, 0, 10, 7]);
    }

    #[test]
    fn the_end_of_the_line_is_that_of_all_channels() {
        let (_near, mut far, [line, _]) = connected(|_| {});
        line.shutdown(Shutdown::Both).unwrap();
        assert_eq!(far.read(&mut [0]).unwrap(), 0);
    }
}
