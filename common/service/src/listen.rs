//! Listening sockets: bound early so that a taken port is an error of the start, served later.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

/// Connections the kernel may queue for us: every client of a stopped gateway may come within a second.
/// The kernel cuts it to `net.core.somaxconn`, 4096 on Linux since 5.4.
pub const BACKLOG: u32 = 4096;
/// Pause after a failed accept: "too many open files" does not pass faster, and must not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// A bound socket; nothing is accepted before it is served.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// Listens on `address` (`host:port`; port 0 takes a free one).
///
/// # Errors
/// The system's error with the address in its text.
pub async fn bind(address: &str) -> io::Result<Bound> {
    bind_each(address, None).await
}

/// As [`bind`], for clients that may send what is not read for a while: the kernel keeps no more than about twice
/// `receive_bytes` of each.
///
/// # Errors
/// As [`bind`].
pub async fn bind_bounded(address: &str, receive_bytes: u32) -> io::Result<Bound> {
    bind_each(address, Some(receive_bytes)).await
}

async fn bind_each(address: &str, receive_bytes: Option<u32>) -> io::Result<Bound> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    // A name may have several addresses, of which not all are ours.
    for candidate in lookup_host(address).await.map_err(named)? {
        match listen(candidate, receive_bytes) {
            Ok(bound) => return Ok(bound),
            Err(error) => last = error,
        }
    }
    Err(named(last))
}

fn listen(address: SocketAddr, receive_bytes: Option<u32>) -> io::Result<Bound> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for the last process's connections to leave TIME_WAIT.
    socket.set_reuseaddr(true)?;
    if let Some(bytes) = receive_bytes {
        // What is accepted inherits it; without, the kernel lets the buffer of whoever is not read grow to megabytes.
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok(Bound { listener, address })
}

impl Bound {
    /// Where it listens, with the port that was taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection, without delay for small writes. Accept errors are logged and waited out.
    /// Cancel-safe.
    pub async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    // Fails only for a connection that has ended already.
                    if stream.set_nodelay(true).is_ok() {
                        return (stream, from);
                    }
                }
                Err(error) => {
                    tracing::warn!(address = %self.address, %error, "A connection could not be accepted.");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
