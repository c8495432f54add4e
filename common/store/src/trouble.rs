//! What keeps a store from storing, in the words of whoever has to mend it: a label for metrics, and the fix.

use crate::StoreError;

/// Why a group or a probe was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The server takes no writes.
    ReadOnly,
    /// No space is left.
    Full,
    /// The role lacks a right.
    Denied,
    /// The server has no connection left.
    Connections,
    /// Somebody else holds a lock for too long.
    Locked,
    /// Nobody answers at the address.
    Unreachable,
    /// The answer did not come: stored or not.
    Unanswered,
    /// The server must not be used like this.
    Misconfigured,
    /// Anything else.
    Other,
}

impl Trouble {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::ReadOnly,
        Self::Full,
        Self::Denied,
        Self::Connections,
        Self::Locked,
        Self::Unreachable,
        Self::Unanswered,
        Self::Misconfigured,
        Self::Other,
    ];

    /// As a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::Full => "full",
            Self::Denied => "denied",
            Self::Connections => "connections",
            Self::Locked => "locked",
            Self::Unreachable => "unreachable",
            Self::Unanswered => "unanswered",
            Self::Misconfigured => "misconfigured",
            Self::Other => "other",
        }
    }

    /// What an operator can do about it, where that is known.
    #[must_use]
    pub const fn fix(self) -> Option<&'static str> {
        match self {
            Self::ReadOnly => Some("point postgres.url at the primary, or end default_transaction_read_only"),
            Self::Full => Some("free space on the disk of the store, or make it larger"),
            Self::Denied => Some("give the role of postgres.url its rights back: it should own the schema"),
            Self::Connections => Some(
                "raise max_connections of PostgreSQL, lower postgres.lane_connections, or end other sessions",
            ),
            Self::Locked => Some("end the session that holds the lock: pg_blocking_pids() names it"),
            Self::Unreachable | Self::Unanswered | Self::Misconfigured | Self::Other => None,
        }
    }

    /// A commit that finds no space may be there all the same; who said so put its code last, in parentheses.
    fn of_lost_answer(said: &str) -> Self {
        let code = said.rsplit_once('(').and_then(|(_, code)| code.strip_suffix(')'));
        code.map(Self::of_code).filter(|trouble| *trouble == Self::Full).unwrap_or(Self::Unanswered)
    }

    /// Of an SQLSTATE, or of a primary result code of SQLite.
    fn of_code(code: &str) -> Self {
        match code {
            "25006" | "8" => Self::ReadOnly,
            "53100" | "13" => Self::Full,
            "42501" | "28000" | "28P01" => Self::Denied,
            "53300" => Self::Connections,
            "55P03" | "40P01" | "5" => Self::Locked,
            _ => Self::Other,
        }
    }
}

impl StoreError {
    /// What kept the store from storing.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Unreachable(_) => Trouble::Unreachable,
            Self::Misconfigured(_) => Trouble::Misconfigured,
            Self::RolledBack { sqlstate, .. } | Self::Poison { sqlstate, .. } => Trouble::of_code(sqlstate),
            Self::Unknown(said) => Trouble::of_lost_answer(said),
            Self::TooLate | Self::Closed => Trouble::Other,
        }
    }

    /// The error with what can be done about it.
    #[must_use]
    pub fn with_fix(&self) -> String {
        match self.trouble().fix() {
            Some(fix) => format!("{self}; {fix}"),
            None => self.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_found_no_space_names_the_fix_although_it_may_be_there() {
        let trouble = |said: &str| StoreError::Unknown(said.to_owned()).trouble();
        for said in ["database or disk is full (13)", "could not extend file (53100)"] {
            assert_eq!(trouble(said), Trouble::Full, "{said}");
        }
        for said in ["connection reset", "terminating connection (57P01)", "(13) and more", "(13"] {
            assert_eq!(trouble(said), Trouble::Unanswered, "{said}");
        }
    }

    #[test]
    fn what_an_operator_can_mend_is_named() {
        let error =
            |code: &str| StoreError::RolledBack { sqlstate: code.to_owned(), message: "no".to_owned() };
        for (code, trouble) in [
            ("25006", Trouble::ReadOnly),
            ("53100", Trouble::Full),
            ("42501", Trouble::Denied),
            ("53300", Trouble::Connections),
            ("55P03", Trouble::Locked),
        ] {
            let error = error(code);
            assert_eq!(error.trouble(), trouble);
            assert!(error.with_fix().contains("no; "), "{}", error.with_fix());
        }
        assert_eq!(error("57P01").with_fix(), "the store refused (57P01): no");
        for (at, trouble) in Trouble::ALL.into_iter().enumerate() {
            assert_eq!(trouble as usize, at, "{}", trouble.as_str());
        }
    }
}
