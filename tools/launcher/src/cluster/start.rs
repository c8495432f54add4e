//! Starting: stores first, then services; each is started once its predecessor's place is known and counted as
//! running only when it says that it is ready.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use super::environment;
use super::event::Event;
use super::state::{ClusterShared, ClusterState};
use super::stop::{end, end_postmasters, kill_signal};
use crate::defaults::{
    LINE_BYTES_MAX, POLL, PORT_FREE, PROBE, REPLACE_LOOK, RESTART_PAUSE, RESTART_SETTLED, SERVICE_READY,
    STORE_TRIES,
};
use crate::error::Error;
use crate::find;
use crate::held;
use crate::log_reader;
use crate::node::{Addresses, Node};
use crate::options::env_name;
use crate::port::Port;
use crate::probe;
use crate::process::{Exit, Process};
use crate::service::Service;
use crate::store::{self, Store};

/// Stores, then logics, then the rest: gateways and tasks find a logic at once.
pub(super) async fn launch(shared: &Arc<ClusterShared>) -> Result<(), Error> {
    for service in Service::SERVICES.into_iter().filter(|service| shared.options.count(*service) > 0) {
        find::service_binary(service, shared.options.bin_dir.as_deref())?; // before anything runs
        if let Some(previous) = &shared.options.previous {
            find::service_binary(service, Some(previous))?;
        }
    }
    shared.record.end_left().await?; // it holds the data and the ports
    // Patroni keeps in etcd who is the primary.
    let is_first = |store: &Service| *store != Service::Postgres || !shared.options.engines.patroni;
    let first = Service::STORES.into_iter().filter(is_first);
    try_join_all(first.map(|store| first_start_of(shared, store))).await?;
    for store in Service::STORES.into_iter().filter(|store| !is_first(store)) {
        first_start_of(shared, store).await?;
    }
    first_start_of(shared, Service::Haproxy).await?;
    // They look for replicas at once, and then not for ten seconds.
    first_start_of(shared, Service::Sentinel).await?;
    let all = |service: Service| (0..shared.options.count(service)).map(move |index| (service, index));
    for group in
        [all(Service::Logic).collect(), all(Service::Task).chain(all(Service::Gateway)).collect::<Vec<_>>()]
    {
        try_join_all(group.into_iter().map(|(service, index)| start_service(shared, service, index))).await?;
    }
    Ok(())
}

/// A store finds its port on its first start: one that somebody else took meanwhile is exchanged. Of a group all start
/// together, since none is ready alone.
async fn first_start_of(shared: &Arc<ClusterShared>, service: Service) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        let before = shared.state().stores.clone();
        let count = shared.options.count(service);
        let (engines, access) = (shared.options.engines, shared.access.as_ref());
        let doors = shared.options.doors.as_ref();
        let members = store::prepare(service, &shared.folder, engines, &before, access, doors)?;
        let members: Vec<Arc<Store>> = members.into_iter().map(Arc::new).collect();
        for store in &members {
            shared.state().stores.insert((service, store.index), Arc::clone(store));
        }
        end_postmasters(&members).await; // those of a launcher that was killed with its guard
        match try_join_all(members.iter().map(|store| first_start(shared, store))).await {
            // Only if the port is the reason: a server that does not start on its own is shown to people. Others of a
            // group have its port written down.
            Err(error) if count == 1 && tries < STORE_TRIES && !members[0].port_is_free() => {
                tracing::warn!(%service, %error, "the port was taken, another one is tried");
            }
            outcome => return outcome.map(drop),
        }
    }
}

async fn first_start(shared: &Arc<ClusterShared>, store: &Arc<Store>) -> Result<(), Error> {
    let node = start_store(shared, store).await?;
    wait_until(&node.process, node.process.name(), store.ready_limit(), || store.has_joined()).await
}

