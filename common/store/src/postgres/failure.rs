//! From what the driver and the server say to [`StoreError`]: was anything stored?
//!
//! A statement that ends in an ERROR before its `CommandComplete` was rolled back, that is certain: we run
//! one statement per transaction, and the commit begins after `CommandComplete`. All else is unknown.

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::access::tls_fix;
use crate::StoreError;

/// SQLSTATE that `publish_v2` raises past `not_after`.
const TOO_LATE: &str = "SLU01";
/// SQLSTATE of a statement that ran in a session which is not its connection's alone (`own_session_v1`).
const SHARED_SESSION: &str = "SLU03";
/// What an operator must do then.
pub(super) const OWN_SESSION: &str =
    "let nothing share sessions between logic and PostgreSQL (PgBouncer: pool_mode = session)";
/// Unique violation. The functions make it impossible, so it is a bug, never the sender's fault.
const UNIQUE_VIOLATION: &str = "23505";

/// A statement that failed on an open connection.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: sqlx::Error,
    /// `CommandComplete` had arrived: the commit may have happened.
    pub(super) completed: bool,
}

impl From<Failure> for StoreError {
    fn from(Failure { error, completed }: Failure) -> Self {
        let Some(server) = error.as_database_error().and_then(|e| e.try_downcast_ref::<PgDatabaseError>())
        else {
            return Self::Unknown(said(&error));
        };
        // The commit begins after `CommandComplete`: from there on the statement may be stored.
        if completed || !rolls_back(server.severity()) {
            return Self::Unknown(format!("{} ({})", server.message(), server.code()));
        }
        let (sqlstate, message) = (server.code().to_owned(), words(server));
        classify(sqlstate, message)
    }
}

/// A failure to connect, or of a connection that has not carried a caller's statement yet.
pub(super) fn dial_error(error: &sqlx::Error) -> StoreError {
    let Some(server) = error.as_database_error() else {
        let said = said(error);
        // Tried again all the same: certificates are renewed while services run.
        return StoreError::Unreachable(match tls_fix(&said) {
            Some(fix) => format!("{said}; {fix}"),
            None => said,
        });
    };
    let code = server.code().unwrap_or_default();
    match fix_of(&code).or_else(|| pooler_fix(&code, server.message())) {
        Some(fix) => StoreError::Misconfigured(format!("{}; {fix}", server.message())),
        None => StoreError::RolledBack { sqlstate: code.into_owned(), message: server.message().to_owned() },
    }
}

/// The words of the server or of the system, without those the driver puts before them.
#[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum; what is not named speaks for itself")]
fn said(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(server) => server.message().to_owned(),
        sqlx::Error::Io(system) => system.to_string(),
        _ => error.to_string(),
    }
}

/// What an operator must do before a connection can succeed.
fn fix_of(sqlstate: &str) -> Option<&'static str> {
    match sqlstate {
        "28000" | "28P01" => {
            Some("check the user of postgres.url and its password (postgres.password_file), and pg_hba.conf")
        }
        "3D000" => Some("create the database, or correct its name in postgres.url"),
        "42P01" | "42883" => Some("the schema is missing: start logic once, which makes it"),
        "42501" => Some("grant the role of postgres.url ownership of the database's schema"),
        _ => None,
    }
}

/// The same where something stands between that hands sessions around, or takes no parameter it does not know.
fn pooler_fix(sqlstate: &str, said: &str) -> Option<&'static str> {
    match sqlstate {
        code if is_shared_session(code, said) => Some(OWN_SESSION),
        // A pooler says everything with this code; the rest may pass by itself.
        "08P01" if said.contains("startup parameter") => Some(
            "let the pooler pass over what the driver asks for (PgBouncer: ignore_startup_parameters = extra_float_digits)",
        ),
        _ => None,
    }
}

/// Also statements that were prepared in another session, are there already, or are somebody else's.
fn is_shared_session(sqlstate: &str, said: &str) -> bool {
    let is_foreign = || sqlstate == "08P01" && said.starts_with("bind message supplies");
    [SHARED_SESSION, "42P05", "26000"].contains(&sqlstate) || is_foreign()
}

fn rolls_back(severity: PgSeverity) -> bool {
    match severity {
        PgSeverity::Error => true,
        // The session died with it: a termination can also arrive while the commit waits for a standby.
        PgSeverity::Panic
        | PgSeverity::Fatal
        | PgSeverity::Warning
        | PgSeverity::Notice
        | PgSeverity::Debug
        | PgSeverity::Info
        | PgSeverity::Log => false,
    }
}

fn words(server: &PgDatabaseError) -> String {
    match server.detail() {
        Some(detail) => format!("{}: {detail}", server.message()),
        None => server.message().to_owned(),
    }
}

/// For a statement that was certainly rolled back.
fn classify(sqlstate: String, message: String) -> StoreError {
    match sqlstate.as_str() {
        TOO_LATE => StoreError::TooLate,
        // Never answered as a duplicate: what is stored under the key was not compared.
        UNIQUE_VIOLATION => {
            tracing::error!(
                alarm = true,
                said = message,
                "ALARM: the store met a key or position twice, which its rules make impossible"
            );
            StoreError::Unknown(message)
        }
        code if is_shared_session(code, &message) => {
            StoreError::Misconfigured(format!("{message}; {OWN_SESSION}"))
        }
        code if ["22", "23", "54"].contains(&&code[..2.min(code.len())]) => {
            StoreError::Poison { sqlstate, message }
        }
        _ => StoreError::RolledBack { sqlstate, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;

    #[test]
    fn classes_follow_the_sqlstate() {
        let class = |code: &str| classify(code.to_owned(), String::new()).class();
        for poison in ["22021", "22P02", "23502", "23514", "54000"] {
            assert_eq!(class(poison), Class::Reject, "{poison}");
        }
        for retry in ["40001", "40P01", "55P03", "57014", "53100", "53200", "25006", "42883"] {
            assert_eq!(class(retry), Class::Retry, "{retry}");
        }
        assert_eq!(class("23505"), Class::Unknown);
        assert_eq!(class("SLU01"), Class::TooLate);
        for shared in ["SLU03", "42P05", "26000"] {
            let error = classify(shared.to_owned(), "met".to_owned());
            assert!(matches!(error, StoreError::Misconfigured(why) if why.contains("pool_mode = session")));
        }
    }

    #[test]
    fn what_a_pooler_breaks_names_its_setting() {
        let fix = |code, said| pooler_fix(code, said).unwrap_or_default();
        assert!(
            fix("42P05", "prepared statement \"sqlx_s_1\" already exists").contains("pool_mode = session")
        );
        let foreign = "bind message supplies 0 parameters, but prepared statement \"\" requires 1";
        assert!(fix("08P01", foreign).contains("pool_mode = session"));
        assert!(fix("08P01", "unsupported startup parameter: extra_float_digits").contains("ignore_startup"));
        assert_eq!(fix("08P01", "query_wait_timeout"), "", "it may pass");
    }

    #[test]
    fn a_broken_connection_is_unknown() {
        for completed in [false, true] {
            let error = sqlx::Error::Io(std::io::ErrorKind::UnexpectedEof.into());
            assert_eq!(StoreError::from(Failure { error, completed }).class(), Class::Unknown);
        }
    }

    #[test]
    fn a_connection_that_was_not_made_stored_nothing() {
        let error = sqlx::Error::Io(std::io::ErrorKind::ConnectionRefused.into());
        assert!(dial_error(&error).definitely_not_stored());
    }
}
