//! What one user, one address and all clients together may do. A rate is a bucket of tokens that refills; who is above
//! it is not refused what was sent, but not read until the bucket allows it. Only handshakes are refused, as waiting
//! for them would hold sockets.
//!
//! The tables are asked when a client comes and when it is identified. What it sends after that is charged to its own
//! [`Usage`], without a lock.

pub mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice_proto::ids::UserId;
use sluice_service::bucket::{Bucket, Micros, Rate};
use tokio::time::Instant;

use self::table::{Seat, Share, Usage, UsageTable, page_size};
use crate::config::{Limits, PartyLimits};
use crate::defaults::{
    BURST_S, CROWD_BURST_S, HISTORY_BURST_S, OPENED_ROOMS_BURST_S, PUBLISHES_BURST_MS, QUESTIONS_BURST_MS,
    RETRY_AFTER_S, RETRY_AFTER_S_MAX,
};

/// What is charged to a client after its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// A publish was read.
    Publish,
    /// A `sub` was read.
    Subscribe,
    /// A publish was the first of its room.
    NewRoom,
    /// A `history` or `presence` was read.
    Question,
}

/// Label of the metric for whoever opened rooms that nobody else here is in.
pub const OPENED_ROOM: &str = "opened_room";
/// Label of the metric for frames that no user's rate is for.
pub const OTHER_FRAME: &str = "other_frame";

impl Charge {
    /// Label of the metric.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::NewRoom => "new_room",
            Self::Question => "question",
        }
    }
}

/// Why a handshake is refused, and after how many seconds it may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// All clients together are too many at once.
    Crowd(u64),
    /// The address has as many connections as it may have.
    AddressFull(u64),
    /// The address begins too many.
    AddressRate(u64),
}

/// A user has too many connections, or begins too many: come back after so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany(pub Duration);

/// The rates of a user or address.
#[derive(Debug, Clone, Copy)]
pub struct PartyRates {
    connections_max: u32,
    handshakes: Rate,
    publishes: Rate,
    subscribes: Rate,
    new_rooms: Rate,
    questions: Rate,
    page_bytes_max: u32,
    /// 0 = no limit.
    page_bytes_per_s: u32,
}

/// The most bytes of pages that a limit can say: beyond it their sum would not fit where it is kept.
const PAGE_BYTES_MAX: usize = 1 << 31;
/// What the bytes of pages that may come at once are worth.
const PAGES_BURST: Micros = HISTORY_BURST_S * 1_000_000;

impl PartyRates {
    fn new(limits: &PartyLimits) -> Self {
        let rate = |per_s| Rate::new(per_s, BURST_S);
        Self {
            connections_max: limits.connections,
            handshakes: rate(limits.handshakes_per_s),
            publishes: Rate::with_burst_ms(limits.publishes_per_s, PUBLISHES_BURST_MS),
            subscribes: rate(limits.subscribes_per_s),
            new_rooms: rate(limits.new_rooms_per_s),
            questions: Rate::with_burst_ms(limits.questions_per_s, QUESTIONS_BURST_MS),
            page_bytes_max: page_size(limits.history_bytes.min(PAGE_BYTES_MAX)),
            page_bytes_per_s: limits.history_bytes_per_s,
        }
    }

    /// Whether more pages of history may come now.
    fn has_pages_left(&self, seat: &Seat, now: Micros) -> bool {
        self.page_bytes_per_s == 0 || seat.pages().has_any(PAGES_BURST, now)
    }

    fn charge_page(&self, seat: Option<&Seat>, bytes: usize, now: Micros) {
        let cost = (bytes as Micros).saturating_mul(1_000_000).checked_div(self.page_bytes_per_s.into());
        if let (Some(seat), Some(cost)) = (seat, cost) {
            seat.pages().spend(cost, now);
        }
    }

    fn of(&self, charge: Charge) -> Rate {
        match charge {
            Charge::Publish => self.publishes,
            Charge::Subscribe => self.subscribes,
            Charge::NewRoom => self.new_rooms,
            Charge::Question => self.questions,
        }
    }

    fn has_room(&self, usage: &Usage) -> bool {
        self.connections_max == 0 || usage.connections() < self.connections_max
    }
}

/// The limits of a gateway and what is used of them.
#[derive(Debug)]
pub struct Usages {
    began: Instant,
    all: Rate,
    /// [`Self::all`] as configured; 0 = no limit.
    handshakes_per_s: u32,
    handshakes: Bucket,
    /// Handshakes let in since the start.
    entered: AtomicU64,
    /// Whoever was refused comes back at this rate: the queue of a crowd, without the crowd.
    returns: Bucket,
    /// Rooms opened by all clients.
    opened_rooms: (Rate, Bucket),
    /// Frames of one connection that nothing else is charged for.
    other_frames: Rate,
    user: PartyRates,
    address: PartyRates,
    users: UsageTable<UserId>,
    addresses: UsageTable<IpAddr>,
}

