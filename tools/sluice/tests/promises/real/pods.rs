//! The life of pods, played with processes: a Deployment is rolled as Kubernetes rolls one, with its hooks, its timers and
//! a Service that hears late of who has gone. What a cluster adds to it, nodes and a network of many machines, is not here.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_client::raw::{ConnectError, Handshake, Socket};
use sluice_client::{Options as ClientOptions, Position};
use sluice_launcher::{Exit, Node, Options, Service};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::{Real, SERVICES};
use crate::kit::{Ground, SOON};
use crate::record::{Observer, Seen, Sent, judge, sender};

/// So many of each service.
const REPLICAS: usize = 2;
const RATE: u32 = 300;
/// Between two upgrades of one who knocks.
const KNOCK_EVERY: Duration = Duration::from_millis(15);
/// Whoever is refused comes again, for so long.
const MENDED_WITHIN: Duration = Duration::from_secs(5);
/// From SIGTERM to SIGKILL, as deploy/kubernetes has it for a stop of 8 s.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the platform does with a pod that is deleted.
#[derive(Clone, Copy)]
struct Deletion {
    /// How long its hook sleeps before SIGTERM.
    pre_stop: Duration,
    /// When the Service has heard of it: clients are sent to it until then.
    unlisted_after: Duration,
}

/// What a Service is to its clients: each connection goes to one of the endpoints, in turn, and stays there, also when that
/// one is no endpoint any more.
struct ServiceProxy {
    url: String,
    endpoints: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl Drop for ServiceProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl ServiceProxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        let endpoints: Arc<Mutex<Vec<String>>> = Arc::default();
        let (known, next) = (Arc::clone(&endpoints), AtomicUsize::new(0));
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let endpoint = {
                    let known = known.lock().unwrap();
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    known.get(turn % known.len().max(1)).cloned()
                };
                connections.spawn(async move {
                    // Who cannot be reached is no news to it: the client finds its connection ended.
                    if let Ok(mut pod) = TcpStream::connect(endpoint?).await {
                        let _ = copy_bidirectional(&mut client, &mut pod).await;
                    }
                    Some(())
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { url, endpoints, accepting }
    }

    fn list(&self, gateway: &Node) {
        self.endpoints.lock().unwrap().push(endpoint(gateway));
    }

    fn unlist(&self, gateway: &Node) {
        self.endpoints.lock().unwrap().retain(|known| *known != endpoint(gateway));
    }
}

fn endpoint(gateway: &Node) -> String {
    gateway.ws().trim_start_matches("ws://").trim_end_matches("/ws").to_owned()
}

/// What became of all who knocked.
#[derive(Debug, Default)]
struct Knocks {
    let_in: usize,
    /// Refused, or not answered, before they were let in.
    refused: Vec<String>,
    longest: Duration,
}

/// Clients that come all the time, each through the door of the Service and away again.
async fn knock(handshake: Handshake, until: Arc<AtomicBool>) -> Knocks {
    let mut knocks = Knocks::default();
    while !until.load(Ordering::Relaxed) {
        let began = Instant::now();
        loop {
            let pause = match Socket::connect(&handshake).await {
                Ok(_) => break,
                Err(error) => {
                    assert!(began.elapsed() < MENDED_WITHIN, "refused again and again: {error}");
                    knocks.refused.push(error.to_string());
                    match error {
                        ConnectError::Status { retry_after_s: Some(seconds), .. } => {
                            Duration::from_secs(seconds)
                        }
                        _ => KNOCK_EVERY,
                    }
                }
            };
            sleep(pause).await;
        }
        knocks.let_in += 1;
        knocks.longest = knocks.longest.max(began.elapsed());
        sleep(KNOCK_EVERY).await;
    }
    knocks
}

/// The kubelet runs the hook, signals, and kills when its patience is over; the Service hears of it meanwhile. Sleeps are
/// what is played here: nobody in a cluster waits for anybody else either.
async fn delete(pod: Node, service: Arc<ServiceProxy>, deletion: Deletion) -> Exit {
    let unlisted = async {
        sleep(deletion.unlisted_after).await;
        service.unlist(&pod);
    };
    let ended = async {
        sleep(deletion.pre_stop).await;
        pod.term();
        match pod.wait_exit(PATIENCE).await {
            Ok(exit) => exit,
            Err(_) => {
                pod.kill();
                pod.exit().await
            }
        }
    };
    tokio::join!(unlisted, ended).1
}

/// `kubectl delete --force --grace-period=0`, or a node that is gone: nobody is asked.
async fn force_delete(pod: &Node, service: &ServiceProxy, unlisted_after: Duration) {
    assert!(pod.kill());
    pod.exit().await;
    sleep(unlisted_after).await;
    service.unlist(pod);
}

struct Scene {
    cluster: Real,
    service: Arc<ServiceProxy>,
}

impl Scene {
    async fn start() -> Self {
        let options = Options { gateways: REPLICAS, logics: REPLICAS, tasks: REPLICAS, ..Options::default() };
        let (cluster, service) = (Real::with(options).await, ServiceProxy::start().await);
        cluster.nodes(Service::Gateway).iter().for_each(|gateway| service.list(gateway));
        Self { cluster, service: Arc::new(service) }
    }

