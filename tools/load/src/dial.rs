//! Beginning a connection: from many source addresses of the loopback, so that a machine's ports are enough for a
//! crowd, and with as many files as the system lets a process open. It waits for nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};

use mio::net::TcpStream;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

/// Source addresses in turn, 127.0.0.2 and on: each has 28,000 ports.
const SOURCES: usize = 16;

/// Begins a connection, from the source address whose turn it is.
///
/// # Errors
/// When the system has no socket or no port left.
pub fn dial(address: SocketAddr, turn: usize, receive_buffer: Option<usize>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?; // before the handshake, which tells the other side
    }
    if let IpAddr::V4(ip) = address.ip()
        && ip.is_loopback()
    {
        let last = u8::try_from(2 + turn % SOURCES).unwrap_or(2);
        socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into())?;
    }
    // Under way is as good as done here: the poll tells the rest.
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// Allows this process as many open files as the system lets it.
///
/// # Errors
/// When the system does not answer.
pub fn raise_file_limit() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}
