//! What every presence does. Each case is run against all of them.

use std::sync::Arc;
use std::time::Duration;

use sluice_presence::{Change, Presence, PresenceError, Present, Roster};
use sluice_proto::ids::{InstanceId, RoomId, UserId};
use sluice_testing::eventually;
use tokio::time::Instant;

pub const LONG: Duration = Duration::from_secs(10);
/// What a bed's presences are set to.
pub const LEAVE_GRACE: Duration = Duration::from_secs(3);

/// A presence, and what can happen to it.
pub trait Bed: Sized {
    /// An empty one that works.
    async fn start() -> Self;
    /// As another process sees it.
    fn connect(&self) -> Arc<dyn Presence>;
    async fn down(&mut self);
    async fn up_and_empty(&mut self);
}

/// Names the cases once; `$option` is for `tokio::test`.
macro_rules! against_the_contract {
    ($bed:ty $(, $option:ident = $value:literal)?) => {
        against_the_contract! { $bed, ($($option = $value)?):
            interest_is_a_set_by_room
            connections_are_counted_by_user
            subscribers_are_connections_by_room
            a_connection_belongs_to_who_wrote_it_last
            changes_are_applied_in_order_and_again_without_harm
            a_full_set_removes_what_it_does_not_name
            a_late_generation_changes_nothing
            a_reaped_instance_leaves_nothing_and_takes_nothing_of_others
            who_says_goodbye_leaves_nothing_and_does_not_come_back
            queries_are_bounded
            a_ticket_is_taken_once_and_not_for_ever
            the_marker_tells_of_a_wipe
            while_it_is_down_every_call_fails_and_the_first_after_works
            a_close_is_final_and_concerns_nobody_else
        }
    };
    ($bed:ty, $options:tt: $($case:ident)*) => {$(
        #[tokio::test $options]
        async fn $case() {
            crate::contract::$case::<$bed>().await;
        }
    )*};
}

pub fn instance(name: &str) -> InstanceId {
    InstanceId::parse(name).unwrap()
}

pub fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

pub fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub fn connected(connection: &str, name: &str, since_ms: i64) -> Change {
    Change::Connected { connection: connection.into(), user: user(name), since_ms, info: String::new() }
}

pub fn disconnected(connection: &str, name: &str) -> Change {
    Change::Disconnected { connection: connection.into(), user: user(name) }
}

pub fn joined(connection: &str, name: &str, in_room: &str, since_ms: i64) -> Change {
    let (user, room) = (user(name), room(in_room));
    Change::Joined { connection: connection.into(), user, room, since_ms, watches: false }
}

pub fn left(connection: &str, from: &str) -> Change {
    Change::Left { connection: connection.into(), room: room(from), goodbye: false }
}

pub fn interest(name: &str) -> Change {
    Change::InterestAdded(room(name))
}

/// Everything that many connections of many users in many rooms are.
pub fn crowd(connections: i64) -> Vec<Change> {
    let all = |n: i64| {
        let (connection, name, of) = (format!("c{n}"), format!("u{}", n % 700), format!("r{}", n % 90));
        [connected(&connection, &name, n), joined(&connection, &name, &of, n), interest(&of)]
    };
    (0..connections).flat_map(all).collect()
}

async fn interested(presence: &dyn Presence, rooms: &[&str]) -> Vec<Vec<InstanceId>> {
    let rooms: Vec<RoomId> = rooms.iter().map(|name| room(name)).collect();
    let mut interested = presence.interested(&rooms).await.unwrap();
    interested.iter_mut().for_each(|ids| ids.sort());
    interested
}

async fn instances(presence: &dyn Presence) -> Vec<InstanceId> {
    let mut instances = presence.instances().await.unwrap();
    instances.sort();
    instances
}

/// Connections of a user, and since when.
async fn of_user(presence: &dyn Presence, name: &str) -> Option<(u32, i64)> {
    presence.user(&user(name)).await.unwrap().map(|present| (present.connections, present.since_ms))
}

/// The users of a small room.
pub async fn in_room(presence: &dyn Presence, name: &str) -> Vec<Present> {
    let roster = presence.room(&room(name), None, 10).await.unwrap();
    assert_eq!((roster.count as usize, roster.more), (roster.users.len(), false));
    roster.users
}

