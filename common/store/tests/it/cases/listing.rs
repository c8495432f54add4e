//! Lists: rooms by prefix, and what waits in a room. Every page says whether others follow, and where.

use sluice_proto::ids::{Key, UserId};
use sluice_store::{
    DelayedItem, Due, RoomList, RoomQuery, ScheduledList, ScheduledQuery, Store, WaitingLimit,
};

use super::contract::{LATER, message, messages, publish, room};
use crate::rig::Rig;

async fn rooms(store: &dyn Store, prefix: &str, after: &str, limit: u32) -> RoomList {
    store.rooms(&RoomQuery { prefix: prefix.into(), after: after.into(), limit }).await.unwrap()
}

fn names(list: &RoomList) -> Vec<&str> {
    list.rooms.iter().map(|summary| summary.room.as_str()).collect()
}

pub async fn rooms_are_listed_by_prefix_in_pages(rig: &mut impl Rig) {
    let store = rig.open().await;
    assert_eq!(names(&rooms(&*store, "", "", 10).await), Vec::<&str>::new());
    for name in ["news.b", "news.a", "news", "newt", "é", "@ann", "news.\u{10ffff}"] {
        publish(&*store, messages(name, name.len())).await;
    }
    let all = rooms(&*store, "", "", 10).await;
    assert_eq!(names(&all), ["@ann", "news", "news.a", "news.b", "news.\u{10ffff}", "newt", "é"], "by bytes");
    assert!(!all.more && all.epoch == store.epoch().await.unwrap());
    assert!(all.rooms.iter().all(|it| it.head == it.room.as_str().len() as u64 && it.at_ms > Some(0)));
    assert_eq!(names(&rooms(&*store, "news.", "", 10).await), ["news.a", "news.b", "news.\u{10ffff}"]);
    assert_eq!(names(&rooms(&*store, "é", "", 10).await), ["é"]);
    let (mut after, mut seen, mut pages) = (String::new(), Vec::new(), 0);
    loop {
        let page = rooms(&*store, "news", &after, 2).await;
        seen.extend(page.rooms.iter().map(|it| it.room.to_string()));
        pages += 1;
        after = seen.last().unwrap().clone();
        if !page.more {
            break;
        }
    }
    assert_eq!((seen.len(), pages), (4, 2), "{seen:?}");
    assert_eq!(names(&rooms(&*store, "news", "newz", 2).await), Vec::<&str>::new());
}

pub async fn what_waits_in_a_room_is_listed_in_pages(rig: &mut impl Rig) {
    let store = rig.open().await;
    let schedule = |sender: &str, key: &str, data: &str| DelayedItem::Schedule {
        message: message("a", sender, key, data),
        due: Due::At(LATER / 2_000_000),
    };
    let items = vec![
        schedule("bob", "k1", "1"),
        schedule("ann", "k2", "22"),
        schedule("ann", "k1", "333"),
        schedule("cy", "k", "4444"),
    ];
    store.delay(room("a").lane(), LATER, &WaitingLimit::default(), items).await.unwrap();
    let (sender, key) = (UserId::parse("cy").unwrap(), Key::parse("k").unwrap());
    let cancel = DelayedItem::Cancel { room: room("a"), sender, key };
    store.delay(room("a").lane(), LATER, &WaitingLimit::default(), vec![cancel]).await.unwrap();
    let list = async |after: Option<(&str, &str)>, limit, bytes_max| {
        let after = after.map(|(user, key)| (UserId::parse(user).unwrap(), Key::parse(key).unwrap()));
        store.scheduled(&ScheduledQuery { room: room("a"), after, limit, bytes_max }).await.unwrap()
    };
    let seen = |list: &ScheduledList| -> Vec<String> {
        list.messages.iter().map(|it| format!("{}/{}", it.sender, it.key)).collect()
    };
    let all = list(None, 10, 1_000).await;
    assert_eq!((seen(&all), all.more), (vec!["ann/k1".into(), "ann/k2".into(), "bob/k1".into()], false));
    assert_eq!((all.messages[0].due_ms, &all.messages[0].data[..]), (LATER / 2_000_000, &b"333"[..]));
    let first = list(None, 2, 1_000).await;
    assert_eq!((seen(&first).len(), first.more), (2, true));
    let rest = list(Some(("ann", "k2")), 2, 1_000).await;
    assert_eq!((seen(&rest), rest.more), (vec!["bob/k1".to_owned()], false));
    for (bytes_max, fit) in [(1, 1), (3, 1), (4, 1), (5, 2), (6, 3)] {
        let page = list(None, 10, bytes_max).await;
        assert_eq!((page.messages.len(), page.more), (fit, fit < 3), "{bytes_max} bytes");
    }
    let query = ScheduledQuery { room: room("b"), after: None, limit: 1, bytes_max: 1 };
    assert_eq!(store.scheduled(&query).await.unwrap().messages, []);
}