impl Usages {
    /// Nothing is used yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            began: Instant::now(),
            all: Rate::new(limits.handshakes_per_s, CROWD_BURST_S),
            handshakes_per_s: limits.handshakes_per_s,
            handshakes: Bucket::default(),
            entered: AtomicU64::new(0),
            returns: Bucket::default(),
            opened_rooms: (Rate::new(limits.opened_rooms_per_s, OPENED_ROOMS_BURST_S), Bucket::default()),
            other_frames: Rate::new(limits.connection.other_frames_per_s, BURST_S),
            user: PartyRates::new(&limits.user),
            address: PartyRates::new(&limits.address),
            users: UsageTable::default(),
            addresses: UsageTable::default(),
        }
    }

    fn now(&self) -> Micros {
        let elapsed = Instant::now().saturating_duration_since(self.began);
        Micros::try_from(elapsed.as_micros()).unwrap_or(Micros::MAX)
    }

    /// A client from this address asks for a connection. Its own address is judged first, so that one who asks too often
    /// takes nothing from what all others have.
    ///
    /// # Errors
    /// [`Refused`] says by what, and when to come back.
    pub fn enter(&self, from: Option<IpAddr>) -> Result<Option<Seat>, Refused> {
        let now = self.now();
        let seat = from.map(|from| self.addresses.seat(from, now, |usage| self.judge_address(usage, now)));
        let seat = seat.transpose()?;
        if self.handshakes.take(self.all, now).is_ok() {
            self.entered.fetch_add(1, Ordering::Relaxed);
            return Ok(seat);
        }
        // Each is sent to the end of the queue of those who were refused before.
        let wait = self.returns.charge(Rate { burst: 0, ..self.all }, now);
        Err(Refused::Crowd(seconds(wait)))
    }

    fn judge_address(&self, usage: &Usage, now: Micros) -> Result<(), Refused> {
        // Before a token is taken: a full address would use up its rate by asking.
        if !self.address.has_room(usage) {
            return Err(Refused::AddressFull(RETRY_AFTER_S));
        }
        let taken = usage.handshakes.take(self.address.handshakes, now);
        taken.map_err(|wait| Refused::AddressRate(seconds(wait)))
    }

    /// A client turned out to be this user.
    ///
    /// # Errors
    /// [`TooMany`] of them.
    pub fn identify(&self, user: &UserId) -> Result<Seat, TooMany> {
        let now = self.now();
        self.users.seat(user.clone(), now, |usage| {
            if !self.user.has_room(usage) {
                return Err(TooMany(Duration::from_secs(RETRY_AFTER_S)));
            }
            let taken = usage.handshakes.take(self.user.handshakes, now);
            taken.map_err(|wait| TooMany(Duration::from_micros(wait)))
        })
    }

    /// Whether a user has a connection here.
    #[must_use]
    pub fn is_here(&self, user: &UserId) -> bool {
        self.users.connections(user) > 0
    }

    /// A client did this: how long it is not read now.
    #[must_use]
    pub fn charge(&self, user: Option<&Seat>, address: Option<&Seat>, charge: Charge) -> Duration {
        let now = self.now();
        // The longer wait of both: who is many users behind one address, or one at many, is held by either.
        let of = |seat: Option<&Seat>, rates: &PartyRates| {
            seat.map_or(0, |seat| seat.bucket(charge).charge(rates.of(charge), now))
        };
        Duration::from_micros(of(user, &self.user).max(of(address, &self.address)))
    }

    /// A client subscribed to a room that nobody else here is in: how long it is not read now.
    ///
    /// All clients share one rate, and by the time it is behind each user waits from its own last room on. Who opens
    /// rooms all the time opens one in that time, as do all others like it; who seldom opens one waits for nobody. What
    /// is behind grows until those that open all the time open as many together as the rate allows.
    #[must_use]
    pub fn opened_room(&self, user: Option<&Seat>) -> Duration {
        let now = self.now();
        let (rate, bucket) = &self.opened_rooms;
        let behind = bucket.charge(*rate, now);
        Duration::from_micros(user.map_or(behind, |user| user.space(behind, now)))
    }

    /// A frame came that costs an answer and that no rate of a user is for: how long its connection is not read now.
    #[must_use]
    pub fn other_frame(&self, frames: &Bucket) -> Duration {
        Duration::from_micros(frames.charge(self.other_frames, self.now()))
    }

    /// Handshakes let in since the start.
    #[must_use]
    pub fn entered(&self) -> u64 {
        self.entered.load(Ordering::Relaxed)
    }

    /// How many more could come each second while `entered` came within `within`; `None` = there is no limit.
    #[must_use]
    pub fn handshakes_left_per_s(&self, entered: u64, within: Duration) -> Option<u32> {
        let limit = Some(self.handshakes_per_s).filter(|limit| *limit > 0)?;
        let per_s = u128::from(entered) * 1_000_000 / within.as_micros().max(1);
        Some(limit.saturating_sub(u32::try_from(per_s).unwrap_or(u32::MAX)))
    }

    /// A page of history of at most so many bytes may come for a client of this user and address. `None` = one of them
    /// has too much of them unread, or had too many of late.
    #[must_use]
    pub fn reserve(&self, (user, address): (Option<&Seat>, Option<&Seat>), bytes: usize) -> Option<Share> {
        let now = self.now();
        let of = |seat: Option<&Seat>, rates: &PartyRates| match seat {
            Some(seat) if !rates.has_pages_left(seat, now) => None,
            Some(seat) => seat.reserve(page_size(bytes), rates.page_bytes_max).map(Some),
            None => Some(None),
        };
        Some(Share { user: of(user, &self.user)?, address: of(address, &self.address)? })
    }

    /// A page of history of so many bytes came for a client of this user and address.
    pub fn charge_page(&self, (user, address): (Option<&Seat>, Option<&Seat>), bytes: usize) {
        let now = self.now();
        self.user.charge_page(user, bytes, now);
        self.address.charge_page(address, bytes, now);
    }

    /// Users and addresses that are remembered.
    #[must_use]
    pub fn known(&self) -> (usize, usize) {
        (self.users.len(), self.addresses.len())
    }
}

/// Whole seconds, for `Retry-After`.
fn seconds(wait: Micros) -> u64 {
    wait.div_ceil(1_000_000).clamp(1, RETRY_AFTER_S_MAX)
}
