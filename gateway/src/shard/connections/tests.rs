//! Whose turn it is, and what the system told of sockets.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use sluice_proto::ids::SessionId;

use super::*;
use crate::defaults::WRITE_CHUNK_BYTES;
use crate::session::machine::SessionLimits;
use crate::shard::inbound::Inbound;
use crate::uplink::Link;

const TIMEOUTS: Timeouts = Timeouts { slow: 1_000, ping_every: 250, ping_within: 100 };

fn empty() -> Connections {
    Connections::new(0, TIMEOUTS, Rc::default())
}

/// A connection, and the other end of its socket.
fn enter(connections: &mut Connections) -> (Address, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    let limits = SessionLimits {
        unanswered_max: 1,
        unanswered_bytes_max: 1,
        bad_frames_max: 1,
        not_after_ms: 1,
        expiring_ms: 1,
    };
    let who = connections.insert(|who, deadlines| {
        let session = Session::new(Link::new(SessionId(1), who), Arc::new(limits));
        let stream = mio::net::TcpStream::from_std(socket);
        Connection::new(stream, session, Inbound::default(), deadlines, 0, None)
    });
    (who, client)
}

/// Who always has more to say stands behind all that are ready: one that never stops sending takes no turn of others.
#[test]
fn sockets_that_are_ready_are_looked_at_in_turn() {
    let mut connections = empty();
    let (loud, _first) = enter(&mut connections);
    let (quiet, _second) = enter(&mut connections);
    connections.told(loud, true, false, false);
    connections.told(quiet, true, false, false);
    connections.told(loud, true, false, false);
    connections.begin_look();
    assert_eq!(connections.next_ready(), Some(loud));
    connections.want(loud.slot);
    assert!(connections.end_look(), "there is more");
    assert_eq!([connections.next_ready(), connections.next_ready()], [Some(quiet), Some(loud)]);
    assert!(connections.next_ready().is_none() && !connections.end_look());
}

#[test]
fn what_is_told_of_a_socket_that_is_gone_is_about_nobody() {
    let mut connections = empty();
    let (gone, _first) = enter(&mut connections);
    connections.remove(gone.slot);
    let (who, _second) = enter(&mut connections);
    assert_eq!(who.slot, gone.slot);
    connections.told(gone, true, true, true);
    assert!(connections.next_ready().is_none());
    assert!(connections.get(who).is_some_and(|connection| !connection.readable));
}

#[test]
fn a_socket_that_takes_bytes_again_is_written_to() {
    let mut connections = empty();
    let (who, _client) = enter(&mut connections);
    connections.get(who).unwrap().blocked = true;
    connections.append(who.slot, Bytes::from_static(b"x"));
    assert_eq!(connections.next_dirty(), None, "it would take nothing");
    connections.told(who, false, true, false);
    assert_eq!(connections.next_dirty(), Some(who.slot));
    assert_eq!(connections.write(who.slot), Written::All);
}

/// Each change is told once: after the end nothing more is, so it has to be read up to there.
#[test]
fn a_socket_is_read_up_to_what_was_told() {
    let mut connections = empty();
    let (who, mut client) = enter(&mut connections);
    client.write_all(b"ab").unwrap();
    let mut chunk = [0; 8];
    connections.told(who, true, false, false);
    let connection = connections.get(who).unwrap();
    assert_eq!(connection.read(&mut chunk).unwrap(), Some(2));
    assert!(!connection.readable, "there was no more, and what comes will be told");
    assert_eq!(connection.read(&mut chunk).unwrap(), None);
    client.write_all(b"c").unwrap();
    drop(client);
    connections.told(who, true, false, true);
    let connection = connections.get(who).unwrap();
    assert_eq!((connection.read(&mut chunk).unwrap(), connection.readable), (Some(1), true));
    assert_eq!(connection.read(&mut chunk).unwrap(), Some(0), "the end");
}

/// The budget of a shard is used up by the first of many that publish: the next time those that had nothing begin.
#[test]
fn who_was_turned_away_first_is_read_first() {
    let mut connections = empty();
    let all: Vec<_> = (0..4).map(|_| enter(&mut connections)).collect();
    // One that closes is read without a welcome.
    connections.by_slot.iter_mut().for_each(|(_, one)| one.phase = ConnectionPhase::Closing);
    let mut resumed = |turned_away: &[usize]| {
        turned_away.iter().for_each(|n| connections.pause(all[*n].0.slot, true));
        connections.resume_all();
        let order: Vec<u32> = std::iter::from_fn(|| connections.next_ready()).map(|who| who.slot).collect();
        all.iter().for_each(|(who, _)| connections.pause(who.slot, false));
        order
    };
    assert_eq!(resumed(&[]), [0, 1, 2, 3]);
    assert_eq!(resumed(&[2, 3, 0, 1]), [2, 3, 0, 1]);
    assert_eq!(resumed(&[3, 0]), [3, 0, 1, 2]);
    assert_eq!(resumed(&[]), [0, 1, 2, 3], "who was turned away before has had its turn");
}

/// A socket may take some bytes and break at the next: those it took wait no more than those that go with it.
#[test]
fn what_waits_for_all_sockets_is_what_waits_for_each() {
    let mut connections = empty();
    let (broken, _first) = enter(&mut connections);
    let (other, _second) = enter(&mut connections);
    connections.append(broken.slot, vec![0; 3 * WRITE_CHUNK_BYTES].into());
    connections.append(other.slot, Bytes::from_static(b"abc"));
    let mut results = [Ok(WRITE_CHUNK_BYTES), Err(io::ErrorKind::BrokenPipe.into())].into_iter();
    let written = connections.write_with(broken.slot, |_, _| results.next().unwrap());
    assert_eq!((written, connections.queued_bytes()), (Written::Broken, 2 * WRITE_CHUNK_BYTES + 3));
    connections.remove(broken.slot);
    assert_eq!(connections.queued_bytes(), 3);
    connections.give_up_queue(other.slot);
    assert_eq!(connections.queued_bytes(), 0);
}
