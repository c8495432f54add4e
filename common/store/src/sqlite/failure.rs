//! From what SQLite says to [`StoreError`]: was anything stored?
//!
//! Whatever fails before COMMIT is rolled back, that is certain: the transaction ends with its connection at
//! the latest. What COMMIT itself answers badly (a full disk, a failed sync) may still be found in the log
//! when the file is opened again: unknown.

use crate::StoreError;

/// Primary result codes, the lowest byte of an extended one.
const BUSY: i32 = 5;
const READONLY: i32 = 8;
const CORRUPT: i32 = 11;
const CANTOPEN: i32 = 14;
const TOOBIG: i32 = 18;
const CONSTRAINT: i32 = 19;
const MISMATCH: i32 = 20;
const NOTADB: i32 = 26;
/// Extended: a value that has to be unique is there. Our rules make it impossible, so it is a bug, never the sender's.
const UNIQUE: [i32; 3] = [1555, 2067, 2579];

/// A transaction that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: sqlx::Error,
    /// COMMIT had been sent.
    pub(super) committing: bool,
    /// It was rolled back and said so: the connection is as good as before.
    pub(super) undone: bool,
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self { error, committing: false, undone: false }
    }
}

impl Failure {
    /// An item is to blame, without it the rest could be stored.
    pub(super) fn of_an_item(&self) -> bool {
        self.undone && code_of(&self.error).is_some_and(|code| is_content(code & 0xff))
    }
}

impl From<Failure> for StoreError {
    fn from(Failure { error, committing, .. }: Failure) -> Self {
        match code_of(&error) {
            // Whatever fails before COMMIT ends with the transaction, at the latest when the
            // connection closes.
            Some(code) if !committing => classify(code, error.to_string()),
            Some(code) => Self::Unknown(format!("{error} ({code})")),
            None => Self::Unknown(error.to_string()),
        }
    }
}

/// A failure to open or prepare a connection; it has not carried a caller's statement yet.
pub(super) fn dial_error(error: &sqlx::Error) -> StoreError {
    match code_of(error).and_then(|code| fix_of(code & 0xff)) {
        Some(fix) => StoreError::Misconfigured(format!("{error}; {fix}")),
        None => StoreError::Unreachable(error.to_string()),
    }
}

fn code_of(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).and_then(|code| code.parse().ok())
}

fn is_content(primary: i32) -> bool {
    [CONSTRAINT, TOOBIG, MISMATCH].contains(&primary)
}

/// What an operator must do.
fn fix_of(primary: i32) -> Option<&'static str> {
    match primary {
        READONLY => Some("make the file of sqlite.path and its folder writable"),
        CANTOPEN => Some("make the folder of sqlite.path, or correct the path"),
        NOTADB => Some("the file of sqlite.path is not a database: use another path, or move it away"),
        CORRUPT => {
            Some("the file is damaged: restore a copy of it, then run `sluice store new-epoch --dir FOLDER`")
        }
        _ => None,
    }
}

/// For a transaction that was certainly rolled back. The code takes the place of an SQLSTATE.
fn classify(code: i32, message: String) -> StoreError {
    let sqlstate = code.to_string();
    match code & 0xff {
        // Never answered as a duplicate: what is stored under the key was not compared.
        CONSTRAINT if UNIQUE.contains(&code) => {
            tracing::error!(
                alarm = true,
                said = message,
                "ALARM: the store met a key or position twice, which its rules make impossible"
            );
            StoreError::Unknown(message)
        }
        primary if is_content(primary) => StoreError::Poison { sqlstate, message },
        BUSY => StoreError::RolledBack {
            sqlstate,
            message: format!("{message}; another program holds a lock on the file, end it"),
        },
        primary => match fix_of(primary) {
            Some(fix) => {
                tracing::error!(alarm = true, said = message, fix, "ALARM: the store's file cannot be used");
                StoreError::Misconfigured(format!("{message}; {fix}"))
            }
            None => StoreError::RolledBack { sqlstate, message },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;

    #[test]
    fn classes_follow_the_code() {
        let class = |code| classify(code, String::new()).class();
        for poison in [275, 1299, 1811, 3091, 18, 20] {
            assert_eq!(class(poison), Class::Reject, "{poison}");
        }
        // Busy, out of memory, an I/O error, a full disk, a damaged file: all rolled back.
        for retry in [5, 517, 7, 10, 778, 13, 11, 8] {
            assert_eq!(class(retry), Class::Retry, "{retry}");
        }
        for bug in UNIQUE {
            assert_eq!(class(bug), Class::Unknown, "{bug}");
        }
    }

    #[test]
    fn what_ends_a_commit_or_a_worker_is_unknown() {
        for committing in [false, true] {
            let failure = Failure { committing, ..sqlx::Error::WorkerCrashed.into() };
            assert_eq!(StoreError::from(failure).class(), Class::Unknown);
        }
    }
}
