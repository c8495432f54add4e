//! What two seeded bugs do before a group is committed: answer it, or announce it. Only with the feature
//! `seeded-bugs`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_proto::ids::{RoomId, Seq};
use sluice_proto::limits::LANES;
use sluice_service::seeded::{self, Bug};
use sluice_store::{Committed, NewMessage, Outcome, Row, StoreError};
use sluice_trace::Spans;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::CommitLane;
use super::group::{CallOutcomes, CommitGroup, PublishCall};

/// From the answer or the notice to the commit.
const EARLY: Duration = Duration::from_millis(30);

/// Of each lane: its last group is not committed yet.
static COMMITTING: [Mutex<()>; LANES as usize] = [const { Mutex::const_new(()) }; LANES as usize];

/// Answers a group before its commit, or gives it back to be committed.
pub(super) async fn commit(
    lane: &Arc<CommitLane>,
    calls: Vec<PublishCall>,
) -> Result<Vec<CallOutcomes>, Vec<PublishCall>> {
    if seeded::is(Bug::AnswerBeforeCommit) {
        return Ok(answer(Arc::clone(lane), calls).await);
    }
    if seeded::is(Bug::PushBeforeCommit) {
        announce(lane, &calls).await;
    }
    Err(calls)
}

/// Answers the group with what it expects, and has it committed afterwards.
async fn answer(lane: Arc<CommitLane>, calls: Vec<PublishCall>) -> Vec<CallOutcomes> {
    let turn = COMMITTING[usize::from(lane.lane)].lock().await;
    let Ok(expected) = expect(&lane, &items(&calls)).await else {
        return CommitGroup::new(&*lane.store, &*lane, &lane.clock, lane.lane, calls).run().await;
    };
    let mut rows = expected.rows.into_iter();
    let answers = calls.iter().map(|call| CallOutcomes {
        epoch: Some(expected.epoch),
        outcomes: rows.by_ref().take(call.items.len()).map(|row| row.outcome.into()).collect(),
    });
    let answers = answers.collect();
    #[expect(clippy::disallowed_methods, reason = "that nobody waits for it is the bug")]
    drop(tokio::spawn(async move {
        sleep(EARLY).await;
        CommitGroup::new(&*lane.store, &*lane, &lane.clock, lane.lane, calls).run().await;
        drop(turn);
    }));
    answers
}

/// Hands the notice of the group to the fan-out as if it were committed.
async fn announce(lane: &CommitLane, calls: &[PublishCall]) {
    let items = items(calls);
    if let Ok(expected) = expect(lane, &items).await {
        lane.notices.offer(lane.lane, &items, &expected, &Spans::default());
        sleep(EARLY).await;
    }
}

fn items(calls: &[PublishCall]) -> Vec<&NewMessage> {
    calls.iter().flat_map(|call| &call.items).collect()
}

/// What the commit will say if nothing comes between and no item is a duplicate.
async fn expect(lane: &CommitLane, items: &[&NewMessage]) -> Result<Committed, StoreError> {
    let mut rooms: Vec<RoomId> = items.iter().map(|item| item.room.clone()).collect();
    rooms.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    rooms.dedup();
    let heads = lane.store.heads(&rooms).await?;
    let mut last: HashMap<RoomId, Seq> = rooms.into_iter().zip(heads.heads).collect();
    let at_ms = lane.clock.now_ms();
    let row = |item: &&NewMessage| {
        let seq = last.entry(item.room.clone()).or_default();
        *seq += 1;
        Row { outcome: Outcome::Stored { seq: *seq, at_ms } }
    };
    Ok(Committed { epoch: heads.epoch, rows: items.iter().map(row).collect(), note: None })
}
