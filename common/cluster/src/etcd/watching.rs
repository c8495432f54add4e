//! Follows the registry: list, then watch from there, and list again at the latest after [`TRUST`].
//!
//! A watch alone is never believed for long: it can starve or die silently. On errors the last known set
//! stays.

use std::sync::Arc;
use std::time::Duration;

use sluice_proto::ids::InstanceId;
use tokio::time::{Instant, sleep, timeout_at};

use super::EtcdShared;
use super::error::RegistryError;
use super::lease::Pause;
use super::registry::KeyChange;
use crate::Commanded;
use crate::known::Known;

/// How long a watch is believed.
const TRUST: Duration = Duration::from_secs(15);

/// Follows the watch on all keys until its task is ended.
pub(super) async fn follow(shared: Arc<EtcdShared>) {
    let mut pause = Pause::new();
    loop {
        match session(&shared, &mut pause).await {
            Ok(()) => {}
            Err(error) => {
                tracing::debug!(%error, "The registry cannot be followed; the last known set stays.");
                sleep(pause.next()).await;
            }
        }
    }
}

async fn session(shared: &EtcdShared, pause: &mut Pause) -> Result<(), RegistryError> {
    // The whole list first: what a broken watch missed cannot be asked for.
    let listing = shared.registry.list().await?;
    shared.learn(|known, now| known.list(listing.instances, listing.owners, now));
    listing.commands.into_iter().for_each(|(to, command)| hear(shared, &to, command));
    doubt_if_unlisted(shared);
    let mut watch = shared.registry.watch(listing.revision).await?;
    *pause = Pause::new();
    // A watch that died silently looks like quiet.
    let end = Instant::now() + TRUST;
    loop {
        let Ok(message) = timeout_at(end, watch.message()).await else { return Ok(()) };
        let Some(message) = message? else { return Err(closed("the stream ended")) };
        if message.canceled() {
            // Compacted, or the member lost its leader.
            return Err(closed(message.cancel_reason()));
        }
        let changes: Vec<_> =
            message.events().iter().filter_map(|event| shared.registry.read(event)).collect();
        if !changes.is_empty() {
            shared.learn(|known, now| changes.iter().for_each(|change| apply(known, change, now)));
            for change in changes {
                if let KeyChange::Command(to, command) = change {
                    hear(shared, &to, command);
                }
            }
            doubt_if_unlisted(shared);
        }
    }
}

fn closed(why: &str) -> RegistryError {
    etcd_client::Error::WatchError(why.into()).into()
}

fn apply(known: &mut Known, change: &KeyChange, now: Instant) {
    match change {
        KeyChange::Put(instance) => known.put(instance.clone()),
        KeyChange::Removed(id) => known.remove(id, now),
        KeyChange::Owner(duty, owner) => known.put_owner(*duty, owner.clone(), now),
        KeyChange::NoOwner(duty) => known.remove_owner(*duty, now),
        KeyChange::Command(..) => {}
    }
}

/// Everybody sees every command; it is for one.
fn hear(shared: &EtcdShared, to: &InstanceId, command: Commanded) {
    if *to == shared.shown.id() {
        shared.shown.hear(command);
    }
}

/// Registered, but not there: etcd came back empty, or somebody removed the key.
fn doubt_if_unlisted(shared: &EtcdShared) {
    if shared.lease.borrow().is_some() && !shared.look(Known::is_listed) {
        shared.doubt.notify_one();
    }
}