/// Starts what is missing: the given place, else that of one which has ended or is stopping, else one more.
pub(super) async fn replacement(
    shared: &Arc<ClusterShared>,
    service: Service,
    index: Option<usize>,
) -> Result<Node, Error> {
    let place = match index {
        Some(index) => Slot::take(shared, service, |_| Some(index)),
        None if service.is_store() => Slot::take(shared, service, |_| Some(0)),
        None => vacancy(shared, service).await,
    };
    // Two starts of one place would both become its process, and one of them would be forgotten.
    let place = place.ok_or_else(|| Error::System(format!("{service} is being started already")))?;
    let node = if service.is_store() {
        let store = shared.state().stores.get(&(service, place.index)).cloned();
        let store = store.ok_or(Error::NoSuch(service, place.index))?;
        // one that was killed a moment ago may not be reaped yet
        let old = shared.state().nodes.get(&(service, place.index)).cloned();
        if let Some(old) = old
            && old.wait_exit(REPLACE_LOOK).await.is_err()
        {
            return Err(Error::System(format!("{} runs already (pid {})", old.name(), old.pid())));
        }
        start_store(shared, &store).await?
    } else {
        start_service(shared, service, place.index).await?
    };
    shared.emit(Event::Start {
        service,
        name: service.name(node.index),
        index: node.index,
        pid: node.pid(),
        addresses: node.addresses.clone(),
    });
    Ok(node)
}

/// Runs a store that is down on another port while `work` lasts.
pub(super) async fn aside<T>(
    shared: &Arc<ClusterShared>,
    store: &Store,
    work: impl AsyncFnOnce(&str) -> T,
) -> Result<T, Error> {
    let store = store.elsewhere()?;
    // In the list of those that are ended with the cluster, but not as the process of its place.
    let (process, _) = begin(shared, store.service, 0, store.command(), false)?;
    wait_until(&process, process.name(), store.ready_limit(), || store.is_ready()).await?;
    let outcome = work(&store.url_with_password()).await;
    end(&process, store.stop_signal(), store.stop_limit()).await;
    Ok(outcome)
}

/// A place reserved for one start at a time.
struct Slot<'a> {
    shared: &'a ClusterShared,
    service: Service,
    index: usize,
}

impl<'a> Slot<'a> {
    fn take(
        shared: &'a ClusterShared,
        service: Service,
        choose: impl FnOnce(&ClusterState) -> Option<usize>,
    ) -> Option<Self> {
        let mut state = shared.state();
        let index = choose(&state)?;
        // Chosen and taken under one lock: nobody can choose the same in between.
        state.starting.insert((service, index)).then_some(Self { shared, service, index })
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.shared.state().starting.remove(&(self.service, self.index));
    }
}

/// The lowest place whose process has ended; else one whose process is stopping; else the next new one. A process
/// killed a moment ago may not be reaped yet, one asked to stop may not show it yet: looks for a while.
async fn vacancy<'a>(shared: &'a ClusterShared, service: Service) -> Option<Slot<'a>> {
    let until = Instant::now() + REPLACE_LOOK;
    loop {
        let ended = |state: &ClusterState| {
            let mut ended =
                state.nodes.values().filter(|node| node.service == service && node.exited().is_some());
            ended.find(|node| !state.starting.contains(&(service, node.index))).map(|node| node.index)
        };
        // Who has ended comes before who is stopping: its port is free already.
        if let Some(place) = Slot::take(shared, service, ended) {
            return Some(place);
        }
        let living: Vec<Node> = {
            let state = shared.state();
            let free = |node: &&Node| !state.starting.contains(&(service, node.index));
            state.nodes.values().filter(|node| node.service == service).filter(free).cloned().collect()
        };
        let stopping = join_all(living.iter().map(is_stopping)).await;
        let stopping =
            living.iter().zip(stopping).find(|(_, stopping)| *stopping).map(|(node, _)| node.index);
        if let Some(place) = stopping.and_then(|index| Slot::take(shared, service, |_| Some(index))) {
            return Some(place);
        }
        // Nobody has ended and nobody stops: then one more was meant.
        if Instant::now() >= until {
            let next = |state: &ClusterState| {
                (0..).find(|index| {
                    !state.nodes.contains_key(&(service, *index))
                        && !state.starting.contains(&(service, *index))
                })
            };
            return Slot::take(shared, service, next);
        }
        sleep(POLL).await;
    }
}

/// Whether a living process says that it is on its way out.
async fn is_stopping(node: &Node) -> bool {
    let status = probe::get(&format!("{}/status", node.admin()), PROBE).await;
    let state = status.ok().and_then(|answer| serde_json::from_str::<serde_json::Value>(&answer.body).ok());
    let state = state.as_ref().and_then(|status| status.get("state")).and_then(serde_json::Value::as_str);
    matches!(state, Some("draining" | "cleaning" | "stopped"))
}

