//! At rest nothing is left behind, and presence says who is there.

use crate::findings::{Finding, Findings};
use crate::history::History;
use crate::verdict::AnomalyKind;

/// A service opens links when it first needs them, and keeps them: 14 to the store, one each to Redis and NATS. More
/// than that is left open by somebody.
const FILES_MORE: u64 = 16;
/// Names in one sentence.
const NAMED_MAX: usize = 5;

pub(super) fn judge(history: &History, findings: &mut Findings) {
    let Some(leftovers) = &history.leftovers else { return };
    let mut leak = |text: String| findings.add(AnomalyKind::Leak, || Finding::new(text));
    for (count, what) in [
        (leftovers.outbox_rows, "rows in the outbox"),
        (leftovers.idle_in_transaction, "sessions of PostgreSQL idle in a transaction"),
    ] {
        if let Some(count) = count.filter(|count| *count > 0) {
            leak(format!("{count} {what} at rest"));
        }
    }
    for (strays, what) in
        [(&leftovers.stray_etcd_keys, "keys in etcd"), (&leftovers.stray_redis_fields, "fields in Redis")]
    {
        if let Some(strays) = strays.as_ref().filter(|strays| !strays.is_empty()) {
            let named = strays.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
            leak(format!("{} {what} belong to nobody: {named}", strays.len()));
        }
    }
    // Against the time before the load: each service opens some for itself.
    for (process, (before, after)) in &leftovers.files {
        if *after > before + FILES_MORE {
            leak(format!("{process} holds {after} files open at rest, {before} before the load"));
        }
    }
    for asked in leftovers.presence.iter().filter(|asked| asked.said != asked.open) {
        findings.add(AnomalyKind::PresenceWrong, || {
            let users = asked.said.keys().chain(asked.open.keys());
            let wrong = users.filter(|user| asked.said.get(*user) != asked.open.get(*user));
            let count = |of: Option<&u32>| of.copied().unwrap_or_default();
            let differs = wrong.map(|user| {
                format!("{user} {} instead of {}", count(asked.said.get(user)), count(asked.open.get(user)))
            });
            let mut differs: Vec<String> = differs.collect();
            differs.sort();
            // A user of both sides was looked at twice.
            differs.dedup();
            let (room, total) = (&asked.room, differs.len());
            differs.truncate(NAMED_MAX);
            Finding::new(format!("presence of {room:?} is wrong for {total}: {}", differs.join(", ")))
        });
    }
}
