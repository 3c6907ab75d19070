//! Many connections over one port of a machine: those to a socket of the machine, such as that of a container engine.
//!
//! A virtio-serial port is a single stream. It carries frames, each of a header of eight bytes and up to [`LONGEST`] bytes:
//! the kind, a zero, the length (16 bits) and the connection's number (32 bits), little-endian. The host opens connections.
//! Each side sends at most [`WINDOW`] bytes of a connection before the other one has passed them on, so that a slow
//! connection stops no other one, and memory is limited.
//!
//! What a guest sends is untrusted: more bytes than that, or a frame of an unknown kind, end all connections.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::os::unix::net::UnixStream;
//!
//! use qus_core::connections::{Connections, serve};
//!
//! let (host, guest) = UnixStream::pair()?;
//! std::thread::spawn(move || {
//!     serve(guest.try_clone()?, guest, || {
//!         let (ours, mut service) = UnixStream::pair()?;
//!         service.write_all(b"hello")?;
//!         Ok(ours)
//!     })
//! });
//! let connections = Connections::start(host.try_clone()?, host, 0);
//! let (mut client, end) = UnixStream::pair()?;
//! connections.open(end)?;
//! let mut text = String::new();
//! client.read_to_string(&mut text)?;
//! assert_eq!(text, "hello");
//! # Ok::<(), std::io::Error>(())
//! ```

mod connection;

use std::collections::HashMap;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread;

use connection::{Connection, lock};

/// The maximum number of bytes of one direction of a connection that are on their way.
pub const WINDOW: usize = 256 << 10;

/// The maximum number of bytes in a frame, which Linux writes at once to a port.
pub const LONGEST: usize = (32 << 10) - 8;

// Kinds of frames.
const OPEN: u8 = 0;
const DATA: u8 = 1;
/// The sender has no more data.
const END: u8 = 2;
/// The sender has passed on as many bytes as the frame's four bytes say.
const CREDIT: u8 = 3;
/// The sender neither sends nor passes on any more.
const RESET: u8 = 4;

/// The host's side of all connections.
pub struct Connections {
    port: Arc<Port>,
    next: AtomicU32,
}

impl Connections {
    /// Uses a port, which is read up to its end by a thread. Connections are numbered from `first`: a machine that starts
    /// from a snapshot may know older ones.
    pub fn start(from: impl Read + Send + 'static, to: impl Write + Send + 'static, first: u32) -> Self {
        let port = Port::new(to);
        let reader = port.clone();
        thread::spawn(move || reader.receive(from, None));
        Self { port, next: first.into() }
    }

    /// Connects a socket to the machine's. If that cannot be done, the socket is closed.
    ///
    /// # Errors
    /// The machine has ended.
    pub fn open(&self, socket: UnixStream) -> io::Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (connection, received) = self.port.add(number);
        self.port.send(OPEN, number, &[])?;
        let port = self.port.clone();
        thread::spawn(move || port.relay(number, &connection, received, socket));
        Ok(())
    }
}

/// The guest's side: answers each connection with one of `connect`, up to the port's end.
///
/// # Errors
/// The port cannot be read, or has something else than frames.
pub fn serve(
    from: impl Read,
    to: impl Write + Send + 'static,
    connect: impl Fn() -> io::Result<UnixStream> + Send + Sync + 'static,
) -> io::Result<()> {
    Port::new(to).receive(from, Some(Arc::new(connect)))
}

type Connect = Arc<dyn Fn() -> io::Result<UnixStream> + Send + Sync>;

/// A port and its connections.
struct Port {
    to: Mutex<Box<dyn Write + Send>>,
    open: Mutex<HashMap<u32, Arc<Connection>>>,
}

impl Port {
    fn new(to: impl Write + Send + 'static) -> Arc<Self> {
        Arc::new(Self { to: Mutex::new(Box::new(to)), open: Mutex::default() })
    }

    fn add(&self, number: u32) -> (Arc<Connection>, Receiver<Vec<u8>>) {
        let (connection, received) = Connection::new(WINDOW);
        let connection = Arc::new(connection);
        lock(&self.open).insert(number, connection.clone());
        (connection, received)
    }

    fn send(&self, kind: u8, number: u32, bytes: &[u8]) -> io::Result<()> {
        let length = u16::try_from(bytes.len()).map_err(|_| ErrorKind::InvalidInput)?;
        let [low, high] = length.to_le_bytes();
        let mut frame = vec![kind, 0, low, high];
        frame.extend(number.to_le_bytes());
        frame.extend(bytes);
        let mut to = lock(&self.to);
        to.write_all(&frame)?;
        to.flush()
    }

    /// Reads frames to the end, after which no connection is open.
    fn receive(self: &Arc<Self>, from: impl Read, connect: Option<Connect>) -> io::Result<()> {
        let ended = self.receive_frames(BufReader::with_capacity(WINDOW, from), connect);
        for connection in lock(&self.open).values() {
            connection.reset();
        }
        ended
    }

