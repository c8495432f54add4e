//! Bytes of a connection, encrypted or not. Never waits: what the socket does not take stays with whoever writes, or in
//! the session of TLS until it is flushed.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use rustls::{ClientConnection, StreamOwned};

use crate::destination::Tls;

/// A stream that connects, or has.
#[derive(Debug)]
pub(crate) enum Transport {
    /// As it is.
    Plain(TcpStream),
    /// Boxed: a crowd that does not encrypt pays nothing for it.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Transport {
    /// # Errors
    /// When TLS cannot be begun with this configuration.
    pub(crate) fn new(stream: TcpStream, tls: Option<&Tls>) -> io::Result<Self> {
        let Some(tls) = tls else { return Ok(Self::Plain(stream)) };
        let session =
            ClientConnection::new(tls.config.clone(), tls.name.clone()).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(session, stream))))
    }

    /// Whether a read of less than was asked for has emptied the socket: a record of TLS says nothing of the next one.
    pub(crate) fn is_emptied_by_short_reads(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Whether bytes that were taken wait for the socket.
    pub(crate) fn holds_bytes(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.conn.wants_write(),
        }
    }

    /// Ends our half of the connection.
    pub(crate) fn finish(&self) {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        };
        stream.shutdown(Shutdown::Write).ok(); // one that broke shows at the next read
    }
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
