//! How much was judged.

use crate::history::{Fate, History, StepKind};
use crate::record::ClientEvent;
use crate::verdict::Counts;

pub(super) fn count(history: &History) -> Counts {
    let mut counts = Counts {
        clients: history.clients.len() as u64,
        sent: history.sent.len() as u64,
        stored: history.rows.len() as u64,
        faults: history.faults.iter().filter(|fault| fault.hit).count() as u64,
        ..Counts::default()
    };
    for step in history.clients.iter().flat_map(|client| &client.steps) {
        match &step.act {
            StepKind::Got { .. } => counts.delivered += 1,
            StepKind::Other(what) if matches!(**what, ClientEvent::Open { .. }) => counts.connections += 1,
            StepKind::Send(_)
            | StepKind::Answer(_)
            | StepKind::Sub(_)
            | StepKind::Subscribed(_)
            | StepKind::Skipped(_)
            | StepKind::Unsubscribed { .. }
            | StepKind::Page(_)
            | StepKind::Other(_) => {}
        }
    }
    let (mut acked, mut refused) = (vec![false; history.sent.len()], vec![false; history.sent.len()]);
    for answer in &history.answers {
        match answer.fate {
            Fate::Ok(_) => acked[answer.sent as usize] = true,
            Fate::Refused(_) => refused[answer.sent as usize] = true,
            Fate::Again(_) | Fate::GaveUp => {}
        }
    }
    for (acked, refused) in acked.into_iter().zip(refused) {
        counts.acked += u64::from(acked);
        // What was stored after all counts once: a refusal speaks for one sending only.
        counts.refused += u64::from(refused && !acked);
        counts.unknown += u64::from(!refused && !acked);
    }
    counts
}
