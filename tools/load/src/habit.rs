//! Bad neighbours: clients that stay inside what a server lets them do, or try not to, and do it without measure. Each
//! habit is a small module that says how it connects and what it sends; here is the loop that all of them run in.
//! A habit never looks at what it does to others.

mod churner;
mod creator;
mod fire_and_forget;
mod half_open;
mod history;
mod never_reads;
mod pinger;
mod presence;
mod publisher;
mod tiny;
mod unconnected;

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::destination::Destination;
use crate::driver::{Driver, Ready};
use crate::frame;
use crate::socket::{Gone, Heard};

/// Bytes that wait for one socket before its neighbour is asked for more.
const CHUNK_BYTES: usize = 32 * 1024;
/// Connections under way at once when a habit does not set its own pace.
const CONNECTING_MAX: usize = 256;
/// Before a connection that was ended is made again.
const AGAIN: Duration = Duration::from_millis(100);
/// Receive buffer of who does not read.
const UNREAD_BUFFER_BYTES: usize = 4096;
/// Longest wait of a turn: paces and the end are looked at this often.
const TURN: Duration = Duration::from_millis(2);
/// What a habit needs before it begins is there by then.
const PREPARED_WITHIN: Duration = Duration::from_secs(30);

/// Who gives tokens.
pub type Token<'a> = Box<dyn Fn(&str) -> Option<String> + 'a>;

/// Where a habit is lived out, and with which tokens.
pub struct Target<'a> {
    /// The gateway.
    pub to: Destination,
    /// What names of rooms and users begin with.
    pub tag: String,
    /// Gives a user a token that may read and write everything; `None`: anonymous.
    pub token: Token<'a>,
}

/// How a habit connects.
#[derive(Debug, Clone, Copy)]
struct Profile {
    connections: usize,
    /// New connections a second; `None` = as fast as they are greeted.
    dials_per_s: Option<u32>,
    /// Frames a second over all connections; `None` = as many as the sockets take.
    frames_per_s: Option<u32>,
    first: First,
    /// So many connections read, from the first on; the others read nothing but their `welcome`.
    readers: usize,
    /// Leaves as soon as it has nothing more to say, and comes anew.
    leaves: bool,
}

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// An upgrade with a token; frames follow at once.
    Eager,
    /// The same; frames follow after `welcome`.
    Polite,
    /// An upgrade without a token; frames follow when it is accepted.
    Nameless,
    /// Half a request, and nothing more.
    Half,
}

const PROFILE: Profile = Profile {
    connections: 1,
    dials_per_s: None,
    frames_per_s: None,
    first: First::Polite,
    readers: usize::MAX,
    leaves: false,
};

/// A habit.
trait Behaviour {
    fn profile(&self) -> Profile;