pub async fn interest_is_a_set_by_room<B: Bed>() {
    let bed = B::start().await;
    let presence = bed.connect();
    let (a, b) = (instance("a"), instance("b"));
    let rooms = [room("x"), room("y"), room("z")];
    presence.add_interest(&a, &rooms[..2]).await.unwrap();
    presence.add_interest(&b, &rooms[1..2]).await.unwrap();
    presence.add_interest(&b, &rooms[1..2]).await.unwrap();
    let all = ["x", "y", "z"];
    assert_eq!(interested(&*presence, &all).await, [vec![a.clone()], vec![a.clone(), b.clone()], vec![]]);
    presence.remove_interest(&a, &rooms).await.unwrap();
    presence.remove_interest(&a, &rooms).await.unwrap();
    assert_eq!(interested(&*presence, &all).await, [vec![], vec![b], vec![]]);
    assert!(presence.interested(&[]).await.unwrap().is_empty());
}

pub async fn connections_are_counted_by_user<B: Bed>() {
    let bed = B::start().await;
    let (one, two) = (bed.connect(), bed.connect());
    let (a, b) = (instance("a"), instance("b"));
    one.apply(&a, &[connected("1", "ann", 50), joined("1", "ann", "x", 60)]).await.complete().unwrap();
    two.apply(&b, &[connected("2", "ann", 40), joined("2", "ann", "x", 70), connected("3", "bob|x", 9)])
        .await
        .complete()
        .unwrap();
    assert_eq!(of_user(&*one, "ann").await, Some((2, 40)));
    assert_eq!(of_user(&*two, "bob|x").await, Some((1, 9)));
    let ann = Present { user: user("ann"), connections: 2, since_ms: 60, info: String::new() };
    assert_eq!(in_room(&*one, "x").await, [ann]);
    let ends = [disconnected("1", "ann"), disconnected("2", "ann")];
    one.apply(&a, &ends).await.complete().unwrap();
    assert_eq!(of_user(&*one, "ann").await, Some((1, 40)), "each removes only its own");
    two.apply(&b, &ends).await.complete().unwrap();
    assert_eq!(of_user(&*one, "ann").await, None);
}

pub async fn subscribers_are_connections_by_room<B: Bed>() {
    let bed = B::start().await;
    let presence = bed.connect();
    assert_eq!(presence.subscribers(&[]).await.unwrap(), Vec::<u64>::new());
    let changes = [joined("1", "ann", "x", 1), joined("2", "ann", "x", 1), joined("3", "bob", "y", 1)];
    presence.apply(&instance("a"), &changes).await.complete().unwrap();
    let rooms = [room("y"), room("empty"), room("x")];
    assert_eq!(presence.subscribers(&rooms).await.unwrap(), [1, 0, 2]);
    presence.apply(&instance("a"), &[left("1", "x")]).await.complete().unwrap();
    assert_eq!(presence.subscribers(&rooms).await.unwrap(), [1, 0, 1]);
}

pub async fn a_connection_belongs_to_who_wrote_it_last<B: Bed>() {
    let bed = B::start().await;
    let presence = bed.connect();
    let (a, b) = (instance("a"), instance("b"));
    let of = |since_ms| [connected("1", "ann", since_ms), joined("1", "ann", "x", since_ms)];
    presence.apply(&a, &of(1)).await.complete().unwrap();
    presence.apply(&b, &of(2)).await.complete().unwrap();
    // Whatever the former still says of it.
    let ends = [left("1", "x"), disconnected("1", "ann")];
    presence.apply(&a, &ends).await.complete().unwrap();
    presence.full_set(&a, 9, &[], true).await.unwrap();
    assert_eq!(presence.reap(&a).await.unwrap(), 0);
    assert_eq!(of_user(&*presence, "ann").await, Some((1, 2)));
    assert_eq!(in_room(&*presence, "x").await.len(), 1);
    presence.apply(&b, &ends).await.complete().unwrap();
    assert_eq!(of_user(&*presence, "ann").await, None);
    assert_eq!(in_room(&*presence, "x").await, []);
}