    fn receive_frames(self: &Arc<Self>, mut from: impl Read, connect: Option<Connect>) -> io::Result<()> {
        let unexpected = |what: String| Err(io::Error::new(ErrorKind::InvalidData, what));
        loop {
            let mut header = [0; 8];
            match from.read_exact(&mut header) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                read => read?,
            }
            let [kind, _, low, high, number @ ..] = header;
            let number = u32::from_le_bytes(number);
            let mut bytes = vec![0; u16::from_le_bytes([low, high]).into()];
            from.read_exact(&mut bytes)?;
            if let (OPEN, Some(connect)) = (kind, &connect) {
                self.answer(number, connect.clone());
                continue;
            }
            // The last frames of a connection may cross on their way.
            let connection = lock(&self.open).get(&number).cloned();
            match (kind, connection) {
                (DATA | END | CREDIT | RESET, None) => {}
                (RESET, Some(connection)) => connection.reset(),
                (CREDIT, Some(connection)) => match <[u8; 4]>::try_from(&*bytes) {
                    Ok(count) => connection.add_credit(u32::from_le_bytes(count)),
                    Err(_) => return unexpected(format!("a credit of {} bytes", bytes.len())),
                },
                (DATA, Some(connection)) if !bytes.is_empty() => {
                    let length = bytes.len();
                    if connection.pending.fetch_add(length, Ordering::SeqCst) + length > WINDOW {
                        return unexpected(format!("more than {WINDOW} bytes of a connection"));
                    }
                    if let Some(received) = &lock(&connection.state).received {
                        // It fails when they cannot be passed on, which RESET reports to the other side.
                        let _ = received.send(bytes);
                    }
                }
                (END, Some(connection)) => {
                    if let Some(received) = lock(&connection.state).received.take() {
                        let _ = received.send(Vec::new());
                    }
                }
                (kind, _) => return unexpected(format!("a frame of the unexpected kind {kind}")),
            }
        }
    }

    /// Answers a new connection, in a thread because connecting may take a while.
    fn answer(self: &Arc<Self>, number: u32, connect: Connect) {
        let (connection, received) = self.add(number);
        let port = self.clone();
        thread::spawn(move || match connect() {
            Ok(socket) => port.relay(number, &connection, received, socket),
            Err(_) => {
                let _ = port.send(RESET, number, &[]);
                lock(&port.open).remove(&number);
            }
        });
    }

    /// Relays a connection until both directions have ended.
    fn relay(
        self: &Arc<Self>,
        number: u32,
        connection: &Arc<Connection>,
        received: Receiver<Vec<u8>>,
        socket: UnixStream,
    ) {
        let relay = || -> io::Result<()> {
            let (to, other) = (socket.try_clone()?, socket.try_clone()?);
            if !connection.uses(other) {
                return Ok(());
            }
            let (port, shared) = (self.clone(), connection.clone());
            let writer = thread::spawn(move || {
                if port.pass_on(number, &shared, &received, to).is_err() {
                    let _ = port.send(RESET, number, &[]);
                    shared.reset();
                }
            });
            let sent = self.send_all(number, connection, &socket);
            if sent.is_err() {
                let _ = self.send(RESET, number, &[]);
                connection.reset();
            }
            let _ = writer.join();
            sent
        };
        let _ = relay();
        lock(&self.open).remove(&number);
    }

    /// Sends what a socket receives.
    fn send_all(&self, number: u32, connection: &Connection, mut socket: &UnixStream) -> io::Result<()> {
        let mut buffer = vec![0; LONGEST];
        while let Some(credit) = connection.credit() {
            match socket.read(&mut buffer[..credit.min(LONGEST)]) {
                Ok(0) => return self.send(END, number, &[]),
                Ok(length) => {
                    lock(&connection.state).credit -= length;
                    self.send(DATA, number, &buffer[..length])?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes to a socket what the other side has sent.
    fn pass_on(
        &self,
        number: u32,
        connection: &Connection,
        received: &Receiver<Vec<u8>>,
        mut to: UnixStream,
    ) -> io::Result<()> {
        for bytes in received {
            if bytes.is_empty() {
                // The other end may be closed already.
                let _ = to.shutdown(Shutdown::Write);
                return Ok(());
            }
            to.write_all(&bytes)?;
            connection.pending.fetch_sub(bytes.len(), Ordering::SeqCst);
            self.send(CREDIT, number, &(bytes.len() as u32).to_le_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections to a service that gets the other end of each.
    fn connected(service: impl Fn(UnixStream) + Send + Sync + Clone + 'static) -> Connections {
        let (host, guest) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            serve(guest.try_clone().unwrap(), guest, move || {
                let (ours, theirs) = UnixStream::pair()?;
                let service = service.clone();
                thread::spawn(move || service(theirs));
                Ok(ours)
            })
        });
        Connections::start(host.try_clone().unwrap(), host, 7)
    }

    fn open(connections: &Connections) -> UnixStream {
        let (client, end) = UnixStream::pair().unwrap();
        connections.open(end).unwrap();
        client
    }

    fn wait_until_closed(connections: &Connections) {
        while !lock(&connections.port.open).is_empty() {
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn many_connections_carry_all_bytes_and_their_ends() {
        let connections = connected(|mut socket| {
            let mut all = Vec::new();
            // Only the end of what the client sends is answered.
            socket.read_to_end(&mut all).unwrap();
            socket.write_all(&all).unwrap();
        });
        thread::scope(|scope| {
            for seed in 0..20_u8 {
                let connections = &connections;
                scope.spawn(move || {
                    let sent: Vec<u8> =
                        (0..WINDOW * 5 + 13).map(|index| (index as u8).wrapping_mul(seed)).collect();
                    let mut client = open(connections);
                    client.write_all(&sent).unwrap();
                    client.shutdown(Shutdown::Write).unwrap();
                    let mut answer = Vec::new();
                    client.read_to_end(&mut answer).unwrap();
                    assert!(answer == sent, "connection {seed}");
                });
            }
        });
        wait_until_closed(&connections);
    }

    #[test]
    fn a_connection_that_nobody_reads_stops_no_other_one() {
        let connections = connected(|mut socket| {
            let mut kind = [0];
            socket.read_exact(&mut kind).unwrap();
            let count = if kind == *b"l" { WINDOW * 20 } else { 3 };
            let _ = socket.write_all(&vec![b'x'; count]);
        });
        let mut blocked = open(&connections);
        blocked.write_all(b"l").unwrap();
        for _ in 0..3 {
            let (mut client, mut answer) = (open(&connections), String::new());
            client.write_all(b"s").unwrap();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "xxx");
        }
        // The service's next write fails.
        drop(blocked);
        wait_until_closed(&connections);
    }

    #[test]
    fn a_refused_connection_is_closed() {
        let (host, guest) = UnixStream::pair().unwrap();
        thread::spawn(|| serve(guest.try_clone()?, guest, || Err(ErrorKind::ConnectionRefused.into())));
        let connections = Connections::start(host.try_clone().unwrap(), host, 0);
        assert_eq!(open(&connections).read_to_end(&mut Vec::new()).unwrap(), 0);
        wait_until_closed(&connections);
    }

    /// Receives what a guest has sent while the connection 5 is open.
    fn received(bytes: &[u8]) -> io::Result<()> {
        let port = Port::new(io::sink());
        let _connection = port.add(5);
        port.receive(bytes, None)
    }

    #[test]
    fn arbitrary_frames_never_panic() {
        arbtest::arbtest(|u| {
            let mut bytes = Vec::new();
            while !u.is_empty() {
                let (kind, number, contents) = (u.int_in_range(0..=5)?, u.int_in_range(4..=5)?, u.bytes(2)?);
                bytes.extend([kind, 0, contents[0] % 8, 0, number, 0, 0, 0].iter().chain(contents));
            }
            let _ = received(&bytes);
            Ok(())
        });
    }

    #[test]
    fn what_is_no_frame_ends_all_connections() {
        let error = |bytes: &[u8]| received(bytes).map_err(|error| error.to_string());
        let frame = |kind, number: u8, length: usize| {
            let [low, high] = u16::try_from(length).unwrap().to_le_bytes();
            let mut frame = vec![kind, 0, low, high, number, 0, 0, 0];
            frame.resize(8 + length, 1);
            frame
        };
        assert_eq!(error(&[]), Ok(()));
        assert_eq!(error(&frame(DATA, 9, 3)), Ok(()), "a closed connection");
        assert_eq!(error(&frame(DATA, 5, 0)).unwrap_err(), "a frame of the unexpected kind 1");
        assert_eq!(error(&frame(OPEN, 9, 0)).unwrap_err(), "a frame of the unexpected kind 0");
        assert_eq!(error(&frame(77, 5, 0)).unwrap_err(), "a frame of the unexpected kind 77");
        assert_eq!(error(&frame(CREDIT, 5, 3)).unwrap_err(), "a credit of 3 bytes");
        assert!(error(&frame(DATA, 5, 3)[..9]).is_err(), "an incomplete frame");
        let many = frame(DATA, 5, LONGEST).repeat(WINDOW / LONGEST);
        assert_eq!(error(&many), Ok(()));
        let more = [many, frame(DATA, 5, LONGEST)].concat();
        assert_eq!(error(&more).unwrap_err(), format!("more than {WINDOW} bytes of a connection"));
    }
}