async fn start_store(shared: &Arc<ClusterShared>, store: &Arc<Store>) -> Result<Node, Error> {
    // Also at each later start: a wipe has removed it.
    store.initialise(&shared.record).await?;
    let (service, index) = (store.service, store.index);
    let (process, _) = begin(shared, service, index, store.command(), false)?;
    let addresses = Addresses { url: Some(store.url()), ..Addresses::default() };
    let node = Node { service, index, addresses, process };
    wait_until(&node.process, node.process.name(), store.ready_limit(), || store.is_ready()).await?;
    store.note_ready()?;
    // A primary is no loss then: a standby follows that commits wait for.
    if service == Service::Postgres {
        wait_until(&node.process, node.process.name(), store.ready_limit(), || store.has_joined()).await?;
    }
    settle(shared, node)
}

/// Starts a process in this place and leaves it alone: what it says goes to its log, and nobody waits for it.
pub(super) async fn unawaited(
    shared: &Arc<ClusterShared>,
    service: Service,
    index: usize,
) -> Result<Arc<Process>, Error> {
    let _place = Slot::take(shared, service, |_| Some(index))
        .ok_or_else(|| Error::System(format!("{} is being started already", service.name(index))))?;
    let (process, stdout) = spawn_service(shared, service, index).await?;
    keep_output(shared, &process, stdout);
    Ok(process)
}

async fn spawn_service(
    shared: &Arc<ClusterShared>,
    service: Service,
    index: usize,
) -> Result<(Arc<Process>, ChildStdout), Error> {
    let bin_dir = shared.next_bin_dir(service, index);
    let binary = find::service_binary(service, bin_dir.as_deref())?;
    let name = service.name(index);
    let mut command = held::command(&binary);
    command.current_dir(shared.folder.path());
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("SLUICE_")) {
        command.env_remove(key); // what is meant for the launcher, or for another deployment
    }
    if service == Service::Gateway {
        let port = client_port(shared, index)?;
        // Waited for here: the service would end at once, as it may not choose another one.
        wait_for_port(&port, &name).await?;
        command.env(env_name("listen"), format!("127.0.0.1:{}", port.number()));
    }
    command.envs(environment::of(shared, service, index));
    let (process, stdout) = begin(shared, service, index, command, true)?;
    let stdout = stdout.ok_or_else(|| Error::System(format!("{name} has no standard output")))?;
    Ok((process, stdout))
}

async fn start_service(shared: &Arc<ClusterShared>, service: Service, index: usize) -> Result<Node, Error> {
    let name = service.name(index);
    let (process, stdout) = spawn_service(shared, service, index).await?;
    let addresses = tokio::select! {
        addresses = introduction(shared, &process, stdout) => addresses?,
        _ = process.exit() => return Err(died(&process)),
    };
    let ready = format!("{}/readyz", addresses.admin.as_deref().unwrap_or_default());
    let node = Node { service, index, addresses, process };
    wait_until(&node.process, &name, SERVICE_READY, || async {
        match probe::get(&ready, PROBE).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.body.trim())),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    settle(shared, node)
}

fn client_port(shared: &ClusterShared, index: usize) -> Result<Arc<Port>, Error> {
    let mut state = shared.state();
    if let Some(port) = state.ports.get(&index) {
        return Ok(Arc::clone(port));
    }
    let port = Arc::new(Port::claim()?);
    state.ports.insert(index, Arc::clone(&port));
    Ok(port)
}

