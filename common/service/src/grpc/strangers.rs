//! Connections that have not yet shown what they are: few of one address, so that whoever opens them by the thousand
//! keeps nobody else out. Bounded by the connections there are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use super::STRANGERS_PER_ADDRESS_MAX;

/// How many there are of each address; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Strangers(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// One of them, for as long as it is one.
#[derive(Debug)]
pub(super) struct Stranger {
    all: Strangers,
    from: IpAddr,
}

impl Strangers {
    /// One more of this address; `None`: it has too many.
    pub(super) fn enter(&self, from: IpAddr) -> Option<Stranger> {
        let from = holder(from);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(from).or_default();
        if *count >= STRANGERS_PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Stranger { all: self.clone(), from })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
    }
}

/// Whoever has one address of IPv6 has the 2⁶⁴ around it.
fn holder(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_its_own_bound_and_what_ends_makes_place() {
        let strangers = Strangers::default();
        let mut crowd: Vec<_> =
            (0..STRANGERS_PER_ADDRESS_MAX).map(|_| strangers.enter(ip("10.0.0.1"))).collect();
        assert!(crowd.iter().all(Option::is_some) && strangers.enter(ip("10.0.0.1")).is_none());
        assert!(strangers.enter(ip("::ffff:10.0.0.1")).is_none(), "the same address");
        assert!(strangers.enter(ip("10.0.0.2")).is_some());
        crowd.pop();
        assert!(strangers.enter(ip("10.0.0.1")).is_some());
        crowd.clear();
        assert!(strangers.0.lock().unwrap().is_empty(), "nothing is kept of who left");
    }

    #[test]
    fn a_network_of_ipv6_is_one_holder() {
        assert_eq!(holder(ip("2001:db8:1:2:3:4:5:6")), holder(ip("2001:db8:1:2:ffff::1")));
        assert_ne!(holder(ip("2001:db8:1:2::1")), holder(ip("2001:db8:1:3::1")));
    }
}