pub async fn changes_are_applied_in_order_and_again_without_harm<B: Bed>() {
    let bed = B::start().await;
    let presence = bed.connect();
    let a = instance("a");
    let changes = [
        interest("x"),
        Change::InterestRemoved(room("x")),
        Change::InterestRemoved(room("y")),
        interest("y"),
        connected("1", "ann", 1),
        disconnected("1", "ann"),
        connected("1", "ann", 2),
        joined("1", "ann", "y", 3),
        left("1", "y"),
    ];
    for _ in 0..2 {
        presence.apply(&a, &changes).await.complete().unwrap();
        assert_eq!(interested(&*presence, &["x", "y"]).await, [vec![], vec![a.clone()]]);
        assert_eq!(of_user(&*presence, "ann").await, Some((1, 2)));
        assert_eq!(in_room(&*presence, "y").await, []);
    }
    assert_eq!(presence.reap(&a).await.unwrap(), 2);
}

pub async fn a_full_set_removes_what_it_does_not_name<B: Bed>() {
    let bed = B::start().await;
    let presence = bed.connect();
    let (a, b) = (instance("a"), instance("b"));
    let kept = [connected("1", "ann", 1), joined("1", "ann", "x", 1), interest("x")];
    let stale = [connected("9", "zoe", 1), joined("9", "zoe", "y", 1), interest("y")];
    presence.apply(&b, &[connected("5", "zoe", 1), interest("y")]).await.complete().unwrap();
    presence.apply(&a, &kept).await.complete().unwrap();
    presence.apply(&a, &stale).await.complete().unwrap();

    presence.full_set(&a, 7, &kept[..2], false).await.unwrap();
    assert_eq!(of_user(&*presence, "zoe").await, Some((2, 1)), "nothing goes before the last part");
    // Said between the parts: belongs to this generation.
    presence.apply(&a, &[connected("2", "new", 1)]).await.complete().unwrap();
    presence.add_interest(&a, &[room("w")]).await.unwrap();
    // Removals among the changes are applied.
    let rest = [interest("x"), joined("1", "ann", "z", 1), left("1", "z")];
    presence.full_set(&a, 7, &rest, true).await.unwrap();

    let all = ["w", "x", "y"];
    assert_eq!(interested(&*presence, &all).await, [vec![a.clone()], vec![a.clone()], vec![b.clone()]]);
    assert_eq!(of_user(&*presence, "zoe").await, Some((1, 1)), "b's is not a's");
    assert!(of_user(&*presence, "new").await.is_some());
    for empty in ["y", "z"] {
        assert_eq!(in_room(&*presence, empty).await, []);
    }
    // An empty one is the end of all.
    presence.full_set(&a, 8, &[], true).await.unwrap();
    assert_eq!(interested(&*presence, &all).await, [vec![], vec![], vec![b]]);
    assert_eq!(of_user(&*presence, "ann").await, None);
}

pub async fn a_late_generation_changes_nothing<B: Bed>() {
    let bed = B::start().await;
    let presence = bed.connect();
    let a = instance("a");
    presence.apply(&a, &[interest("x"), connected("1", "ann", 1)]).await.complete().unwrap();
    presence.full_set(&a, 7, &[interest("y")], false).await.unwrap();
    // Its end neither removes what the present generation has not named yet, nor does it say anything.
    presence.full_set(&a, 6, &[interest("z")], true).await.unwrap();
    let all = ["x", "y", "z"];
    assert_eq!(interested(&*presence, &all).await, [vec![a.clone()], vec![a.clone()], vec![]]);
    presence.full_set(&a, 7, &[connected("1", "ann", 1)], true).await.unwrap();
    presence.full_set(&a, 6, &[interest("z")], true).await.unwrap();
    presence.full_set(&a, 7, &[], true).await.unwrap();
    assert_eq!(interested(&*presence, &all).await, [vec![], vec![a.clone()], vec![]]);
    assert_eq!(of_user(&*presence, "ann").await, Some((1, 1)));
}

