//! What a connection has that reads server-sent events: what it asked for, and whether it is to be told its position.
//! State only; the shard acts, in `events`.

use crate::handshake::EventRequest;

/// What a connection has that reads events.
#[derive(Debug)]
pub struct EventStream {
    /// Until it is known who asks, and may read it.
    request: Option<Box<EventRequest>>,
    /// It reads several rooms: where it stands is told apart from messages.
    several: bool,
    /// Something was appended since it was told where it stands.
    owes_id: bool,
}

impl EventStream {
    /// A request that has no answer yet.
    #[must_use]
    pub fn new(request: EventRequest) -> Self {
        let several = request.rooms.len() > 1;
        Self { request: Some(Box::new(request)), several, owes_id: false }
    }

    /// What it asked for, until that is answered.
    #[must_use]
    pub fn request(&self) -> Option<&EventRequest> {
        self.request.as_deref()
    }

    /// The same, to answer it now.
    pub const fn take_request(&mut self) -> Option<Box<EventRequest>> {
        self.request.take()
    }

    /// Whether the head of its answer was written: no frame may stand before it.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        self.request.is_none()
    }

    /// Whether it reads several rooms. Then it is to be told where it stands, after what was just appended.
    pub const fn reads_several(&mut self) -> bool {
        self.owes_id |= self.several;
        self.several
    }

    /// Whether it reads several rooms and is to be told where it stands.
    #[must_use]
    pub const fn owes_id(&self) -> bool {
        self.owes_id
    }

    /// What it was not told is not to be told any more.
    pub const fn forget_id(&mut self) {
        self.owes_id = false;
    }
}
