//! A shard without its thread: what it does with a connection, turn by turn.

use std::io::Write;
use std::net::{TcpListener, TcpStream as ClientStream};

use mio::Events;
use sluice_proto::ids::InstanceId;
use sluice_service::clock::Clock;
use sluice_service::grpc::channels::{Caller, Channels};
use sluice_service::metrics::Registry;
use sluice_service::tls::Role;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{LocalSet, yield_now};

use super::connection::ConnectionPhase;
use super::requests::NO_EPOCH;
use super::shared::UpgradeGate;
use super::turn::Budget;
use super::turn::tests::stopped;
use super::*;
use crate::calls::Calls;
use crate::config::Config;
use crate::defaults::FRAMES_PER_READ;
use crate::handshake::{Names, Proxies};
use crate::limits::Usages;
use crate::metrics::{Metrics, Stats};
use crate::session::machine::NotIdentified;

/// A shard that no logic answers.
pub(super) fn shard() -> ShardCell {
    let config = Config::default();
    let me = InstanceId::fresh("gateway", "here");
    let nobody = watch::Sender::new(Arc::new(Vec::new())).subscribe();
    let channels = Channels::new(nobody, Role::Logic, Caller::fixed(me.clone()));
    let shared = Shared {
        usages: Usages::new(&config.limits),
        names: Names::read(&config.origins, &config.hosts).unwrap(),
        proxies: Proxies::read(&config.trusted_proxies).unwrap(),
        refusals: Arc::default(),
        calls: Calls::new(channels, watch::Sender::new(me).subscribe()),
        config,
        stats: Stats::default(),
        metrics: Metrics::new(&Registry::new("gateway")),
        clock: Clock::system(),
        upgrades: UpgradeGate::default(),
        pushers: Default::default(),
        revoked: Default::default(),
        ticket_calls: Semaphore::new(1),
        tracer: sluice_trace::Tracer::default(),
    };
    let (inbox, _) = mpsc::channel(1);
    let (sockets, _) = Sockets::new().unwrap();
    Shard::start(0, Arc::new(shared), &Shards::new(vec![inbox]), sockets)
}

/// A connection whose client is being checked, and the other end of its socket.
pub(super) fn enter(shard: &mut Shard) -> (Address, ClientStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = ClientStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    shard.shared.stats.connections.fetch_add(1, Ordering::Relaxed);
    let limits = Arc::clone(&shard.session_limits);
    let who = shard.connections.insert(|who, deadlines| {
        let session = Session::new(Link::new(SessionId::fresh(), who), limits);
        Connection::new(TcpStream::from_std(socket), session, Inbound::default(), deadlines, 0, None)
    });
    (who, client)
}

/// A frame of a client, masked with zeros.
fn frame(opcode: u8, payload: &str) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(payload.as_bytes());
    frame
}

/// Pongs that nobody asked for.
fn pongs(count: usize) -> Vec<u8> {
    frame(10, "").repeat(count)
}

/// It has this phase, and these frames of it are held back.
fn held_back(shard: &mut Shard, who: Address, phase: ConnectionPhase, frames: Vec<u8>) {
    let inbound = Inbound::with_rest(frames, &mut shard.buffers.contexts);
    let connection = shard.connections.get(who).unwrap();
    (connection.inbound, connection.phase) = (inbound, phase);
    shard.connections.want(who.slot);
}

/// One look at the sockets in a turn that has all the time there is: whether there is more.
fn look(shard: &ShardCell) -> bool {
    shard.turn(|shard| shard.attend_sockets(&Events::with_capacity(1), Budget::by(stopped)))
}

/// What came with the token is read already, and in no place, while the token is handed on: its socket is empty and ended.
#[tokio::test]
async fn a_client_that_sends_all_it_has_and_ends_is_not_taken_for_one_that_left() {
    let all = async {
        let shard = shard();
        let (who, mut client) = shard.turn(enter);
        shard.turn(|shard| {
            let facts = shard.shared.welcome_facts(NO_EPOCH);
            shard.connections.with_session(who.slot, |session, out| {
                session.identified(Err(NotIdentified::Invalid(String::new())), true, &facts, out);
            });
        });
        let frames =
            [r#"{"connect":{"token":"t"}}"#, r#"{"pub":"news","data":1}"#].map(|text| frame(1, text));
        client.write_all(&frames.concat()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        shard.turn(|shard| shard.connections.told(who, true, false, true));
        while look(&shard) {}
        // Now it is looked at in a turn of its own.
        for _ in 0..10 {
            yield_now().await;
        }
        shard.turn(|shard| {
            let connection = shard.connections.get(who).expect("it waits for its verdict");
            assert!(connection.session.is_being_checked() && connection.inbound.has_rest());
        });
    };
    LocalSet::new().run_until(all).await;
}

/// What is held back of it is thrown away too: else it would be looked at in every turn, and its end never be seen.
#[tokio::test]
async fn a_connection_whose_bytes_are_thrown_away_comes_to_rest() {
    let shard = shard();
    let (who, client) = shard.turn(enter);
    shard.turn(|shard| held_back(shard, who, ConnectionPhase::Lingering, pongs(10)));
    let looks = (0..10).take_while(|_| look(&shard)).count();
    assert!(looks < 10, "it is looked at for ever");
    drop(client);
    shard.turn(|shard| shard.connections.told(who, true, false, true));
    while look(&shard) {}
    assert!(shard.turn(|shard| shard.connections.get(who).is_none()), "its end was seen");
}

/// Writers, timers and other sockets have their turn between two shares of one that always has more.
#[tokio::test]
async fn one_that_always_has_more_has_one_share_in_a_look() {
    let shard = shard();
    let (who, _client) = shard.turn(enter);
    let frames = pongs(10 * FRAMES_PER_READ);
    shard.turn(|shard| held_back(shard, who, ConnectionPhase::Closing, frames));
    let looks = (0..100).take_while(|_| look(&shard)).count();
    assert!((4..20).contains(&looks), "{looks} looks");
}
