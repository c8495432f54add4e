//! What users, addresses and crowds may do, by the paused clock.

use super::*;
use crate::config::ConnectionLimits;
use crate::defaults;

fn limits() -> Limits {
    let party = PartyLimits {
        connections: 2,
        handshakes_per_s: 1,
        publishes_per_s: 10,
        subscribes_per_s: 0,
        new_rooms_per_s: 1,
        questions_per_s: 1,
        history_bytes: 1_000,
        history_bytes_per_s: 0,
    };
    let connection = ConnectionLimits { other_frames_per_s: 10 };
    Limits {
        scheduled_per_user: 0,
        handshakes_per_s: 2,
        opened_rooms_per_s: 100,
        connection,
        user: party.clone(),
        address: party,
    }
}

fn ip(last: u8) -> Option<IpAddr> {
    Some(IpAddr::from([192, 0, 2, last]))
}

#[tokio::test(start_paused = true)]
async fn a_crowd_is_spread_by_its_number() {
    let usages = Usages::new(&limits());
    let burst = 2 * CROWD_BURST_S;
    for n in 0..burst {
        assert!(usages.enter(ip(n as u8)).is_ok(), "{n}");
    }
    let told: Vec<_> = (100..106).map(|n| usages.enter(ip(n)).expect_err("too many")).collect();
    assert_eq!(told, [1, 1, 2, 2, 3, 3].map(Refused::Crowd), "two come back in each second");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(usages.enter(ip(200)).is_ok() && usages.enter(ip(201)).is_ok());
    assert!(matches!(usages.enter(ip(202)), Err(Refused::Crowd(3))), "the queue has become shorter too");
}

#[tokio::test(start_paused = true)]
async fn who_comes_now_is_taken_off_what_could_come() {
    let usages = Usages::new(&Limits { handshakes_per_s: 100, ..limits() });
    let (before, within) = (usages.entered(), Duration::from_millis(500));
    for n in 0..20 {
        drop(usages.enter(ip(n)).unwrap());
    }
    assert_eq!(usages.handshakes_left_per_s(usages.entered() - before, within), Some(60));
    assert_eq!(usages.handshakes_left_per_s(1_000, within), Some(0));
    let open = Usages::new(&Limits { handshakes_per_s: 0, ..limits() });
    assert_eq!(open.handshakes_left_per_s(1_000, within), None, "no limit");
}