pub async fn a_reaped_instance_leaves_nothing_and_takes_nothing_of_others<B: Bed>() {
    let bed = B::start().await;
    let presence = bed.connect();
    let (dead, alive) = (instance("dead"), instance("alive"));
    let mine = [connected("x", "u1", 1), joined("x", "u1", "r1", 1), interest("r1")];
    presence.apply(&alive, &mine).await.complete().unwrap();
    presence.full_set(&dead, 3, &crowd(1_500), true).await.unwrap();
    assert_eq!(instances(&*presence).await, [alive.clone(), dead.clone()]);

    // A connection that moved: its field is the successor's now.
    presence.apply(&alive, &[connected("c7", "u7", 5)]).await.complete().unwrap();
    assert_eq!(presence.reap(&dead).await.unwrap(), 1_500 * 2 - 1 + 90);
    assert_eq!(of_user(&*presence, "u7").await, Some((1, 5)));
    presence.apply(&alive, &[disconnected("c7", "u7")]).await.complete().unwrap();
    assert_eq!(instances(&*presence).await, std::slice::from_ref(&alive));
    for n in 0..700 {
        let expected = (n == 1).then_some((1, 1));
        assert_eq!(of_user(&*presence, &format!("u{n}")).await, expected);
    }
    for n in 0..90 {
        let name = format!("r{n}");
        let expected = if n == 1 { vec![alive.clone()] } else { vec![] };
        assert_eq!(in_room(&*presence, &name).await.len(), expected.len());
        assert_eq!(interested(&*presence, &[&name]).await, [expected]);
    }
    assert_eq!(presence.reap(&dead).await.unwrap(), 0);
}

pub async fn who_says_goodbye_leaves_nothing_and_does_not_come_back<B: Bed>() {
    let bed = B::start().await;
    let presence = bed.connect();
    let stays = instance("stays");
    presence.apply(&stays, &[connected("x", "u1", 1), interest("r1")]).await.complete().unwrap();
    // as many as one call removes, and so many that it takes several
    for (leaves, connections) in [(instance("small"), 300), (instance("large"), 2_000)] {
        presence.full_set(&leaves, 3, &crowd(connections), false).await.unwrap();
        assert_eq!(instances(&*presence).await.len(), 2);
        presence.goodbye(&leaves).await.unwrap();
        // reports that were on their way when it said so
        presence.apply(&leaves, &[connected("late", "u9", 9), interest("r9")]).await.complete().unwrap();
        presence.full_set(&leaves, 4, &crowd(10), true).await.unwrap();
        presence.add_interest(&leaves, &[room("r8")]).await.unwrap();
        assert_eq!(instances(&*presence).await, std::slice::from_ref(&stays));
        assert_eq!(interested(&*presence, &["r1", "r8", "r9"]).await, [vec![stays.clone()], vec![], vec![]]);
        assert_eq!((of_user(&*presence, "u9").await, in_room(&*presence, "r7").await.len()), (None, 0));
    }
    assert_eq!(of_user(&*presence, "u1").await, Some((1, 1)));
    presence.goodbye(&instance("nobody")).await.unwrap();
}

pub async fn queries_are_bounded<B: Bed>() {
    let bed = B::start().await;
    let presence = bed.connect();
    let crowd: Vec<Change> =
        (0..5_000).map(|n| joined(&format!("c{n}"), &format!("u{n}"), "big", n)).collect();
    presence.apply(&instance("a"), &crowd).await.complete().unwrap();
    let big = room("big");
    let mut all = Vec::new();
    loop {
        let page = presence.room(&big, all.last(), 1_000).await.unwrap();
        assert_eq!((page.count, page.connections, page.users.len()), (5_000, 5_000, 1_000));
        all.extend(page.users.into_iter().map(|present| present.user));
        if !page.more {
            break;
        }
        // Who comes and goes between two pages moves nobody else.
        presence
            .apply(&instance("a"), &[joined("late", "a", "big", 1), left("late", "big")])
            .await
            .complete()
            .unwrap();
    }
    assert_eq!(all.len(), 5_000);
    assert!(all.is_sorted(), "by name");
    let left: Vec<Change> = (0..5_000).map(|n| left(&format!("c{n}"), "big")).collect();
    presence.apply(&instance("a"), &left).await.complete().unwrap();
    assert_eq!(presence.room(&big, None, 100).await.unwrap(), Roster::default());
    for n in 0..1_100 {
        presence.apply(&instance(&format!("i{n}")), &[interest("x")]).await.complete().unwrap();
    }
    assert_eq!(presence.instances().await.unwrap().len(), 1_000);
}

