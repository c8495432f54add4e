//! A store in one file copied into a database, for the day a deployment outgrows one process: rooms, messages with their
//! keys, what is owed, what waits for its time, revocations, and the epoch, so that every position a client remembers
//! stays good.
//!
//! All or nothing: one transaction of the database, which is compared with the file before it commits. The file is only
//! read, and is locked meanwhile: what a process published into it during the copy would be missing.

use std::path::Path;
use std::time::Duration;

use sluice_proto::ids::Epoch;

use crate::StoreError;
use crate::postgres::PgAccess;
use crate::postgres::copy_in::Target;
use crate::sqlite::copy_out::Source;

/// Messages read and written at a time: 32 MiB of the largest ones.
const PAGE: u32 = 500;
/// For each answer of the database: a page of the largest messages over a line of 2 Mbit/s.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// Rooms and other rows at a time, which are small.
const SMALL_PAGE: u32 = 5_000;

/// How many of everything a store holds: a row of the same names on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, sqlx::FromRow)]
pub struct Counts {
    /// Rooms that were ever published to.
    pub rooms: i64,
    /// The sum of all heads.
    pub positions: i64,
    /// Messages kept.
    pub messages: i64,
    /// Bytes of their data.
    pub bytes: i64,
    /// Delayed messages, those that were cancelled included.
    pub scheduled: i64,
    /// Rows of what is owed to subscribers.
    pub owed: i64,
    /// Users whose tokens are revoked.
    pub revocations: i64,
    /// The place of the last revocation.
    pub revocation_place: i64,
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyProgress {
    /// Messages copied.
    pub messages: i64,
    /// Of so many.
    pub of: i64,
}

/// A copy that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// The epoch of both.
    pub epoch: Epoch,
    /// What was found in the database, as it is in the file.
    pub counts: Counts,
    /// Sessions of others that were told to end and still run: they know another epoch until they do.
    pub sessions_left: i64,
}

pub(crate) struct CopiedRoom {
    pub(crate) room: String,
    pub(crate) head: i64,
}

pub(crate) struct CopiedMessage {
    /// Order of storing in the file.
    pub(crate) id: i64,
    pub(crate) room: String,
    pub(crate) seq: i64,
    pub(crate) sender: String,
    pub(crate) key: String,
    pub(crate) hash: Vec<u8>,
    pub(crate) at_ms: i64,
    pub(crate) data: Vec<u8>,
}

pub(crate) struct CopiedDelayed {
    pub(crate) id: i64,
    pub(crate) due_ms: i64,
    pub(crate) part: i64,
    pub(crate) room: String,
    pub(crate) sender: String,
    pub(crate) key: String,
    pub(crate) hash: Vec<u8>,
    pub(crate) data: Vec<u8>,
    pub(crate) cancelled_ms: Option<i64>,
    /// Of the key by which it came.
    pub(crate) api_key: Option<String>,
}

pub(crate) struct CopiedNote {
    pub(crate) id: i64,
    pub(crate) at_ms: i64,
    pub(crate) rooms: Vec<String>,
    pub(crate) firsts: Vec<i64>,
    pub(crate) lasts: Vec<i64>,
}

pub(crate) struct CopiedRevocation {
    pub(crate) name: String,
    pub(crate) issued_until: i64,
    pub(crate) place: i64,
}

/// Copies the store in `file`, which no process may use, into the database, which must be empty. Sessions of others there
/// are ended after it, so that whoever runs reads the epoch anew. Each answer of the database may take `within`, usually
/// [`ANSWER_WITHIN`]; the migration before it has a bound of its own.
///
/// # Errors
/// [`StoreError::Misconfigured`]: the file is in use or none, or the database is not empty; the text names the fix. After
/// [`StoreError::Unknown`] the copy may have been made: another one is refused then. After any other nothing was changed.
pub async fn copy(
    file: &Path,
    to: &PgAccess,
    within: Duration,
    mut progress: impl FnMut(CopyProgress),
) -> Result<Copied, StoreError> {
    let mut source = Source::open(file).await?;
    let expected = source.counts().await?;
    let mut target = Target::begin(to, within).await?;
    target.check_clock(source.newest_ms().await?).await?;
    let mut done = CopyProgress { messages: 0, of: expected.messages };
    progress(done);
    let mut room = String::new();
    loop {
        let rooms = source.rooms(&room, SMALL_PAGE).await?;
        let Some(last) = rooms.last() else { break };
        room.clone_from(&last.room);
        target.rooms(&rooms).await?;
    }
    let mut id = 0;
    loop {
        let messages = source.messages(id, PAGE).await?;
        let Some(last) = messages.last() else { break };
        id = last.id;
        target.messages(&messages).await?;
        done.messages += i64::try_from(messages.len()).unwrap_or(i64::MAX);
        progress(done);
    }
    small_tables(&mut source, &mut target).await?;
    let counts = target.counts(expected.messages).await?;
    if counts != expected {
        return Err(StoreError::Unreachable(format!(
            "the database would hold {counts:?}, the file holds {expected:?}: nothing was copied"
        )));
    }
    let (epoch, sessions_left) = target.commit(source.epoch()).await?;
    source.close().await;
    Ok(Copied { epoch, counts, sessions_left })
}

async fn small_tables(source: &mut Source, target: &mut Target) -> Result<(), StoreError> {
    let mut id = 0;
    loop {
        let delayed = source.delayed(id, PAGE).await?;
        let Some(last) = delayed.last() else { break };
        id = last.id;
        target.delayed(&delayed).await?;
    }
    let mut id = 0;
    loop {
        let notes = source.notes(id, PAGE).await?;
        let Some(last) = notes.last() else { break };
        id = last.id;
        target.notes(&notes).await?;
    }
    let mut place = 0;
    loop {
        let revocations = source.revocations(place, SMALL_PAGE).await?;
        let Some(last) = revocations.last() else { break };
        place = last.place;
        target.revocations(&revocations).await?;
    }
    target.revocation_place(source.revocation_place().await?).await
}
