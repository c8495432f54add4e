//! What clients of the model were told, held against what its store holds. Tests only.

use std::collections::HashMap;

use sluice_gateway::rules::Rules;

use super::super::client::{Client, Known};
use super::World;

impl<R: Rules> World<R> {
    /// What was broken, if anything.
    pub(super) fn verdict(mut self) -> Option<String> {
        for client in &self.clients {
            self.broken = self.broken.take().or_else(|| client.broken.clone()).or_else(|| self.check(client));
        }
        self.broken
    }

    /// What one client was told against what the store holds.
    fn check(&self, client: &Client) -> Option<String> {
        let name = client.name.trim_end_matches('+');
        let mut last: HashMap<&str, u64> = HashMap::new();
        for (n, planned) in client.plan.iter().enumerate() {
            let data = format!("[\"{name}\",{n},{}]", planned.poison);
            let log = self.store.get(planned.room).map(Vec::as_slice).unwrap_or_default();
            let at: Vec<_> =
                (1u64..).zip(log).filter(|(_, row)| row.2 == data.as_bytes()).map(|(seq, _)| seq).collect();
            let broken = match planned.known {
                Known::Unsent | Known::Unanswered => Some("stuck"),
                _ if at.len() > 1 => Some("stored twice"),
                Known::Ok(seq) if at != [seq] => Some("phantom ok"),
                Known::Refused if !(at.is_empty() && planned.poison) => Some("refused, but stored or sound"),
                Known::Ok(_) | Known::Refused | Known::Unknown => None,
            };
            if let Some(broken) = broken {
                return Some(format!("{name} {n}: {broken} ({:?}, {at:?})", planned.known));
            }
            let ordered = planned.keyed || matches!(planned.known, Known::Ok(_));
            if let (true, Some(seq)) = (ordered, at.first().copied())
                && last.insert(planned.room, seq).is_some_and(|before| before > seq)
            {
                return Some(format!("{name} {n}: out of order at {seq}"));
            }
        }
        None
    }
}
