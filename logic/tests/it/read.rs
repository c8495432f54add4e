//! Reads beside each other: history takes nothing from who subscribes, and who has left is not read for.

use std::time::{Duration, Instant};

use sluice_logic::defaults::{HISTORY_READS_MAX, READ_TURN_WITHIN, READS_MAX};
use sluice_proto::grpc::{HeadsRequest, ReadRange, ReadReply, ReadRequest};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use super::rig::{Caller, faked, get, within};

fn reading(caller: &Caller, history: bool) -> JoinHandle<Result<tonic::Response<ReadReply>, Status>> {
    let mut caller = caller.clone();
    let range = ReadRange { room: "news".into(), after: 0, before: 0, limit: 1 };
    let request = within(Duration::from_secs(9), ReadRequest { ranges: vec![range], history });
    tokio::spawn(async move { caller.read(request).await })
}

#[tokio::test]
async fn history_has_permits_of_its_own_and_hears_that_they_are_taken() {
    let faked = faked().await;
    let mut caller = faked.rig.caller().await;
    let mut reads = faked.store.reading.subscribe();
    let pages: Vec<_> = (0..HISTORY_READS_MAX).map(|_| reading(&caller, true)).collect();
    reads.wait_for(|n| *n == HISTORY_READS_MAX).await.unwrap();
    // Far more than there are permits for all kinds together.
    let more: Vec<_> = (0..2 * READS_MAX).map(|_| reading(&caller, true)).collect();
    let heads = HeadsRequest { rooms: vec!["news".into()] };
    let answer = caller.heads(within(Duration::from_secs(9), heads)).await;
    assert_eq!(answer.unwrap().into_inner().heads, [0]);
    let page = reading(&caller, false);
    reads.wait_for(|n| *n == HISTORY_READS_MAX + 1).await.unwrap();
    let asked = Instant::now();
    for read in more {
        let refused = read.await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    }
    assert!(asked.elapsed() < READ_TURN_WITHIN + Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!(*reads.borrow(), HISTORY_READS_MAX + 1, "nobody else came to the store");
    let metrics = get(faked.rig.admin, "/metrics").await.1;
    let told = format!("sluice_logic_reads_refused_total{{kind=\"history\"}} {}", 2 * READS_MAX);
    assert!(metrics.contains(&told), "{metrics}");
    pages.iter().chain([&page]).for_each(JoinHandle::abort);
    reads.wait_for(|n| *n == 0).await.unwrap();
    faked.rig.stop().await;
}

#[tokio::test]
async fn what_is_taken_back_is_dropped_while_it_waits_and_while_the_store_works() {
    let faked = faked().await;
    let caller = faked.rig.caller().await;
    let mut reads = faked.store.reading.subscribe();
    let first: Vec<_> = (0..HISTORY_READS_MAX).map(|_| reading(&caller, true)).collect();
    reads.wait_for(|n| *n == HISTORY_READS_MAX).await.unwrap();
    let waiting = reading(&caller, true);
    first.iter().for_each(JoinHandle::abort);
    // The one that waited is the only one now.
    reads.wait_for(|n| *n == 1).await.unwrap();
    waiting.abort();
    reads.wait_for(|n| *n == 0).await.unwrap();
    faked.rig.stop().await;
}
