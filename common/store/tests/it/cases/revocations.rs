//! Which tokens are revoked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use sluice_proto::ids::UserId;
use sluice_store::Store;

use crate::rig::Rig;

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn now_s() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

/// Users and their seconds after a position, and where that ends.
async fn after(store: &dyn Store, position: u64) -> (Vec<(String, u32)>, u64) {
    let page = store.revocations(position, 100).await.unwrap();
    let all = page.page.iter().map(|one| (one.user.to_string(), one.issued_until_s));
    (all.collect(), page.head)
}

pub async fn a_later_revocation_takes_a_new_place_and_nothing_back(rig: &mut impl Rig) {
    let store = rig.open().await;
    assert_eq!(after(&*store, 0).await, (vec![], 0));
    let first = store.revoke(&user("ann"), Some(100)).await.unwrap();
    store.revoke(&user("Ann"), Some(50)).await.unwrap();
    assert_eq!((first.user, first.issued_until_s, first.position), (user("ann"), 100, 1));
    // Sent again, and by somebody whose clock is behind.
    assert_eq!(store.revoke(&user("ann"), Some(90)).await.unwrap().issued_until_s, 100);
    assert_eq!(after(&*store, 0).await, (vec![("Ann".into(), 50), ("ann".into(), 100)], 3));
    assert_eq!(after(&*store, 2).await, (vec![("ann".into(), 100)], 3));
    let before = now_s();
    let now = store.revoke(&user("ann"), None).await.unwrap().issued_until_s;
    assert!((before..=now_s()).contains(&now), "the store's own second");
    assert_eq!(after(&*store, u64::MAX).await, (vec![], 4));
}

pub async fn a_user_that_was_never_revoked_is_not_found(rig: &mut impl Rig) {
    let store = rig.open().await;
    store.revoke(&user("ann"), Some(100)).await.unwrap();
    store.revoke(&user("bob"), Some(90)).await.unwrap();
    let of = store.revocations_of(&["bob", "dora", "ann", "bob"].map(user)).await.unwrap();
    assert_eq!(of, [Some(90), None, Some(100), Some(90)]);
    assert_eq!(store.revocations_of(&[]).await.unwrap(), []);
    let up_to = [0, 1, 2].map(|position| store.revoked_up_to(position));
    assert_eq!(join_all(up_to).await.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [0, 100, 100]);
}

/// Whoever has read up to a position has missed none before it, however many are committed at once.
pub async fn pages_of_revocations_miss_none_while_many_revoke(rig: &mut impl Rig) {
    let stores = [rig.open().await, rig.open().await];
    let revoke = |n: u32| {
        let store = Arc::clone(&stores[n as usize % 2]);
        async move { store.revoke(&user(&format!("user-{}", n % 40)), Some(n)).await.unwrap() }
    };
    let reading = async {
        let (mut seen, mut position) = (BTreeMap::new(), 0);
        while position < 200 {
            let page = stores[0].revocations(position, 7).await.unwrap();
            position = if page.page.len() < 7 { page.head } else { page.page[6].position };
            seen.extend(page.page.into_iter().map(|one| (one.user.to_string(), one.issued_until_s)));
        }
        seen
    };
    let (_, seen) = tokio::join!(join_all((1..=200).map(revoke)), reading);
    let all: BTreeMap<String, u32> = after(&*stores[1], 0).await.0.into_iter().collect();
    assert_eq!((seen.len(), seen), (40, all));
}
