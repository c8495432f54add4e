//! Statements that are wrong on purpose, for the drill's own proof. Only with the feature `seeded-bugs`; never part
//! of a migration.

use super::access::PgAccess;
use super::servers::Servers;
use super::session::simple;
use crate::StoreError;

/// `publish_v2` that looks for duplicates before it locks the heads (hazard A1).
pub const LOOKUP_BEFORE_LOCK: &str = include_str!("../../migrations/seeded/lookup_before_lock.sql");
/// `publish_v2` that does not look for duplicates, and no constraint that would.
pub const NO_UNIQUE_KEY: &str = include_str!("../../migrations/seeded/no_unique_key.sql");
/// `fire_due_v2` that publishes each message a second time, under another key.
pub const FIRES_TWICE: &str = include_str!("../../migrations/seeded/fires_twice.sql");

/// Runs one of them. Harmless when repeated; not when the database is needed again.
///
/// # Errors
/// Two logics did it at once, or the server was not reached: run it again.
pub async fn replace(access: &PgAccess, sql: &'static str) -> Result<(), StoreError> {
    let mut conn = Servers::new(access)?.open().await?;
    simple(&mut conn, sql).await
}
