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
pub(crate) struct Port {
    number: u16,
    /// Advisory lock on a file named after the port; the system releases it when the process ends.
    _claim: Flock<File>,
}

impl Port {
    /// Claims a random free port.
    pub(crate) fn claim() -> Result<Self, Error> {
        let folder = std::env::temp_dir().join(format!("sluice-ports-{}", nix::unistd::geteuid()));
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(Error::file("cannot create", &folder))?;
        let mut last = String::from("all tried ports are taken");
        for _ in 0..PORT_TRIES {
            let number = rand::rng().random_range(PORTS);
            let path = folder.join(number.to_string());
            let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
            let file = file.map_err(Error::file("cannot open", &path))?;
            let Ok(claim) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
            match is_free(number) {
                Ok(()) => return Ok(Self { number, _claim: claim }),
                Err(error) => last = error.to_string(),
            }
        }
        Err(Error::NoPort(last))
    }

    pub(crate) fn number(&self) -> u16 {
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
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, ports[0].number())).unwrap();
        assert!(!ports[0].is_free());
        drop(taken);
    }
}
