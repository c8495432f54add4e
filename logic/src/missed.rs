//! Whether a client would notice that this logic is killed, and how: `safe_to_kill` of `/status`. Pure.

/// What a kill would touch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct InHand {
    /// Connected gateways, and connections that may be one.
    pub gateways: usize,
    /// Publishes not answered yet.
    pub publishes: u64,
    /// Committed groups that NATS has not taken yet.
    pub notices: u64,
    /// Other logics that serve.
    pub others: usize,
}

/// What clients would notice; `Ok` when nothing.
pub(crate) fn by_clients(hand: InHand) -> Result<(), String> {
    match hand {
        InHand { publishes: 1.., .. } => {
            Err(format!("make {} publishes wait for another try", hand.publishes))
        }
        // Nobody asks for heads before the next look: the sweep announces what was not handed over.
        InHand { notices: 1.., .. } => {
            Err(format!("make the messages of {} groups reach other gateways a second late", hand.notices))
        }
        // Whoever is not connected is not served by this one, and loses nothing with it.
        InHand { gateways: 0, .. } | InHand { others: 1.., .. } => Ok(()),
        InHand { .. } => {
            Err("leave gateways without a logic: their clients wait until one starts".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_would_notice_is_said() {
        let idle = InHand::default();
        let only = InHand { gateways: 2, ..idle };
        let beside = InHand { others: 1, ..only };
        assert_eq!(by_clients(idle), Ok(()), "nobody is served");
        assert_eq!(by_clients(beside), Ok(()), "another one serves, nothing is in hand");
        for (hand, would) in [
            (only, "without a logic"),
            (InHand { publishes: 3, ..beside }, "3 publishes wait"),
            (InHand { notices: 2, ..beside }, "2 groups"),
            (InHand { publishes: 1, ..idle }, "1 publishes wait"),
        ] {
            assert!(by_clients(hand).is_err_and(|why| why.contains(would)), "{hand:?}");
        }
    }
}