    /// A pod more, at a place of its own and so at another address.
    async fn surge(&self, service: Service, index: usize) {
        let new = self.cluster.start_at(service, index).await.unwrap();
        if service == Service::Gateway {
            self.service.list(&new);
        }
    }

    /// maxSurge 1, maxUnavailable 0: a new one is ready before an old one is deleted, whose end nobody waits for. All
    /// Deployments of a release are rolled at the same time.
    async fn roll(&self, deletion: Deletion) {
        let mut ending = JoinSet::new();
        for old in 0..REPLICAS {
            for service in SERVICES {
                self.surge(service, REPLICAS + old).await;
                let pod = self.cluster.node(service, old).unwrap();
                ending.spawn(delete(pod, Arc::clone(&self.service), deletion));
            }
        }
        while let Some(exit) = ending.join_next().await {
            assert_eq!(exit.unwrap().code(), Some(0), "it ended by itself, before it was killed");
        }
    }

    /// Messages and upgrades through the Service while `event` happens; then all is judged.
    async fn under_load(&self, count: usize, event: impl AsyncFnOnce(&Self)) -> Knocks {
        let client =
            |user: &str| ClientOptions::new(self.service.url.clone()).token(self.cluster.token(user));
        let mut observers = Vec::new();
        for name in ["watch0", "watch1", "watch2"] {
            observers.push(Observer::start(client(name), "news", Position::After(0)).await);
        }
        let mut sending = Vec::new();
        for user in ["ann", "bob"] {
            sending.push(sender(client(user), user, "news", count / 2, RATE / 2).await);
        }
        let over = Arc::new(AtomicBool::new(false));
        let knocking: Vec<JoinHandle<Knocks>> = (0..4)
            .map(|n| {
                let handshake = Handshake::new(self.service.url.clone());
                let handshake = handshake.token(self.cluster.token(&format!("guest{n}")));
                tokio::spawn(knock(handshake, Arc::clone(&over)))
            })
            .collect();
        observers[0].reaches(50, SOON).await;
        event(self).await;
        let mut sent = Vec::new();
        for sending in sending {
            sent.push(sending.await.unwrap());
        }
        over.store(true, Ordering::Relaxed);
        let mut all = Knocks::default();
        for knocking in knocking {
            let one = knocking.await.unwrap();
            all.let_in += one.let_in;
            all.longest = all.longest.max(one.longest);
            all.refused.extend(one.refused);
        }
        sent.iter().for_each(Sent::all_ok);
        let stored = sent.iter().map(Sent::ok).sum::<usize>() as u64;
        for observer in &observers {
            observer.reaches(stored, SOON).await;
        }
        judge(&self.cluster, "news", &sent, &observers.iter().collect::<Vec<_>>()).await;
        println!(
            "{} upgrades, {} refusals mended, the longest {:?}; silences {:?}",
            all.let_in,
            all.refused.len(),
            all.longest,
            observers.iter().map(|observer| observer.look(Seen::silence)).collect::<Vec<_>>()
        );
        all
    }
}

/// As deploy/kubernetes has it: the hook outlasts the news. Nobody who comes is refused even once.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_rolled_and_no_upgrade_is_refused() {
    let scene = Scene::start().await;
    let deletion = Deletion { pre_stop: Duration::from_secs(2), unlisted_after: Duration::from_millis(500) };
    let knocks = scene.under_load(2_400, async |scene| scene.roll(deletion).await).await;
    assert_eq!(knocks.refused, Vec::<String>::new(), "{knocks:?}");
    assert!(knocks.let_in > 200, "{knocks:?}");
    scene.cluster.stop().await;
}

/// The Service goes on sending clients to a pod that was signalled, and to one that was killed: whoever is refused is let in
/// when he comes again, and nothing that was accepted suffers.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_are_sent_to_pods_which_have_gone_are_let_in_when_they_come_again() {
    let scene = Scene::start().await;
    let late = Duration::from_millis(1_500);
    let deletion = Deletion { pre_stop: Duration::ZERO, unlisted_after: late };
    let knocks = scene
        .under_load(2_400, async |scene| {
            scene.roll(deletion).await;
            let newest = scene.cluster.gateway(2 * REPLICAS - 1);
            scene.surge(Service::Gateway, 2 * REPLICAS).await;
            force_delete(&newest, &scene.service, late).await;
        })
        .await;
    assert!(!knocks.refused.is_empty(), "the race was not met: {knocks:?}");
    assert!(knocks.let_in > 200, "{knocks:?}");
    scene.cluster.stop().await;
}
