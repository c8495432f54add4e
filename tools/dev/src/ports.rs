//! Who listens where: the ports of last time, the usual ones, else free ones. They stay ours while a service restarts.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};

use sluice_launcher::Port;

use crate::error::Error;

/// What was chosen, and what there is to say about it.
pub(crate) struct Ports {
    host: IpAddr,
    by_name: BTreeMap<String, u16>,
    /// Nobody else of ours chooses these while they are held.
    held: Vec<Port>,
    /// One sentence for each port that is not the expected one.
    pub(crate) notes: Vec<String>,
}

impl Ports {
    pub(crate) fn new(host: IpAddr, remembered: BTreeMap<String, u16>) -> Self {
        Self { host, by_name: remembered, held: Vec::new(), notes: Vec::new() }
    }

    /// The port that was asked for, or none; 0 asks for a free one, as for every other listener.
    pub(crate) fn fix(&mut self, name: &str, port: u16) -> Result<SocketAddr, Error> {
        if port == 0 {
            self.by_name.remove(name);
            return self.choose(name, 0);
        }
        if !self.take(port)? {
            return Err(Error::PortTaken(port));
        }
        // Whoever had it before takes another.
        self.by_name.retain(|_, other| *other != port);
        Ok(self.is_at(name, port))
    }

    /// The port of last time, else `usual` (0: none), else a free one.
    pub(crate) fn choose(&mut self, name: &str, usual: u16) -> Result<SocketAddr, Error> {
        let expected = self.by_name.get(name).copied().unwrap_or(usual);
        let others = self.by_name.iter().any(|(other, port)| other != name && *port == expected);
        // The port of last time: pages and clients that are open find their gateway again.
        if expected != 0 && !others && self.take(expected)? {
            return Ok(self.is_at(name, expected));
        }
        let port = Port::claim()?;
        let number = port.number();
        self.held.push(port);
        if expected != 0 {
            self.notes.push(format!("port {expected} is taken: {name} is at {number} instead"));
        }
        Ok(self.is_at(name, number))
    }

    pub(crate) fn by_name(&self) -> &BTreeMap<String, u16> {
        &self.by_name
    }

    fn is_at(&mut self, name: &str, port: u16) -> SocketAddr {
        self.by_name.insert(name.to_owned(), port);
        SocketAddr::new(self.host, port)
    }

    /// Whether it is ours now. Binds and lets go; the standard library sets `SO_REUSEADDR`, as our listeners do.
    fn take(&mut self, port: u16) -> Result<bool, Error> {
        // Somebody may listen without a claim of ours; a claim says only that none of ours does.
        if TcpListener::bind((self.host, port)).is_err() {
            return Ok(false);
        }
        let claimed = Port::at(port)?;
        let is_ours = claimed.is_some();
        self.held.extend(claimed);
        Ok(is_ours)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn ports(remembered: &[(&str, u16)]) -> Ports {
        let remembered = remembered.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect();
        Ports::new(Ipv4Addr::LOCALHOST.into(), remembered)
    }

    #[test]
    fn a_taken_port_is_replaced_and_said_or_refused() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let number = taken.local_addr().unwrap().port();
        let mut fresh = ports(&[]);
        assert_ne!(fresh.choose("gateway-1", number).unwrap().port(), number);
        assert!(fresh.notes[0].contains(&format!("port {number} is taken")), "{:?}", fresh.notes);
        assert!(matches!(fresh.fix("gateway-1", number), Err(Error::PortTaken(_))));
        assert_ne!(fresh.fix("gateway-1", 0).unwrap().port(), 0, "clients are told where it listens");
        drop(taken);
        assert_eq!(fresh.fix("gateway-1", number).unwrap().port(), number);
    }

    #[test]
    fn last_time_wins_over_the_usual_and_nobody_gets_a_port_twice() {
        let free = Port::claim().unwrap().number();
        let mut first = ports(&[("page", free)]);
        assert_eq!(first.choose("page", 1).unwrap().port(), free);
        let other = first.choose("gateway-1", free).unwrap().port();
        assert_ne!(other, free);
        assert_ne!(
            ports(&[("page", free)]).choose("page", 1).unwrap().port(),
            free,
            "while the first has it"
        );
        let remembered = first.by_name().clone();
        drop(first);
        let mut again = Ports::new(Ipv4Addr::LOCALHOST.into(), remembered);
        assert_eq!(again.choose("gateway-1", 0).unwrap().port(), other);
    }
}
