//! Each service is stopped under load while each of what it stands on is down, or swallows every byte, with the whole
//! network cut, and with everything due: exit code 0 in budget, and after it all works again. Every cell has a name.

use std::fmt;
use std::time::Duration;

use serde_json::json;
use sluice_client::{Client, Options as ClientOptions, Position};
use sluice_drill::links::Link;
use sluice_drill::place::Role;
use sluice_drill::proxy::Trouble;
use sluice_drill::target::own::{ClusterWanted, Own};
use sluice_launcher::{Engines, Service};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::DUE;
use crate::kit::SOON;

/// All that a stop may take.
const TOTAL: Duration = Duration::from_secs(8);
/// Before a stop that has not ended is given up.
const GIVEN_UP: Duration = Duration::from_secs(12);
/// After a trouble, on a busy machine.
const WORKS_AGAIN: Duration = Duration::from_secs(60);
/// Publishes that are under way all the time, and whose they are.
const UNDER_WAY: usize = 64;
const CLIENTS: usize = 4;

/// What a service is stopped in the middle of.
#[derive(Debug, Clone, Copy)]
enum Cell {
    /// As much load as it takes.
    Load,
    /// A link is reset, and refuses whoever comes.
    Down(Link),
    /// A link swallows every byte, and nobody is told.
    BlackHoled(Link),
    /// Every link does so at once.
    NetworkCut,
    /// A hundred thousand delayed messages.
    EverythingDue,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load => f.write_str("under full load"),
            Self::Down(link) => write!(f, "with {link} down"),
            Self::BlackHoled(link) => write!(f, "with {link} black-holed"),
            Self::NetworkCut => f.write_str("with the network cut"),
            Self::EverythingDue => f.write_str("with 100,000 messages due"),
        }
    }
}

impl Cell {
    /// All cells of a service that has these links.
    fn all(links: &[Link]) -> Vec<Self> {
        let troubled = links.iter().flat_map(|link| [Self::Down(*link), Self::BlackHoled(*link)]);
        // What is due is published until the end: it is last.
        [Self::Load].into_iter().chain(troubled).chain([Self::NetworkCut, Self::EverythingDue]).collect()
    }

    async fn begin(self, own: &Own) {
        let links = own.links().unwrap();
        match self {
            Self::Load => {}
            Self::Down(link) => links.trouble(link, 0, Trouble::Reset),
            Self::BlackHoled(link) => links.trouble(link, 0, Trouble::Cut),
            Self::NetworkCut => Link::ALL.iter().for_each(|link| links.trouble(*link, 0, Trouble::Cut)),
            Self::EverythingDue => {
                let mut store =
                    PgConnection::connect(&own.cluster().url_for(Service::Logic, Service::Postgres))
                        .await
                        .unwrap();
                assert_eq!(sqlx::query(DUE).execute(&mut store).await.unwrap().rows_affected(), 100_000);
                let some = "select from messages where room like 'due-%' limit 1";
                let fired = async {
                    while sqlx::query(some).fetch_all(&mut store).await.unwrap().is_empty() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                timeout(SOON, fired).await.expect("it is published");
            }
        }
    }

    fn end(own: &Own) {
        let links = own.links().unwrap();
        Link::ALL.iter().for_each(|link| links.heal(*link, 0));
    }
}

/// One of each service, whose links lead through proxies.
async fn own(dir: &std::path::Path) -> Own {
    let wanted = ClusterWanted {
        gateways: 1,
        logics: 1,
        tasks: 1,
        engines: Engines::default(),
        dir: dir.to_owned(),
        bin_dir: None,
        previous: None,
        settings: Vec::new(),
        links: true,
        doors: false,
        slow_links: Vec::new(),
        log_readers: false,
        secure: false,
    };
    Own::start(&wanted).await.unwrap()
}

/// A client that hears what it publishes, as soon as it may come in and something is stored.
async fn enters(options: ClientOptions) -> Client {
    loop {
        // A gateway that has no logic for a moment lets nobody in.
        let Ok((client, mut events)) = Client::connect(options.clone()).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let heard = client.subscribe("news", Position::Now).await;
        if heard.is_ok() && client.publish("news", &json!("first")).await.is_ok() {
            tokio::spawn(async move { while events.next().await.is_some() {} });
            return client;
        }
    }
}

/// Publishes that go on without a pause, from clients that hear them all: something is under way in every service.
/// Returns when something is stored.
async fn load(own: &Own, when: &str) -> JoinSet<()> {
    let mut load = JoinSet::new();
    for n in 0..CLIENTS {
        let token = own.cluster().token(&format!("user{n}"), &["*"], &["*"]).unwrap();
        let options = ClientOptions::new(own.cluster().gateway(0).ws()).token(token);
        let entering = timeout(WORKS_AGAIN, enters(options)).await;
        let client = entering.unwrap_or_else(|_| panic!("nothing is stored {when}"));
        for _ in 0..UNDER_WAY / CLIENTS {
            let client = client.clone();
            load.spawn(async move { while client.publish("news", &json!(n)).await.is_ok() {} });
        }
    }
    load
}

/// How long it took, or what went wrong.
async fn stop(own: &Own, service: Service, cell: Cell) -> Result<Duration, String> {
    let node = own.cluster().node(service, 0).unwrap();
    cell.begin(own).await;
    assert!(node.term(), "{service} runs");
    let exit = node.wait_exit(GIVEN_UP).await;
    if exit.is_err() {
        node.kill();
        node.exit().await;
    }
    Cell::end(own);
    let exit = exit.map_err(|_| format!("it had not ended after {GIVEN_UP:?}:\n{}", node.log_tail()))?;
    let took = exit.elapsed.unwrap();
    if exit.code() == Some(0) && took < TOTAL {
        Ok(took)
    } else {
        Err(format!("exit code {:?} after {took:?}:\n{}", exit.code(), node.log_tail()))
    }
}

async fn matrix(service: Service, links: &[Link]) {
    let dir = tempfile::tempdir().unwrap();
    let own = own(&dir.path().join("cluster")).await;
    let mut failed = Vec::new();
    let mut when = "at first".to_owned();
    for cell in Cell::all(links) {
        let load = load(&own, &when).await;
        match stop(&own, service, cell).await {
            Ok(took) => println!("{service} {cell}: {took:?}"),
            Err(why) => failed.push(format!("{service} {cell}: {why}")),
        }
        drop(load);
        own.cluster().start_at(service, 0).await.unwrap();
        when = format!("after {service} was stopped {cell}");
    }
    load(&own, &when).await;
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    own.cluster().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_stops_in_time_whatever_is_wrong_around_it() {
    matrix(Service::Gateway, &[Link::Store(Role::Gateway, Role::Etcd), Link::GatewayLogic]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logic_stops_in_time_whatever_is_wrong_around_it() {
    let stores = [Role::Postgres, Role::Nats, Role::Redis, Role::Etcd];
    matrix(Service::Logic, &stores.map(|store| Link::Store(Role::Logic, store))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_stops_in_time_whatever_is_wrong_around_it() {
    let stores = [Role::Nats, Role::Redis, Role::Etcd].map(|store| Link::Store(Role::Task, store));
    matrix(Service::Task, &[&stores[..], &[Link::GatewayLogic, Link::TaskGateway]].concat()).await;
}
