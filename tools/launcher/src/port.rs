//! Ports that stay ours while their server is down. Never a port of the kernel's own range: an outgoing connection
//! of anybody could take it before the server is back.

use std::fs::{DirBuilder, File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use nix::fcntl::{Flock, FlockArg};
use rand::RngExt;

use crate::defaults::{PORT_TRIES, PORTS};
use crate::error::Error;

/// A loopback port that no other cluster on this machine will choose while this value lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Advisory lock on a file named after the port; the system releases it when the process ends.
    _claim: Flock<File>,
}

impl Port {
    /// Claims a random free port.
    ///
    /// # Errors
    /// When none is free.
    pub fn claim() -> Result<Self, Error> {
        for _ in 0..PORT_TRIES {
            if let Some(port) = Self::at(rand::rng().random_range(PORTS))? {
                return Ok(port);
            }
        }
        Err(Error::NoPort(format!("{PORT_TRIES} tried ports are taken")))
    }

    /// Claims this very port; `None` when it is taken or another claims it.
    ///
    /// # Errors
    /// When claims cannot be written down.
    pub fn at(number: u16) -> Result<Option<Self>, Error> {
        // For this user: another's files could not be locked.
        let folder = std::env::temp_dir().join(format!("sluice-ports-{}", nix::unistd::geteuid()));
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(Error::file("cannot create", &folder))?;
        let path = folder.join(number.to_string());
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(Error::file("cannot open", &path))?;
        let claim = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        // Claimed, then looked at: the other way round two could see it free and both take it.
        Ok(claim.ok().filter(|_| is_free(number).is_ok()).map(|claim| Self { number, _claim: claim }))
    }

    /// The port.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Whether a server could bind it now.
    pub(crate) fn is_free(&self) -> bool {
        is_free(self.number).is_ok()
    }
}

/// Binds and lets go. The standard library sets `SO_REUSEADDR`, as servers do: only a listener is in the way.
fn is_free(number: u16) -> std::io::Result<()> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, number)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claimed_ports_differ_and_are_free() {
        let ports: Vec<Port> = (0..50).map(|_| Port::claim().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
        assert!(ports.iter().all(Port::is_free));
        let number = ports[0].number();
        assert!(Port::at(number).unwrap().is_none(), "claimed already");
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).unwrap();
        assert!(!ports[0].is_free());
        drop((taken, ports));
        assert!(Port::at(number).unwrap().is_some());
    }
}