    /// Publishes that must be stored before it begins, as whole frames.
    fn prepare(&mut self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// Appends the next frames of connection `n`, at least one; returns how many, 0 when it has nothing (more) to say.
    fn say(&mut self, n: usize, out: &mut Vec<u8>) -> u32;

    /// Connection `n` begins anew.
    fn begin(&mut self, _n: usize) {}
}

/// A habit by its name.
#[derive(Clone, Copy)]
pub struct Habit {
    /// As on the command line.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    make: fn(&str) -> Box<dyn Behaviour>,
}

impl std::fmt::Debug for Habit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

const fn habit(name: &'static str, about: &'static str, make: fn(&str) -> Box<dyn Behaviour>) -> Habit {
    Habit { name, about, make }
}

/// All of them.
pub const HABITS: &[Habit] = &[
    habit(
        "churner",
        "1 connection subscribes and unsubscribes 60,000 times a second, 128-byte names",
        churner::new,
    ),
    habit("creator", "400 connections subscribe to 1,000 rooms of their own each", creator::new),
    habit(
        "long-names",
        "400 connections subscribe to 500 rooms of their own each, 128-byte names",
        creator::with_long_names,
    ),
    habit("history-unread", "40 connections ask for 8 pages of 1 MiB each and read nothing", history::unread),
    habit("history-reader", "200 connections ask for pages of history as fast as they come", history::reader),
    habit("history-forget", "150 connections/s ask for 8 pages each and leave at once", fire_and_forget::new),
    habit("presence", "200 connections in one room ask who is there, without end", presence::new),
    habit("publisher", "8 connections publish as fast as they are read", publisher::new),
    habit("tiny-frames", "4 connections send the smallest requests as fast as they are read", tiny::new),
    habit("pinger", "4 connections send protocol pings as fast as they are read", pinger::new),
    habit("half-open", "1,000 half handshakes a second, 2,000 held open", half_open::new),
    habit("never-reads", "50 connections subscribe to a busy room, fill it and never read", never_reads::new),
    habit("unconnected", "80 connections that do not say who they are write without end", unconnected::new),
];

/// What a habit did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Connections begun.
    pub dialled: u64,
    /// Of them, ended by the server.
    pub ended: u64,
    /// Frames sent.
    pub frames: u64,
    /// Bytes written.
    pub written: u64,
    /// Text frames read.
    pub heard: u64,
    /// Why the server ended the first one that it ended.
    pub why: Option<String>,
}

/// One connection of a habit.
#[derive(Debug)]
struct Place {
    n: usize,
    /// It may say what it has to say.
    speaks: bool,
    /// It waits in the queue of those whose sockets have room.
    queued: bool,
    /// It has said everything.
    is_done: bool,
}

/// A habit that is lived out.
pub struct Running {
    behaviour: Box<dyn Behaviour>,
    profile: Profile,
    driver: Driver<Place>,
    /// Connections that can be written to.
    hungry: VecDeque<usize>,
    /// Connections to be made: which, and not before.
    due: VecDeque<(usize, Instant)>,
    connecting: usize,
    begun: Instant,
    heard: u64,
    totals: Totals,
}

impl Habit {
    /// The habit of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        HABITS.iter().find(|habit| habit.name == name).copied()
    }

    /// Names and meanings, for a help page.
    #[must_use]
    pub fn explained() -> String {
        HABITS.iter().map(|habit| format!("  {:<18} {}\n", habit.name, habit.about)).collect()
    }

    /// Makes ready: what it needs is stored, nobody is connected.
    ///
    /// # Errors
    /// When the gateway does not take what the habit needs.
    pub fn prepare(self, target: &Target<'_>) -> io::Result<Running> {
        let mut behaviour = (self.make)(&target.tag);
        store(target, &behaviour.prepare())?;
        let (profile, now) = (behaviour.profile(), Instant::now());
        let due = (0..profile.connections).map(|n| (n, now)).collect();
        let (driver, hungry, totals) = (Driver::new()?, VecDeque::new(), Totals::default());
        Ok(Running { behaviour, profile, driver, hungry, due, connecting: 0, begun: now, heard: 0, totals })
    }
}

impl Running {
    /// Until `stop` says so, which is asked at least every 2 ms; then all its connections end at once.
    ///
    /// # Errors
    /// When the system has no sockets left.
    pub fn run(mut self, target: &Target<'_>, mut stop: impl FnMut() -> bool) -> io::Result<Totals> {
        self.begun = Instant::now();
        // From now on: preparing has taken its time.
        self.due.iter_mut().for_each(|(_, at)| *at = self.begun);
        let mut ready = Vec::new();
        while !stop() {
            self.dial(target)?;
            // Without a wait while somebody can write: a habit is only as bad as it is fast.
            let idle = self.hungry.is_empty() || !self.may_speak();
            self.driver.wait(Some(if idle { TURN } else { Duration::ZERO }), &mut ready)?;
            for ready in ready.drain(..) {
                self.attend(ready);
            }
            self.speak();
        }
        self.totals.heard = self.heard;
        Ok(self.totals)
    }

