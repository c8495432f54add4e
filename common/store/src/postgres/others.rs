//! Ends every other session of the database, so that whoever goes on reads the epoch anew.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::{Instant, sleep};

use super::failure::dial_error;
use crate::StoreError;

/// A session that works ends at once. One that hangs in the system has heard it, and ends as soon as it runs again.
const END_WITHIN: Duration = Duration::from_secs(8);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Tells all of them before any is waited for: one after the other they would take longer than a statement may. A
/// superuser's sessions cannot be ended by others; they are not ours. By pid and beginning: pids are given away again.
const END: &str = "select pid::text || ' ' || backend_start::text as session, pg_terminate_backend(pid) \
     from pg_stat_activity \
     where datname = current_database() and pid <> pg_backend_pid() \
     and backend_type = 'client backend' and pg_has_role(current_user, usesysid, 'member')";

const LEFT: &str =
    "select count(*) from pg_stat_activity where pid::text || ' ' || backend_start::text = any($1)";

/// How many of them still run after a while.
pub(super) async fn end_others(conn: &mut PgConnection) -> Result<i64, StoreError> {
    let told = sqlx::query_scalar(END).persistent(false).fetch_all(&mut *conn).await;
    let told: Vec<String> = told.map_err(|e| dial_error(&e))?;
    let until = Instant::now() + END_WITHIN;
    loop {
        let left = sqlx::query_scalar(LEFT).persistent(false).bind(&told).fetch_one(&mut *conn).await;
        let left: i64 = left.map_err(|e| dial_error(&e))?;
        if left == 0 || Instant::now() >= until {
            return Ok(left);
        }
        sleep(LOOK).await;
    }
}