#[tokio::test(start_paused = true)]
async fn one_address_that_asks_too_often_takes_nothing_from_others() {
    let usages = Usages::new(&Limits { handshakes_per_s: 0, ..limits() });
    let seats = [usages.enter(ip(1)).unwrap(), usages.enter(ip(1)).unwrap()];
    assert_eq!(usages.enter(ip(1)).unwrap_err(), Refused::AddressFull(RETRY_AFTER_S));
    assert!(usages.enter(ip(2)).is_ok());
    drop(seats);
    for _ in 2..BURST_S {
        drop(usages.enter(ip(1)).unwrap());
    }
    assert_eq!(usages.enter(ip(1)).unwrap_err(), Refused::AddressRate(1));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(usages.enter(ip(1)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn pages_of_a_user_and_of_an_address_have_a_budget_that_comes_back() {
    let usages = Usages::new(&Limits { handshakes_per_s: 0, ..limits() });
    let user = |name| usages.identify(&UserId::parse(name).unwrap()).unwrap();
    let (ann, bob, home, work) =
        (user("ann"), user("bob"), usages.enter(ip(1)).unwrap(), usages.enter(ip(2)).unwrap());
    let reserve =
        |user: &Seat, from: &Option<Seat>, bytes| usages.reserve((Some(user), from.as_ref()), bytes);
    let mut first = reserve(&ann, &home, 5_000).expect("any one page may come");
    assert!(reserve(&ann, &work, 1).is_none(), "the user's");
    assert!(reserve(&bob, &home, 1).is_none(), "the address's");
    assert!(reserve(&bob, &work, 1_000).is_some(), "what was refused is given back");
    first.settle(400);
    let second = reserve(&ann, &home, 600).unwrap();
    assert!(reserve(&ann, &home, 1).is_none());
    drop((first, second));
    assert!(reserve(&ann, &home, 1_000).is_some());
}

#[tokio::test(start_paused = true)]
async fn pages_of_a_user_and_of_an_address_have_a_rate() {
    let mut limits = Limits { handshakes_per_s: 0, ..limits() };
    (limits.user.history_bytes_per_s, limits.address.history_bytes_per_s) = (1_000, 3_000);
    let usages = Usages::new(&limits);
    let user = |name| usages.identify(&UserId::parse(name).unwrap()).unwrap();
    let (ann, bob, home) = (user("ann"), user("bob"), usages.enter(ip(1)).unwrap());
    let may = |user: &Seat| usages.reserve((Some(user), home.as_ref()), 1).is_some();
    assert!(may(&ann));
    usages.charge_page((Some(&ann), home.as_ref()), 2_500);
    assert!(!may(&ann) && may(&bob), "the user's");
    usages.charge_page((Some(&bob), home.as_ref()), 600);
    assert!(!may(&bob), "the address's");
    tokio::time::advance(Duration::from_millis(50)).await;
    assert!(may(&bob) && !may(&ann));
    tokio::time::advance(Duration::from_millis(1_500)).await;
    assert!(may(&ann));
}

#[tokio::test(start_paused = true)]
async fn who_does_more_than_the_rate_waits_and_connections_share_it() {
    let usages = Usages::new(&limits());
    let ann = UserId::parse("ann").unwrap();
    let (one, two) = (usages.identify(&ann).unwrap(), usages.identify(&ann).unwrap());
    assert!(usages.identify(&ann).is_err(), "two connections");
    let publish = |seat: &Seat| usages.charge(Some(seat), None, Charge::Publish);
    for n in 0..2 {
        assert_eq!(publish(if n % 2 == 0 { &one } else { &two }), Duration::ZERO);
    }
    assert_eq!(publish(&one), Duration::from_millis(50));
    assert_eq!(publish(&two), Duration::from_millis(150));
    assert_eq!(usages.charge(Some(&one), None, Charge::Subscribe), Duration::ZERO, "off");
    tokio::time::advance(Duration::from_millis(300)).await;
    assert_eq!(publish(&one), Duration::ZERO);
}

/// One that opens as many rooms as it may.
struct Creator {
    seat: Seat,
    opened: u64,
    read_at: Instant,
}

impl Creator {
    fn open(&mut self, usages: &Usages) {
        while self.read_at <= Instant::now() {
            self.opened += 1;
            let wait = usages.opened_room(Some(&self.seat));
            if !wait.is_zero() {
                // As a connection is paused: in whole ticks.
                self.read_at = Instant::now() + defaults::TICK * crate::tick::ticks(wait);
            } else if self.opened.is_multiple_of(20) {
                self.read_at = Instant::now() + Duration::from_millis(1);
            }
        }
    }
}

fn creators(usages: &Usages, users: usize) -> (Vec<Creator>, Seat) {
    let seat = |n: usize| usages.identify(&UserId::parse(&format!("u{n}")).unwrap()).unwrap();
    let creator = |n| Creator { seat: seat(n), opened: 0, read_at: Instant::now() };
    ((0..users).map(creator).collect(), seat(users))
}

/// How many rooms each of these users opened in ten seconds, beside one that opens five a second, and the longest
/// that this one waited.
async fn ten_seconds(users: usize, limits: &Limits) -> (Vec<u64>, Duration) {
    let usages = Usages::new(limits);
    let (mut creators, quiet) = creators(&usages, users);
    let mut longest = Duration::ZERO;
    for ms in 0..10_000 {
        creators.iter_mut().for_each(|creator| creator.open(&usages));
        if ms % 200 == 0 {
            longest = longest.max(usages.opened_room(Some(&quiet)));
        }
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    (creators.iter().map(|creator| creator.opened).collect(), longest)
}

#[tokio::test(start_paused = true)]
async fn who_opens_rooms_without_end_shares_the_rate_and_the_others_do_not_wait() {
    let limits = Limits::default();
    let per_s = u64::from(limits.opened_rooms_per_s);
    for users in [1, 8, 400] {
        let (opened, longest) = ten_seconds(users, &limits).await;
        let (all, most) = (opened.iter().sum::<u64>(), opened.iter().max().copied().unwrap_or(0));
        let fair = all / users as u64;
        assert!(all <= per_s * (10 + OPENED_ROOMS_BURST_S) * 11 / 10, "{users}: {all}");
        assert!(most <= fair * 2, "{users}: one opened {most}, {fair} on average");
        assert_eq!(longest, Duration::ZERO, "{users}");
    }
}

/// A debt that a crowd has run up, also before anybody else was here: the gateway is as young as its debt.
#[tokio::test(start_paused = true)]
async fn a_users_first_room_waits_for_nobody_and_none_for_longer_than_five_seconds() {
    let usages = Usages::new(&limits());
    let behind = (0..100 * (OPENED_ROOMS_BURST_S + 60)).map(|_| usages.opened_room(None)).last();
    assert_eq!(behind, Some(Duration::from_secs(60)));
    let ann = usages.identify(&UserId::parse("ann").unwrap()).unwrap();
    let waits = [0, 5, 10].map(Duration::from_secs);
    assert_eq!([(); 3].map(|()| usages.opened_room(Some(&ann))), waits);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_comes_back_opens_its_rooms_at_once() {
    let usages = Usages::new(&Limits::default());
    for user in 0..600 {
        let seat = usages.identify(&UserId::parse(&format!("u{user}")).unwrap()).unwrap();
        for room in 0..10 {
            assert_eq!(usages.opened_room(Some(&seat)), Duration::ZERO, "{user}, {room}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn frames_that_nothing_else_is_charged_for_have_a_rate_for_each_connection() {
    let usages = Usages::new(&limits());
    let (one, other) = (Bucket::default(), Bucket::default());
    for _ in 0..10 * BURST_S {
        assert_eq!(usages.other_frame(&one), Duration::ZERO);
    }
    assert_eq!(usages.other_frame(&one), Duration::from_millis(100));
    assert_eq!(usages.other_frame(&other), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_gone_is_forgotten_and_comes_back_to_what_was_used() {
    let usages = Usages::new(&Limits { handshakes_per_s: 0, ..limits() });
    let ann = UserId::parse("ann").unwrap();
    for _ in 0..BURST_S {
        drop(usages.identify(&ann).unwrap());
    }
    assert!(usages.identify(&ann).is_err(), "a new connection is no new allowance");
    for n in 0..10_000 {
        drop(usages.identify(&UserId::parse(&format!("u{n}")).unwrap()).unwrap());
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    assert!(usages.known().0 < 2_000, "{:?}: those of the last seconds", usages.known());
}
