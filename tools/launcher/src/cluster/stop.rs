//! Stopping: in order and bounded, or at once when the cluster is dropped. Signals processes by their own pid only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use nix::sys::signal::Signal;

use super::state::ClusterShared;
use crate::defaults::{POLL, POSTMASTER_STOP, SERVICE_STOP};
use crate::process::{Exit, Process};
use crate::service::Service;
use crate::store::{Store, Stores};

/// How everything ended.
#[derive(Debug, Clone, Default)]
pub struct Stopped {
    /// How each process ended that still ran: its name and its exit.
    pub exits: Vec<(String, Exit)>,
    /// Names of those that had to be killed because they did not stop in time.
    pub killed: Vec<String>,
}

/// How long a dropped cluster waits for its killed children.
const DROP_WAIT: Duration = Duration::from_secs(2);

/// The order in which nobody waits for one that is gone.
const ORDER: [&[Service]; 6] = [
    &[Service::Gateway],
    &[Service::Task],
    &[Service::Logic],
    // Before the servers: they would begin a failover.
    &[Service::Sentinel, Service::Haproxy],
    // Patroni asks etcd before it lets go.
    &[Service::Postgres],
    &[Service::Nats, Service::Etcd, Service::Redis],
];

pub(super) async fn all(shared: &ClusterShared) -> Stopped {
    // Before the list is taken: what starts from now on is refused, so that nobody is missed.
    shared.state().stopping = true;
    let mut stopped = Stopped::default();
    for group in ORDER {
        // Looked at anew for each group: a replacement may have begun before the stop did.
        let processes = shared.state().processes.clone();
        let living = processes
            .into_iter()
            .filter(|(service, process)| group.contains(service) && process.exited().is_none());
        let ends = living.map(|(service, process)| async move {
            let (signal, limit) = manner(shared, service);
            (process.name().to_owned(), end(&process, signal, limit).await)
        });
        for (name, (exit, killed)) in join_all(ends).await {
            if killed {
                stopped.killed.push(name.clone());
            }
            stopped.exits.push((name, exit));
        }
        if group.contains(&Service::Postgres) {
            end_postmasters(&shared.members(Service::Postgres)).await;
        }
    }
    stopped
}

/// Ends each PostgreSQL that has lost its Patroni.
pub(super) async fn end_postmasters(members: &[Arc<Store>]) {
    let until = quit_postmasters(members);
    while members.iter().any(|member| member.has_postmaster()) && Instant::now() < until {
        tokio::time::sleep(POLL).await;
    }
    for member in members {
        member.signal_postmaster(Signal::SIGKILL);
    }
}

/// Tells them to end at once; until when they have time for it.
fn quit_postmasters(members: &[Arc<Store>]) -> Instant {
    for member in members {
        member.signal_postmaster(Signal::SIGQUIT);
        member.signal_postmaster(Signal::SIGCONT);
    }
    Instant::now() + POSTMASTER_STOP
}

/// Which signal asks it to stop, and how long it may take.
pub(super) fn manner(shared: &ClusterShared, service: Service) -> (Signal, Duration) {
    match shared.state().stores.get(&(service, 0)) {
        Some(store) => (store.stop_signal(), store.stop_limit()),
        None => (Signal::SIGTERM, SERVICE_STOP),
    }
}

/// Asks, waits, kills. A frozen process is thawed with its children, else it could not hear the question, or would wait
/// for one that cannot. Says whether it was killed.
pub(super) async fn end(process: &Arc<Process>, signal: Signal, limit: Duration) -> (Exit, bool) {
    // The signal first: thawed before it, it would work for a moment.
    process.signal(signal);
    process.signal_family(Signal::SIGCONT);
    if let Ok(exit) = process.wait_exit(limit).await {
        return (exit, false);
    }
    process.kill();
    (process.exit().await, true)
}

/// What ends it at once.
pub(super) fn kill_signal(stores: &Stores, service: Service) -> Signal {
    stores.get(&(service, 0)).map_or(Signal::SIGKILL, |store| store.kill_signal())
}

/// Kills everything without a runtime; PostgreSQL is killed when even its immediate stop takes too long, and is told to
/// end after the Patroni that would start it again.
pub(super) fn now(shared: &ClusterShared) {
    let mut state = shared.state();
    state.stopping = true;
    let mut living: Vec<(Service, Arc<Process>)> = std::mem::take(&mut state.processes);
    let stores = state.stores.clone();
    // Before the waiting: a watcher that wants the state would never end.
    drop(state);
    // One that has ended is reaped first, so that its pid is never signalled.
    living.retain(|(_, process)| !process.reap_now());
    for (service, process) in &living {
        process.signal(kill_signal(&stores, *service));
        process.signal_family(Signal::SIGCONT);
    }
    let members: Vec<Arc<Store>> = stores.into_values().collect();
    quit_postmasters(&members);
    let until = Instant::now() + DROP_WAIT;
    while !living.is_empty() || members.iter().any(|member| member.has_postmaster()) {
        if Instant::now() >= until {
            for (_, process) in &living {
                process.kill();
            }
            for member in &members {
                member.signal_postmaster(Signal::SIGKILL);
            }
            return;
        }
        std::thread::park_timeout(Duration::from_millis(2));
        living.retain(|(_, process)| !process.reap_now());
    }
}
