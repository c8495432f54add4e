//! A client and a connection of it, as plain state.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::comeback::Comeback;

/// A room of a client.
#[derive(Debug)]
pub(super) struct Room {
    pub name: Rc<str>,
    /// The last seq that came or was said to be gone, and its epoch; `None` = never subscribed.
    pub at: Option<(u64, Rc<str>)>,
}

#[derive(Debug)]
pub(super) struct Client {
    pub user: Box<str>,
    pub rooms: Box<[Room]>,
    /// Given to one without a name.
    pub token: Option<Box<str>>,
    /// Which gateway is next.
    pub turn: usize,
    pub comeback: Comeback,
    pub conns: u32,
    /// When it connects next.
    pub due: Option<Instant>,
    /// A connection that is not welcomed yet.
    pub coming: Option<usize>,
    /// The connection that is used.
    pub current: Option<usize>,
    /// To whom that is.
    pub url: Option<Rc<str>>,
    /// The one before, until the current one has all rooms.
    pub former: Option<usize>,
    pub is_live: bool,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Greeting,
    Welcomed,
    Leaving,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub client: usize,
    /// Never used again, as keys are.
    pub serial: u64,
    pub stage: Stage,
    /// From 1, once it is welcomed.
    pub conn: u32,
    /// Where it was made to, among the gateways of then.
    pub url: Rc<str>,
    /// The seq that comes next in each room; 0 = not subscribed yet.
    pub next: Box<[u64]>,
    /// Rooms without an answer.
    pub unanswered: usize,
    /// When to come back, as told.
    pub told: Option<Duration>,
    /// By the last words, which count more than what was said before.
    pub said_bye: bool,
}
