//! The network of QEMU's user mode: one interface with fixed addresses.
#![expect(unsafe_code, reason = "ioctls without a safe wrapper")]

use std::io;
use std::mem::zeroed;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use fs_err as fs;
use nix::errno::Errno;
use nix::libc::{self, ifreq, rtentry, sockaddr, sockaddr_in};

use crate::port;

// Of QEMU's `-netdev user`.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// The kernel's name of the first network device.
const DEVICE: &str = "eth0";

/// Starts the loopback interface and, if the machine has a network, its device; writes what the C library reads.
pub(crate) fn configure(has_device: bool, hostname: &str) -> Result<()> {
    // Any socket reaches the interfaces.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot open a socket")?;
    start(&socket, "lo").context("cannot start the loopback interface")?;
    let mut hosts =
        format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n");
    if has_device {
        port::wait_for_network(DEVICE)?;
        connect(&socket).context("cannot start the network")?;
        hosts = hosts.replace("127.0.1.1", &ADDRESS.to_string());
        write("/etc/resolv.conf", &format!("nameserver {NAME_SERVER}\n"))?;
    }
    write("/etc/hosts", &hosts)?;
    write("/etc/hostname", &format!("{hostname}\n"))
}

/// Replaces a file; the image may have a link to one of another machine.
fn write(path: &str, text: &str) -> Result<()> {
    fs::create_dir_all("/etc")?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Ok(fs::write(path, text)?)
}

fn connect(socket: &UdpSocket) -> Result<()> {
    for (request, address) in [(libc::SIOCSIFADDR, ADDRESS), (libc::SIOCSIFNETMASK, MASK)] {
        let mut device = named(DEVICE);
        device.ifr_ifru.ifru_addr = socket_address(address);
        interface(socket, request, &mut device).with_context(|| format!("cannot set {address}"))?;
    }
    start(socket, DEVICE)?;
    // SAFETY: it has numbers and null pointers only, for which zeros are valid.
    let mut route: rtentry = unsafe { zeroed() };
    route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = socket_address(GATEWAY);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: the kernel reads one `rtentry`.
    let added = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, &raw const route) };
    Errno::result(added).context("cannot add the default route")?;
    Ok(())
}

fn start(socket: &UdpSocket, name: &str) -> Result<()> {
    let mut device = named(name);
    interface(socket, libc::SIOCGIFFLAGS, &mut device)?;
    // SAFETY: the kernel has just written the flags.
    let flags = unsafe { device.ifr_ifru.ifru_flags };
    device.ifr_ifru.ifru_flags = flags | libc::IFF_UP as i16;
    interface(socket, libc::SIOCSIFFLAGS, &mut device)
}

fn interface(socket: &UdpSocket, request: libc::c_ulong, device: &mut ifreq) -> Result<()> {
    // SAFETY: the kernel reads and writes one `ifreq`.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), request as _, &raw mut *device) })?;
    Ok(())
}

fn named(name: &str) -> ifreq {
    // SAFETY: it has numbers and null pointers only, for which zeros are valid.
    let mut device: ifreq = unsafe { zeroed() };
    for (to, from) in device.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    device
}

fn socket_address(address: Ipv4Addr) -> sockaddr {
    // SAFETY: it has numbers only.
    let mut filled: sockaddr_in = unsafe { zeroed() };
    filled.sin_family = libc::AF_INET as libc::sa_family_t;
    filled.sin_addr.s_addr = u32::from_ne_bytes(address.octets());
    // SAFETY: both have the same size, and a `sockaddr` is valid with any bytes.
    unsafe { std::mem::transmute::<sockaddr_in, sockaddr>(filled) }
}
