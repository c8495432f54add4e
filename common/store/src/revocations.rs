//! Numbers of revocations as tables keep them.

use sluice_proto::ids::UserId;
use sluice_proto::revocation::Revocation;

pub(crate) fn read(name: &str, issued_until: i64, at: i64) -> Result<Revocation, sqlx::Error> {
    let user = UserId::parse(name).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(Revocation { user, issued_until_s: seconds(issued_until)?, position: position(at)? })
}

pub(crate) fn seconds(seconds: i64) -> Result<u32, sqlx::Error> {
    u32::try_from(seconds).map_err(|error| sqlx::Error::Decode(error.into()))
}

pub(crate) fn position(position: i64) -> Result<u64, sqlx::Error> {
    u64::try_from(position).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// A position beyond the tables' numbers is beyond every revocation.
pub(crate) fn signed(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}