pub async fn the_marker_tells_of_a_wipe<B: Bed>() {
    let mut bed = B::start().await;
    let (one, two) = (bed.connect(), bed.connect());
    let marker = one.marker().await.unwrap();
    assert_ne!(marker, 0);
    assert_eq!(two.marker().await.unwrap(), marker);
    one.apply(&instance("a"), &[interest("x")]).await.complete().unwrap();
    bed.down().await;
    bed.up_and_empty().await;
    eventually("another marker", LONG, async || one.marker().await.is_ok_and(|now| now != marker)).await;
    let now = one.marker().await.unwrap();
    eventually("for all", LONG, async || two.marker().await == Ok(now)).await;
    assert_eq!(interested(&*two, &["x"]).await, [vec![]]);
    assert_eq!(instances(&*two).await, []);
}

pub async fn a_ticket_is_taken_once_and_not_for_ever<B: Bed>() {
    let mut bed = B::start().await;
    let (one, two) = (bed.connect(), bed.connect());
    let (minute, record) = (Duration::from_secs(60), [0, 255, b'\n', 7]);
    one.keep_ticket("a", &record, minute).await.unwrap();
    let (first, second) = tokio::join!(one.take_ticket("a"), two.take_ticket("a"));
    let taken: Vec<_> = [first.unwrap(), second.unwrap()].into_iter().flatten().collect();
    assert_eq!(taken, [record.to_vec()], "one of two who come at once");
    assert_eq!(one.take_ticket("a").await, Ok(None));
    assert_eq!(one.take_ticket("never").await, Ok(None));
    one.keep_ticket("short", &record, Duration::from_millis(50)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(two.take_ticket("short").await, Ok(None), "its time is over");
    one.keep_ticket("lost", &record, minute).await.unwrap();
    bed.down().await;
    bed.up_and_empty().await;
    eventually("it answers", LONG, async || two.marker().await.is_ok()).await;
    assert_eq!(two.take_ticket("lost").await, Ok(None), "lost with the rest");
}

/// One call of each kind.
async fn outcomes(presence: &dyn Presence) -> Vec<Result<(), PresenceError>> {
    let (a, x) = (instance("a"), [room("x")]);
    vec![
        presence.add_interest(&a, &x).await,
        presence.remove_interest(&a, &x).await,
        presence.interested(&x).await.map(drop),
        presence.apply(&a, &[interest("x")]).await.complete().map(drop),
        presence.due_leaves().await.map(drop),
        presence.full_set(&a, 1, &[], true).await,
        presence.marker().await.map(drop),
        presence.room(&x[0], None, 1).await.map(drop),
        presence.user(&user("ann")).await.map(drop),
        presence.instances().await.map(drop),
        presence.reap(&a).await.map(drop),
        presence.keep_ticket("a", b"record", LONG).await,
        presence.take_ticket("a").await.map(drop),
    ]
}

pub async fn while_it_is_down_every_call_fails_and_the_first_after_works<B: Bed>() {
    let mut bed = B::start().await;
    bed.down().await;
    let presence = bed.connect();
    for _ in 0..5 {
        let begun = Instant::now();
        let outcomes = outcomes(&*presence).await;
        let unavailable = |outcome: &_| matches!(outcome, Err(PresenceError::Unavailable(_)));
        assert!(outcomes.iter().all(unavailable), "{outcomes:?}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert!(presence.probe().await.is_err_and(|why| !why.is_empty()), "and it says why");
    }
    bed.up_and_empty().await;
    eventually("it works", Duration::from_secs(6), async || presence.probe().await.is_ok()).await;
    let outcomes = outcomes(&*presence).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

pub async fn a_close_is_final_and_concerns_nobody_else<B: Bed>() {
    let bed = B::start().await;
    let (presence, other) = (bed.connect(), bed.connect());
    let marker = other.marker().await.unwrap();
    presence.marker().await.unwrap();
    presence.close().await;
    presence.close().await;
    for outcome in outcomes(&*presence).await {
        assert_eq!(outcome, Err(PresenceError::Closed));
    }
    assert_eq!(other.marker().await, Ok(marker));
}