    fn dial(&mut self, target: &Target<'_>) -> io::Result<()> {
        let now = Instant::now();
        while let Some((n, at)) = self.due.front().copied()
            && at <= now
        {
            let may = match self.profile.dials_per_s {
                Some(per_s) => self.totals.dialled < allowance(self.begun, per_s),
                None => self.connecting < CONNECTING_MAX,
            };
            if !may {
                return Ok(());
            }
            self.due.pop_front();
            let user = format!("{}-{n}", target.tag);
            let token = (self.profile.first != First::Nameless).then(|| (target.token)(&user)).flatten();
            let mut first = frame::request(&target.to.host, token.as_deref());
            self.behaviour.begin(n);
            let mut place = Place { n, speaks: false, queued: false, is_done: false };
            match self.profile.first {
                First::Half => first.truncate(first.len() / 2),
                First::Eager => {
                    place.speaks = true;
                    self.totals.frames += u64::from(self.behaviour.say(n, &mut first));
                }
                First::Polite | First::Nameless => self.connecting += 1,
            }
            // who does not read is felt sooner with a small buffer of the system
            let bytes = first.len() as u64;
            let buffer = (n >= self.profile.readers).then_some(UNREAD_BUFFER_BYTES);
            match self.driver.dial_with(&target.to, buffer, first, place) {
                Ok(_) => {
                    self.totals.dialled += 1;
                    self.totals.written += bytes;
                }
                // nobody listens, or all ports wait: a client that closes first leaves them so for a minute
                Err(error) if is_passing(&error) => {
                    self.due.push_back((n, now + AGAIN));
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn attend(&mut self, ready: Ready) {
        let Some((socket, place)) = self.driver.get_mut(ready.key) else { return };
        let spoke = place.speaks;
        let reads = place.n < self.profile.readers || !spoke;
        let (heard, first) = (&mut self.heard, self.profile.first);
        // One that does not read still looks when it has ended, or its place would be lost.
        let outcome = if reads || ready.ended {
            self.driver
                .attend(ready, true, |place, _, heard_now| match heard_now {
                    Heard::Upgraded => place.speaks |= first == First::Nameless,
                    Heard::Answer(..) => {}
                    Heard::Text(_) => {
                        *heard += 1;
                        place.speaks = true;
                    }
                })
                .map(drop)
        } else {
            socket.flush(true).map(|count| self.totals.written += count as u64)
        };
        match outcome {
            Err(gone) => self.gone(ready.key, &gone),
            Ok(()) => {
                if let Some((socket, place)) = self.driver.get_mut(ready.key) {
                    if place.speaks && !spoke {
                        self.connecting = self.connecting.saturating_sub(1);
                    }
                    if place.speaks && socket.is_flushed() && !place.queued {
                        place.queued = true;
                        self.hungry.push_back(ready.key);
                    }
                }
            }
        }
    }

    fn gone(&mut self, key: usize, gone: &Gone) {
        let Some(place) = self.driver.remove(key) else { return };
        // Those were never counted as connecting.
        if !place.speaks && self.profile.first != First::Half {
            self.connecting = self.connecting.saturating_sub(1);
        }
        if !(self.profile.leaves && place.is_done) {
            self.totals.ended += 1;
            self.totals.why.get_or_insert_with(|| gone.to_string());
        }
        let pause = if self.profile.dials_per_s.is_some() { Duration::ZERO } else { AGAIN };
        self.due.push_back((place.n, Instant::now() + pause));
    }

    fn may_speak(&self) -> bool {
        self.profile.frames_per_s.is_none_or(|per_s| self.totals.frames < allowance(self.begun, per_s))
    }

    /// Each connection whose socket has room is asked once.
    fn speak(&mut self) {
        for _ in 0..self.hungry.len() {
            if !self.may_speak() {
                return;
            }
            let Some(key) = self.hungry.pop_front() else { return };
            let Some((socket, place)) = self.driver.get_mut(key) else { continue };
            place.queued = false;
            let mut said = 0;
            while socket.out().len() < CHUNK_BYTES {
                let more = self.behaviour.say(place.n, socket.out());
                said += more;
                if more == 0 || self.profile.frames_per_s.is_some() {
                    break;
                }
            }
            self.totals.frames += u64::from(said);
            // By what it said just now: one that has nothing to say may have something later.
            place.is_done = said == 0;
            match socket.flush(true) {
                Err(gone) => self.gone(key, &gone),
                Ok(count) => {
                    self.totals.written += count as u64;
                    if said > 0 && socket.is_flushed() {
                        place.queued = true;
                        self.hungry.push_back(key);
                    } else if said == 0 && self.profile.leaves {
                        socket.finish();
                        self.gone(key, &Gone::Broken("left".into()));
                    }
                }
            }
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, ConnectionRefused};
    matches!(error.kind(), AddrInUse | AddrNotAvailable | ConnectionRefused)
}

/// How many are due by now.
fn allowance(begun: Instant, per_s: u32) -> u64 {
    (begun.elapsed().as_secs_f64() * f64::from(per_s)) as u64
}

/// Publishes these and waits until each is answered.
fn store(target: &Target<'_>, frames: &[Vec<u8>]) -> io::Result<()> {
    if frames.is_empty() {
        return Ok(());
    }
    let (mut driver, mut ready, mut answers) = (Driver::<()>::new()?, Vec::new(), 0);
    let token = (target.token)(&format!("{}-prepares", target.tag));
    let first = frame::request(&target.to.host, token.as_deref());
    let key = driver.dial_with(&target.to, None, first, ())?;
    let (begun, mut trouble) = (Instant::now(), None);
    while answers < frames.len() {
        driver.wait(Some(TURN), &mut ready)?;
        for ready in ready.drain(..) {
            let outcome = driver.attend(ready, true, |(), out, heard| match heard {
                Heard::Upgraded | Heard::Answer(..) => {}
                Heard::Text(text) if text.starts_with(b"{\"welcome\"") => out.extend(frames.iter().flatten()),
                Heard::Text(text) if text.starts_with(b"{\"ok\":\"pub\"") => answers += 1,
                Heard::Text(text) => trouble = Some(String::from_utf8_lossy(text).into_owned()),
            });
            // What the server said stands before that it closed.
            trouble = outcome.err().map(|gone| gone.to_string()).or(trouble.take());
        }
        if trouble.is_none() && begun.elapsed() > PREPARED_WITHIN {
            trouble = Some(format!("{answers} of {} answers within {PREPARED_WITHIN:?}", frames.len()));
        }
        if let Some(trouble) = trouble {
            return Err(io::Error::other(format!("what the habit needs could not be stored: {trouble}")));
        }
    }
    driver.remove(key);
    Ok(())
}

/// Appends a text frame.
fn text(out: &mut Vec<u8>, text: &str) {
    frame::client_frame(out, frame::TEXT, text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_habit_has_something_to_say_and_a_name_of_its_own() {
        for (n, habit) in HABITS.iter().enumerate() {
            assert!(HABITS[..n].iter().all(|other| other.name != habit.name), "{habit:?} twice");
            let mut behaviour = (habit.make)("t");
            let (profile, mut out) = (behaviour.profile(), Vec::new());
            assert!(profile.connections > 0, "{habit:?}");
            assert_eq!(behaviour.say(0, &mut out) > 0, profile.first != First::Half, "{habit:?}");
        }
        assert!(Habit::named("churner").is_some() && Habit::named("nobody").is_none());
    }

    #[test]
    fn rooms_of_the_churner_have_the_longest_name_there_may_be() {
        let mut out = Vec::new();
        churner::new("t").say(0, &mut out);
        let sub = String::from_utf8_lossy(&out).into_owned();
        let name = sub.split('"').nth(3).unwrap_or_default();
        assert_eq!(name.len(), 128, "{sub}");
    }
}
