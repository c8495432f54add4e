//! The store of a `sluice serve` is copied into the database of a cluster under the eyes of a hundred clients that keep
//! publishing at one address: all resume there, and nothing is lost, doubled or reordered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use sluice_client::{Client, Options as ClientOptions, Position};
use sluice_launcher::{Options, Service};
use sluice_load::dial::raise_file_limit;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Real;
use crate::kit::{Ground as _, SOON, until};
use crate::one_process::{Dev, SECRET, run, text, token};
use crate::record::{Observer, Sent, judge};

const CLIENTS: usize = 100;
const ROOMS: usize = 10;
/// Between two publishes of a client.
const EVERY: Duration = Duration::from_millis(400);
/// Messages that each has to hear before anything is done, and after it.
const HEARD: u64 = 40;
/// All that waited while nobody was there is answered within this.
const ANSWERED: Duration = Duration::from_secs(120);

/// The address that clients know, as a proxy has it: it leads to one of these in turn, or to nobody.
struct Door {
    url: String,
    behind: Arc<Mutex<Vec<SocketAddr>>>,
    _open: JoinSet<()>,
}

impl Door {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        let (behind, mut open) = (Arc::<Mutex<Vec<SocketAddr>>>::default(), JoinSet::new());
        let shared = Arc::clone(&behind);
        open.spawn(async move {
            let mut carried = JoinSet::new();
            for turn in 0.. {
                let Ok((mut client, _)) = listener.accept().await else { continue };
                let next = {
                    let behind = shared.lock().unwrap();
                    behind.get(turn % behind.len().max(1)).copied()
                };
                let Some(next) = next else { continue };
                carried.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(next).await {
                        copy_bidirectional(&mut client, &mut server).await.ok(); // either end may be cut
                    }
                });
            }
        });
        Self { url, behind, _open: open }
    }

    fn leads_to<'a>(&self, urls: impl Iterator<Item = &'a str>) {
        let address = |url: &str| url.trim_start_matches("ws://").trim_end_matches("/ws").parse().unwrap();
        *self.behind.lock().unwrap() = urls.map(address).collect();
    }
}

/// Publishes until it is over; what became of all of it.
async fn talk(client: Client, user: String, room: String, mut over: watch::Receiver<bool>) -> Sent {
    let mut clock = interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut receipts = Vec::new();
    while !*over.borrow_and_update() {
        tokio::select! {
            biased;
            _ = over.changed() => continue,
            _ = clock.tick() => {}
        }
        let key = format!("{user}-{:06}", receipts.len());
        let receipt = client.submit(&room, &key, &(&user, receipts.len())).await.unwrap();
        receipts.push((key, receipt));
    }
    let mut outcomes = Vec::new();
    for (key, receipt) in receipts {
        outcomes.push((key, timeout(ANSWERED, receipt.outcome()).await.expect("an outcome in time")));
    }
    Sent { user, outcomes }
}

/// Clients, each in one of the rooms, where it publishes too.
async fn crowd(url: &str) -> Vec<Observer> {
    let one = |n: usize| {
        let options = ClientOptions::new(url).token(token(&format!("u{n}")));
        async move { Observer::start(options, &room(n), Position::After(0)).await }
    };
    join_all((0..CLIENTS).map(one)).await
}

fn room(n: usize) -> String {
    format!("room-{}", n % ROOMS)
}

fn last_of_all(crowd: &[Observer]) -> Vec<u64> {
    crowd.iter().map(Observer::last).collect()
}

/// Waits until each of them has many that it did not have.
async fn each_goes_on(crowd: &[Observer], what: &str) {
    let before = last_of_all(crowd);
    let more = async || last_of_all(crowd).iter().zip(&before).all(|(now, before)| *now >= before + HEARD);
    until(what, 3 * SOON, more).await;
}

async fn copied_under_their_eyes(end: impl FnOnce(&mut Dev)) {
    // Three sockets for each client, and those of attempts while nobody is there.
    raise_file_limit().unwrap();
    let (dir, door) = (tempfile::tempdir().unwrap(), Door::open().await);
    let options =
        Options { gateways: 2, logics: 2, tasks: 1, token_secret: Some(SECRET.into()), ..Options::default() };
    let cluster = Real::with(options).await;
    let mut process = Dev::serve(dir.path());
    door.leads_to([process.ws(0), process.ws(1)].into_iter());

    let (crowd, over) = (crowd(&door.url).await, watch::Sender::new(false));
    let mut talking = JoinSet::new();
    for (n, one) in crowd.iter().enumerate() {
        talking.spawn(talk(one.client.clone(), format!("u{n}"), room(n), over.subscribe()));
    }
    each_goes_on(&crowd, "all hear each other in one process").await;

    end(&mut process);
    door.leads_to(std::iter::empty());
    let (from, to) = (dir.path().to_owned(), cluster.url_with_password(Service::Postgres));
    let copy = move || run(&["store", "copy", "--from", from.to_str().unwrap(), "--to", &to]);
    let output = tokio::task::spawn_blocking(copy).await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    println!("{}", text(&output.stdout));
    let gateways = cluster.entrances();
    door.leads_to(gateways.iter().map(String::as_str));
    each_goes_on(&crowd, "all hear each other on the cluster").await;

    over.send_replace(true);
    let sent = timeout(2 * ANSWERED, talking.join_all()).await.expect("all outcomes in time");
    assert_eq!(sent.len(), CLIENTS);
    sent.iter().for_each(Sent::all_ok);
    let (mut stored, all) = (0, sent.iter().map(Sent::ok).sum::<usize>());
    let mut by_room: BTreeMap<String, Vec<Sent>> = BTreeMap::new();
    for one in sent {
        by_room.entry(room(one.user[1..].parse().unwrap())).or_default().push(one);
    }
    for (room, sent) in by_room {
        let head = cluster.table(&room).await.len();
        stored += head;
        let here = || (0..CLIENTS).filter(|n| self::room(*n) == room);
        for n in here() {
            crowd[n].reaches(head as u64, 2 * SOON).await;
            crowd[n].look(|seen| {
                assert!(
                    seen.skipped.is_empty() && seen.resumed > 0,
                    "u{n}: {:?}, {}",
                    seen.skipped,
                    seen.resumed
                );
            });
        }
        let observers: Vec<&Observer> = here().map(|n| &crowd[n]).collect();
        judge(&cluster, &room, &sent, &observers).await;
    }
    assert_eq!(stored, all, "each once, and nothing else");
    println!("{stored} messages of {CLIENTS} clients");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clients_follow_a_process_that_was_stopped_into_a_cluster() {
    copied_under_their_eyes(|process| {
        process.signal("-TERM");
        assert_eq!(process.wait().0.code(), Some(0));
    })
    .await;
}

/// What was sent and had no answer is sent again to the cluster: it may be in the file, and is then known by its key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clients_follow_a_process_that_was_killed_into_a_cluster() {
    copied_under_their_eyes(Dev::kill).await;
}
