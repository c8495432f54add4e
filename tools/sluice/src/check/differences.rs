//! What services of one deployment must have in common, and where they do not. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// With two values of one of these there are two deployments, or promises that only one of them keeps.
const MUST: [&str; 14] = [
    "prefix",
    "redis.url",
    "postgres.url",
    "token_secret",
    "token_keys.jwks_url",
    "token_keys.jwks_allow_http",
    "token_claims.issuer",
    "token_claims.audience",
    "anonymous",
    "anonymous_grants.sub",
    "anonymous_grants.pub",
    "retention.age_s",
    "retention.count",
    "retention.dedupe_min_s",
];

/// Several addresses may lead to the same servers, and services bear different leases.
const SHOULD: [&str; 3] = ["nats.url", "etcd.endpoints", "etcd.lease_ttl_s"];

/// Set by all or by none, to files that may lie anywhere.
const ALIKE: [&str; 1] = ["tls.ca"];

/// The configuration of one service.
#[derive(Debug, Clone)]
pub(super) struct Compared {
    pub(super) name: String,
    /// Keys and values, secrets as numbers.
    pub(super) values: BTreeMap<String, String>,
}

impl Compared {
    /// How long a stop may take.
    pub(super) fn total(&self) -> Option<Duration> {
        Some(Duration::from_millis(self.values.get("shutdown.total_ms")?.parse().ok()?))
    }
}

/// A key that has several values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    key: &'static str,
    /// Each value, and whose it is.
    values: BTreeMap<String, Vec<String>>,
    /// It can be meant.
    pub(super) is_allowed: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<String> =
            self.values.iter().map(|(value, names)| format!("{value} for {}", names.join(", "))).collect();
        let what =
            if self.is_allowed { "do both lead to the same place?" } else { "must be the same everywhere" };
        write!(f, "{} differs, {what}: {}", self.key, values.join("; "))
    }
}

pub(super) fn differences(all: &[Compared]) -> Vec<Difference> {
    let of = |key: &'static str, is_allowed: bool, shown: fn(&str) -> &str| {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for compared in all {
            // A service that does not have a key cannot disagree about it.
            if let Some(value) = compared.values.get(key) {
                values.entry(shown(value).to_owned()).or_default().push(compared.name.clone());
            }
        }
        (values.len() > 1).then_some(Difference { key, values, is_allowed })
    };
    let must = MUST.iter().filter_map(|key| of(key, false, |value| value));
    let alike = ALIKE.iter().filter_map(|key| of(key, false, is_set));
    must.chain(alike).chain(SHOULD.iter().filter_map(|key| of(key, true, |value| value))).collect()
}

fn is_set(value: &str) -> &str {
    if value == "\"\"" { "not set" } else { "set" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(name: &str, values: &[(&str, &str)]) -> Compared {
        let values = values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Compared { name: name.to_owned(), values }
    }

    #[test]
    fn what_differs_is_named_with_all_values() {
        let gateway =
            compared("gateway", &[("prefix", "\"a\""), ("retention.dedupe_min_s", "3600"), ("listen", "1")]);
        let logic = compared(
            "logic",
            &[("prefix", "\"a\""), ("retention.dedupe_min_s", "7200"), ("nats.url", "\"n\"")],
        );
        let task = compared("task", &[("prefix", "\"b\""), ("nats.url", "\"m\""), ("listen", "2")]);
        let found = differences(&[gateway.clone(), logic, task]);
        let said: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "prefix differs, must be the same everywhere: \"a\" for gateway, logic; \"b\" for task",
                "retention.dedupe_min_s differs, must be the same everywhere: 3600 for gateway; 7200 for logic",
                "nats.url differs, do both lead to the same place?: \"m\" for task; \"n\" for logic",
            ]
        );
        assert_eq!(found.iter().filter(|difference| difference.is_allowed).count(), 1);
        assert_eq!(differences(&[gateway.clone(), gateway]), []);
    }

    #[test]
    fn certificates_may_lie_anywhere_but_not_nowhere() {
        let (one, other) =
            (compared("a", &[("tls.ca", "\"a.pem\"")]), compared("b", &[("tls.ca", "\"b.pem\"")]));
        assert_eq!(differences(&[one.clone(), other]), []);
        let found = differences(&[one, compared("c", &[("tls.ca", "\"\"")])]);
        assert_eq!(
            found.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["tls.ca differs, must be the same everywhere: not set for c; set for a"]
        );
    }
}
