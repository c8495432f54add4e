//! Pages: what the room still has is given at once, else one aligned read serves all who wait for it. Pure.

use std::sync::Arc;

use sluice_proto::grpc::{ReadReply, RoomPage};
use sluice_proto::ids::{Epoch, RoomId};
use sluice_proto::limits::PAGE_MESSAGES_MAX;

use super::calls::{Asker, PageOf, ReadCall, ReadFor, ReadTarget};
use super::{Home, HomeOutput, PageTo, encode};
use crate::room::link::{Frame, Ms, Page};

impl Home {
    /// A subscription asks for a page.
    pub fn wants_page(&mut self, now: Ms, to: PageTo, ports: &mut impl HomeOutput) {
        if let Some(page) = self.recent(&to) {
            ports.page(to, Some(page));
            return;
        }
        let (room, after, epoch) = (to.room.clone(), to.ask.after, to.ask.epoch);
        let asker = Asker::Connection(to.shard, to.ask.conn);
        let page = if to.ask.shared {
            PageOf::Aligned(room.clone(), epoch, after)
        } else {
            PageOf::Single(room.clone(), epoch, after, to.shard, to.ask.sub)
        };
        // Asked again while it waits it is the same read: given up and queued anew, it would never come.
        if self.pages.join(page.clone(), to) {
            self.reads.push(asker, ReadTarget { room, after, reader: ReadFor::Page(page) });
            self.send(now, ports);
        }
    }

    /// A page without the store, if the room still has it.
    fn recent(&self, to: &PageTo) -> Option<Page> {
        let room = &self.rooms.get(&to.room)?.room;
        let (epoch, frames) = room.recent(to.ask.after, PAGE_MESSAGES_MAX)?;
        let frames: Arc<[Frame]> = frames.cloned().collect();
        // Asked by a view that has not heard of the new history: its hand-over is on the way (B1).
        let usable = epoch == to.ask.epoch && !frames.is_empty();
        usable.then(|| Page { epoch, oldest: to.ask.after + 1, store_head: room.known(), frames })
    }

    /// The reply to [`HomeCall::Read`](super::calls::HomeCall::Read).
    pub fn read(&mut self, now: Ms, asked: ReadCall, reply: Option<ReadReply>, ports: &mut impl HomeOutput) {
        self.reads.done();
        let reply = reply.filter(|reply| reply.pages.len() == asked.0.len());
        let epoch = reply.as_ref().and_then(|reply| Epoch::from_wire(reply.epoch));
        let mut pages = reply.map(|reply| reply.pages.into_iter());
        for range in asked.0 {
            let page = pages.as_mut().and_then(Iterator::next);
            // Logic had no bytes left for it in this reply: it is asked again, behind the others.
            if page.as_ref().is_some_and(|page| page.deferred) {
                self.reads.push(Asker::Room(range.room.clone()), range);
                continue;
            }
            // Without an epoch nobody could say which history it is of: as good as none (B1).
            let page = page.zip(epoch).map(|(page, epoch)| paged(&range.room, epoch, &page));
            self.read_range(now, range, page, ports);
        }
        self.send(now, ports);
    }

    fn read_range(&mut self, now: Ms, range: ReadTarget, page: Option<Page>, ports: &mut impl HomeOutput) {
        let ReadTarget { room, reader, .. } = range;
        let waiters = match reader {
            ReadFor::Room(call) => {
                return self.with_room(now, &room, ports, |entry, out| match &page {
                    Some(page) => entry.room.page(now, call, page, out),
                    None => entry.room.failed(now, call, out),
                });
            }
            ReadFor::Page(page) => self.pages.end(&page),
        };
        // First the room, then those who asked: they may be told of a head that it has to know.
        if let Some(page) = &page {
            self.with_room(now, &room, ports, |entry, out| {
                entry.room.seen(now, page, out);
            });
        }
        for to in waiters {
            ports.page(to, page.clone());
        }
    }
}

fn paged(room: &RoomId, epoch: Epoch, page: &RoomPage) -> Page {
    let frames = page.messages.iter().map(|message| Frame::new(message.seq, encode(room, message)));
    Page { epoch, oldest: page.oldest, store_head: page.head, frames: frames.collect() }
}