/// A predecessor that is draining lets go of its listener before it ends.
async fn wait_for_port(port: &Port, name: &str) -> Result<(), Error> {
    let until = Instant::now() + PORT_FREE;
    while !port.is_free() {
        if Instant::now() >= until {
            let text = format!("client port {} of {name} is still in use after {PORT_FREE:?}", port.number());
            return Err(Error::NoPort(text));
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// Starts a process and its watcher. From here on a stop of the cluster reaches it.
fn begin(
    shared: &Arc<ClusterShared>,
    service: Service,
    index: usize,
    command: Command,
    talks: bool,
) -> Result<(Arc<Process>, Option<ChildStdout>), Error> {
    let name = service.name(index);
    let mut state = shared.state();
    if state.stopping {
        return Err(Error::Stopping);
    }
    // One log for a place: what its processes said stands there in order.
    let log = shared.folder.log(&name);
    let mut stderr = None;
    if shared.options.log_readers && !service.is_store() {
        let reading = state.log_readings.entry((service, index)).or_default().subscribe();
        let (pipe, reader) = log_reader::connect(log.clone(), reading)?;
        shared.spawn(reader);
        stderr = Some(pipe);
    }
    let at_once = kill_signal(&state.stores, service);
    let on_record = |pid| shared.record.add(pid, at_once, &service.name(index));
    let (process, stdout) = Process::start(name, command, log, stderr, talks, on_record)?;
    // Under the same lock as the check above: a stop that begins now finds this process in the list.
    state.processes.retain(|(_, process)| process.exited().is_none());
    state.processes.push((service, Arc::clone(&process)));
    drop(state);
    watch(shared, service, index, Arc::clone(&process));
    Ok((process, stdout))
}

fn watch(shared: &Arc<ClusterShared>, service: Service, index: usize, process: Arc<Process>) {
    let started = Instant::now();
    let keeper = Arc::clone(shared);
    shared.spawn(async move {
        let tell = |exit: &Exit| {
            let (code, signal) = (exit.code(), exit.signal());
            keeper.emit(Event::Exit { service, pid: process.pid(), code, signal });
        };
        let exit = process.watch(tell).await;
        // A replaced one may end long after: that is no reason to start anything.
        let ours =
            keeper.state().nodes.get(&(service, index)).is_some_and(|node| node.pid() == process.pid());
        // one that was stopped through this library was meant to stop; one that never got ready was reported already
        if keeper.options.restart && ours && exit.elapsed.is_none() {
            restart(&keeper, service, index, started.elapsed()).await;
        }
    });
}

/// `--restart`: again and again, slower and slower while it does not get ready.
async fn restart(shared: &Arc<ClusterShared>, service: Service, index: usize, lived: Duration) {
    let (first, longest) = RESTART_PAUSE;
    // One that died young most likely dies again: it gets more time.
    let mut pause = if lived < RESTART_SETTLED { first * 4 } else { first };
    loop {
        sleep(pause).await;
        if shared.state().stopping {
            return;
        }
        match replacement(shared, service, Some(index)).await {
            Ok(_) | Err(Error::Stopping) => return,
            Err(error) => shared.emit(Event::Failed { service, error: error.to_string() }),
        }
        pause = (pause * 2).min(longest);
    }
}

/// Makes it the process of its place.
fn settle(shared: &ClusterShared, node: Node) -> Result<Node, Error> {
    shared.state().nodes.insert((node.service, node.index), node.clone());
    Ok(node)
}

fn died(process: &Process) -> Error {
    let status = process.exited().map(|exit| exit.status).unwrap_or_default();
    Error::Died { name: process.name().to_owned(), status, log: process.log_tail() }
}

/// Asks until the answer is yes; a process that is not ready in time is killed.
async fn wait_until<F: Future<Output = Result<(), String>>>(
    process: &Process,
    name: &str,
    limit: Duration,
    is_ready: impl Fn() -> F,
) -> Result<(), Error> {
    let until = Instant::now() + limit;
    loop {
        let last = tokio::select! {
            said = is_ready() => match said {
                Ok(()) => return Ok(()),
                Err(said) => said,
            },
            // Who has died is not asked until the limit is over, and its log says why.
            _ = process.exit() => return Err(died(process)),
        };
        if Instant::now() >= until {
            process.kill();
            return Err(Error::NotReady {
                name: name.to_owned(),
                after: limit,
                last,
                log: process.log_tail(),
            });
        }
        sleep(POLL).await;
    }
}

/// Reads the one line a service says about itself; what else it says goes to its log.
async fn introduction(
    shared: &ClusterShared,
    process: &Process,
    stdout: ChildStdout,
) -> Result<Addresses, Error> {
    let name = process.name();
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    // Whatever program stands there may say anything, without an end.
    let mut bounded = (&mut reader).take(LINE_BYTES_MAX);
    let parsed = match timeout(SERVICE_READY, bounded.read_until(b'\n', &mut line)).await {
        Ok(Ok(_)) => Addresses::of_line(&line),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it said nothing within {SERVICE_READY:?}")),
    };
    keep_output(shared, process, reader);
    parsed.map_err(|error| {
        // Ended here: its caller knows nothing of it yet, and could not.
        process.kill();
        let text = String::from_utf8_lossy(&line);
        Error::System(format!("{name} did not introduce itself ({error}): {text:?}\n{}", process.log_tail()))
    })
}

/// What else a process says goes to its log, to the end.
fn keep_output(shared: &ClusterShared, process: &Process, mut from: impl AsyncRead + Send + Unpin + 'static) {
    let log = process.log().to_owned();
    shared.spawn(async move {
        let Ok(mut log) = tokio::fs::OpenOptions::new().append(true).open(log).await else { return };
        if tokio::io::copy(&mut from, &mut log).await.is_ok() {
            log.flush().await.ok();
        }
    });
}
