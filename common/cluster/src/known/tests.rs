use super::*;

const TTL: Duration = Duration::from_secs(10);

fn id(name: &str) -> InstanceId {
    InstanceId::parse(name).unwrap()
}

fn task(name: &str) -> Instance {
    Instance {
        id: id(name),
        service: Service::Task,
        address: format!("{name}:7072"),
        url: None,
        version: "1".into(),
        started_ms: 1,
        state: InstanceState::Serving,
        headroom: None,
    }
}

fn all_duties() -> BTreeSet<Duty> {
    (0..8).map(Duty::Due).chain([Duty::Sweep, Duty::Reap]).collect()
}

/// A registry in memory and the tasks that look at it.
struct Model {
    now: Instant,
    tasks: BTreeMap<InstanceId, Known>,
    owners: BTreeMap<Duty, InstanceId>,
}

impl Model {
    fn new() -> Self {
        Self { now: Instant::now(), tasks: BTreeMap::new(), owners: BTreeMap::new() }
    }

    fn start(&mut self, name: &str) {
        self.tasks.insert(id(name), Known::new(TTL, id(name), Vec::new(), all_duties(), self.now));
    }

    /// Everybody renews, lists and takes one round of steps, one after the other. Returns how many changed.
    fn round(&mut self) -> usize {
        let ids: Vec<_> = self.tasks.keys().cloned().collect();
        let mut changed = 0;
        for me in &ids {
            let listed: HashMap<_, _> = ids.iter().map(|id| (id.clone(), task(id.as_str()))).collect();
            let known = self.tasks.get_mut(me).unwrap();
            known.renewed(self.now);
            known.list(listed, self.owners.clone(), self.now);
            known.tick(self.now);
            for step in known.steps(self.now) {
                changed += 1;
                match step {
                    DutyStep::Claim { duty, from } => {
                        assert_eq!(self.owners.get(&duty), from.as_ref());
                        self.owners.insert(duty, me.clone());
                    }
                    DutyStep::Release(duty) => assert_eq!(self.owners.remove(&duty).as_ref(), Some(me)),
                }
            }
        }
        changed
    }

    fn settle(&mut self) {
        assert!((0..50).any(|_| self.round() == 0), "it does not settle: {:?}", self.owners);
        let mut load: BTreeMap<&InstanceId, usize> = self.tasks.keys().map(|id| (id, 0)).collect();
        self.owners.values().for_each(|owner| *load.get_mut(owner).unwrap() += 1);
        assert_eq!(self.owners.len(), 10);
        assert!(load.values().max().unwrap() - load.values().min().unwrap() <= 1, "{load:?}");
    }
}

#[test]
fn duties_are_spread_evenly_and_little_moves() {
    let mut model = Model::new();
    model.start("a");
    model.settle();
    for name in ["b", "c", "d"] {
        let before = model.owners.clone();
        model.start(name);
        model.settle();
        let moved = before.iter().filter(|(duty, owner)| model.owners.get(duty) != Some(owner)).count();
        assert!(moved <= 5, "{name} moved {moved}");
    }
    let before = model.owners.clone();
    model.tasks.remove(&id("b"));
    model.owners.retain(|_, owner| *owner != id("b"));
    model.settle();
    assert!(
        before
            .iter()
            .filter(|(_, owner)| **owner != id("b"))
            .all(|(duty, owner)| model.owners[duty] == *owner)
    );
}

fn watcher(now: Instant) -> Known {
    let mut known = Known::new(TTL, id("me"), Vec::new(), [Duty::Sweep].into(), now);
    known.renewed(now);
    known.list([("me", task("me")), ("x", task("x"))].map(|(n, t)| (id(n), t)).into(), BTreeMap::new(), now);
    known.tick(now);
    known
}

fn pass(known: &mut Known, now: &mut Instant, time: Duration, in_contact: bool) {
    let end = *now + time;
    while *now < end {
        *now += Duration::from_secs(1);
        if in_contact {
            known.renewed(*now);
        }
        known.tick(*now);
    }
}

#[test]
fn gone_is_who_was_absent_for_two_lease_times_while_i_saw_myself() {
    let mut now = Instant::now();
    let mut known = watcher(now);
    known.remove(&id("x"), now);
    pass(&mut known, &mut now, Duration::from_secs(19), true);
    assert_eq!(known.gone(), []);
    // Blind for a while: the count begins again.
    pass(&mut known, &mut now, Duration::from_secs(60), false);
    assert_eq!(known.gone(), []);
    pass(&mut known, &mut now, Duration::from_secs(19), true);
    assert_eq!(known.gone(), []);
    pass(&mut known, &mut now, Duration::from_secs(2), true);
    assert_eq!(known.gone(), [id("x")]);
    // And it stays so, whatever is seen, for an hour.
    pass(&mut known, &mut now, Duration::from_secs(100), false);
    assert_eq!(known.gone(), [id("x")]);
    pass(&mut known, &mut now, Duration::from_secs(3_600), true);
    assert_eq!(known.gone(), []);
}

#[test]
fn an_empty_registry_declares_nobody_gone() {
    let mut now = Instant::now();
    let mut known = watcher(now);
    known.list(HashMap::new(), BTreeMap::new(), now);
    pass(&mut known, &mut now, Duration::from_secs(100), true);
    assert_eq!(known.gone(), []);
    assert!(!known.view(now).sees_me);
}

#[test]
fn only_what_belongs_to_nobody_or_to_the_gone_is_taken() {
    let mut now = Instant::now();
    let mut known = watcher(now);
    known.remove(&id("x"), now);
    known.put_owner(Duty::Sweep, id("x"), now);
    assert_eq!(known.steps(now), [], "its lease may live");
    pass(&mut known, &mut now, Duration::from_secs(21), true);
    assert_eq!(known.steps(now), [DutyStep::Claim { duty: Duty::Sweep, from: Some(id("x")) }]);
    known.remove_owner(Duty::Sweep, now);
    assert_eq!(known.steps(now), [DutyStep::Claim { duty: Duty::Sweep, from: None }]);
}

#[test]
fn an_owner_without_contact_stops_and_after_two_lease_times_anyone_begins() {
    let mut now = Instant::now();
    let mut known = watcher(now);
    known.put_owner(Duty::Sweep, id("me"), now);
    known.tick(now);
    assert_eq!(known.owned(now), [Duty::Sweep].into());
    pass(&mut known, &mut now, Duration::from_secs(11), false);
    assert_eq!(known.owned(now), BTreeSet::new(), "the lease may be over");
    pass(&mut known, &mut now, Duration::from_secs(20), false);
    assert_eq!(known.owned(now), [Duty::Sweep].into(), "etcd is away: anyone");
    known.put_owner(Duty::Sweep, id("x"), now);
    known.renewed(now);
    known.tick(now);
    assert_eq!(known.owned(now), BTreeSet::new(), "it has an owner who lives");
    pass(&mut known, &mut now, Duration::from_secs(40), false);
    known.release();
    assert_eq!(known.owned(now), BTreeSet::new());
}

#[test]
fn seeds_stand_in_until_somebody_has_their_address() {
    let now = Instant::now();
    let seed = Instance {
        id: id("seed-l:1"),
        service: Service::Logic,
        address: "l:1".into(),
        started_ms: 0,
        ..task("-")
    };
    let mut known = Known::new(TTL, id("me"), vec![seed], BTreeSet::new(), now);
    known.put(Instance { service: Service::Logic, address: "l:2".into(), ..task("elsewhere") });
    known.put(Instance { address: "l:1".into(), ..task("other") });
    assert!(known.view(now).instances.contains_key("seed-l:1"), "neither of them is that logic");
    known.put(Instance { service: Service::Logic, address: "l:1".into(), ..task("logic") });
    assert!(!known.view(now).instances.contains_key("seed-l:1"));
    assert_eq!(known.view(now).instances.len(), 3);
}

fn list_of(known: &mut Known, names: &[&str], now: Instant) {
    let owners = known.owners.clone();
    known.list(names.iter().map(|name| (id(name), task(name))).collect(), owners, now);
    known.tick(now);
}

#[test]
fn who_a_new_list_does_not_name_is_absent_from_then_on_until_it_is_named_again() {
    let mut now = Instant::now();
    let mut known = watcher(now);
    list_of(&mut known, &["me", "x", "y"], now);
    list_of(&mut known, &["me"], now);
    pass(&mut known, &mut now, Duration::from_secs(19), true);
    assert_eq!(known.gone(), []);
    list_of(&mut known, &["me", "y"], now);
    pass(&mut known, &mut now, Duration::from_secs(1), true);
    assert_eq!(known.gone(), [id("x")], "y is back");
    // A name that was put again is not absent either.
    known.remove(&id("y"), now);
    known.put(task("y"));
    pass(&mut known, &mut now, Duration::from_secs(30), true);
    assert_eq!(known.gone(), [id("x")]);
    // Removed twice, it is absent since the first time; one that was never known is not at all.
    known.remove(&id("y"), now);
    known.remove(&id("z"), now);
    pass(&mut known, &mut now, Duration::from_secs(19), true);
    known.remove(&id("y"), now);
    pass(&mut known, &mut now, Duration::from_secs(1), true);
    assert_eq!(BTreeSet::from_iter(known.gone()), [id("x"), id("y")].into());
}

#[test]
fn absent_and_gone_are_bounded() {
    let mut now = Instant::now();
    let mut known = watcher(now);
    let names: Vec<String> = (0..=ABSENT_MAX).map(|n| format!("x{n}")).collect();
    // The second time the one that found no place is among those that find one, but no place among the gone.
    for first in 0..2 {
        names.iter().for_each(|name| known.put(task(name)));
        names[first..].iter().for_each(|name| known.remove(&id(name), now));
        assert_eq!(known.absent.len(), ABSENT_MAX);
        pass(&mut known, &mut now, Duration::from_secs(21), true);
        assert!(known.absent.is_empty());
        assert_eq!(known.gone().len(), ABSENT_MAX);
    }
}

#[test]
fn a_lost_lease_is_a_new_name_that_is_not_seen_yet() {
    let now = Instant::now();
    let mut known = watcher(now);
    assert!(known.sees_me(now) && known.is_listed());
    assert!(!known.sees_me(now + TTL), "no renewal for a whole lease time");
    known.rename(id("me2"));
    assert_eq!((known.me(), known.is_listed(), known.sees_me(now)), (&id("me2"), false, false));
    known.put(task("me2"));
    assert!(!known.sees_me(now), "listed, but the lease is not sure");
    known.renewed(now);
    assert!(known.sees_me(now));
}

#[test]
fn pages_show_who_owns_what_and_whether_that_owner_lives() {
    let mut now = Instant::now();
    let mut known = watcher(now);
    known.put_owner(Duty::Sweep, id("me"), now);
    known.put_owner(Duty::Reap, id("dead"), now);
    let info = |duty, owner: &str, owner_lives, held_for, mine| DutyInfo {
        duty,
        owner: Some(id(owner)),
        owner_lives,
        held_for: Some(held_for),
        mine,
    };
    known.tick(now);
    let shown = |held_for| {
        [info(Duty::Sweep, "me", true, held_for, true), info(Duty::Reap, "dead", false, held_for, false)]
    };
    assert_eq!(known.duties(now), shown(Duration::ZERO));
    pass(&mut known, &mut now, 2 * TTL, true);
    assert_eq!(known.duties(now), shown(2 * TTL), "a duty this process is no candidate for is never its own");
    known.put_owner(Duty::Sweep, id("x"), now);
    known.put_owner(Duty::Reap, id("dead"), now);
    known.tick(now);
    assert_eq!(known.duties(now)[0], info(Duty::Sweep, "x", true, Duration::ZERO, false));
    assert_eq!(known.duties(now)[1], shown(2 * TTL)[1], "said again, it is not a new owner");
}

#[test]
fn who_gives_its_duties_back_gives_back_its_own_and_takes_none() {
    let mut now = Instant::now();
    let mut known = watcher(now);
    known.put_owner(Duty::Sweep, id("me"), now);
    known.put_owner(Duty::Reap, id("x"), now);
    known.release();
    assert_eq!(known.steps(now), [DutyStep::Release(Duty::Sweep)]);
    known.remove_owner(Duty::Sweep, now);
    pass(&mut known, &mut now, 3 * TTL, true);
    assert_eq!((known.steps(now), known.owned(now)), (vec![], BTreeSet::new()));
}

#[test]
fn duties_go_to_tasks_that_serve_and_nobody_takes_them_while_it_cannot_see_itself() {
    let mut now = Instant::now();
    let mut known = watcher(now);
    // The only tasks that serve: me; a logic and a draining task count for nothing.
    known.put(Instance { service: Service::Logic, ..task("logic") });
    known.put(Instance { state: InstanceState::Draining, ..task("x") });
    assert_eq!(known.steps(now), [DutyStep::Claim { duty: Duty::Sweep, from: None }]);
    known.put(Instance { state: InstanceState::Draining, ..task("me") });
    assert_eq!(known.steps(now), [], "nobody serves");
    known.put(task("me"));
    pass(&mut known, &mut now, TTL, false);
    assert_eq!(known.steps(now), [], "out of contact");
}

#[test]
fn the_gone_are_remembered_for_an_hour_and_not_a_moment_longer() {
    let mut now = Instant::now();
    let mut known = watcher(now);
    known.remove(&id("x"), now);
    let forgotten = now + REMEMBER_GONE;
    pass(&mut known, &mut now, 2 * TTL, true);
    known.tick(forgotten - Duration::from_millis(1));
    assert_eq!(known.gone(), [id("x")]);
    known.tick(forgotten);
    assert_eq!(known.gone(), []);
}

/// Else most go to one, and are given back one by one.
#[test]
fn what_nobody_owns_is_taken_at_once_in_equal_parts() {
    let now = Instant::now();
    for other in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let claims = [other, "me"].map(|me| {
            let mut known = Known::new(TTL, id(me), Vec::new(), all_duties(), now);
            known.renewed(now);
            list_of(&mut known, &[other, "me"], now);
            // They take none: a logic, and a task that goes.
            known.put(Instance { service: Service::Logic, ..task("logic") });
            known.put(Instance { state: InstanceState::Draining, ..task("old") });
            known.steps(now).len()
        });
        assert_eq!(claims, [5, 5], "me and {other}");
    }
}

#[cfg(feature = "etcd")]
#[test]
fn who_gives_its_duties_back_says_so() {
    let mut known = watcher(Instant::now());
    assert!(!known.is_releasing());
    known.release();
    assert!(known.is_releasing());
}

#[test]
fn a_duty_that_was_released_by_hand_goes_to_another_and_stays_there() {
    let mut now = Instant::now();
    let mut known = watcher(now);
    known.put_owner(Duty::Sweep, id("me"), now);
    known.remove_owner(Duty::Sweep, now);
    assert_eq!(known.steps(now), [], "x is there, and I had it a moment ago");
    let mut other = Known::new(TTL, id("x"), Vec::new(), [Duty::Sweep].into(), now);
    other.renewed(now);
    list_of(&mut other, &["me", "x"], now);
    other.put_owner(Duty::Sweep, id("me"), now);
    other.remove_owner(Duty::Sweep, now);
    assert_eq!(other.steps(now), [DutyStep::Claim { duty: Duty::Sweep, from: None }]);
    // Alone, or when nobody took it for a while, it is mine as ever.
    known.remove(&id("x"), now);
    assert_eq!(known.steps(now), [DutyStep::Claim { duty: Duty::Sweep, from: None }]);
    known.put(task("x"));
    let mut same = now;
    pass(&mut other, &mut same, TTL, true);
    pass(&mut known, &mut now, TTL, true);
    let claims = [&known, &other].map(|it| it.steps(now).len());
    assert_eq!(claims.iter().sum::<usize>(), 1, "exactly one of both");
}

#[test]
fn of_too_many_duties_one_goes_that_did_not_come_a_moment_ago() {
    let now = Instant::now();
    let mut known = Known::new(TTL, id("me"), Vec::new(), all_duties(), now);
    known.renewed(now);
    list_of(&mut known, &["me", "x"], now);
    for duty in all_duties() {
        known.put_owner(duty, id("me"), now);
    }
    known.put_owner(Duty::Due(7), id("x"), now);
    known.remove_owner(Duty::Due(7), now);
    known.put_owner(Duty::Due(7), id("me"), now);
    assert_eq!(known.steps(now), [DutyStep::Release(Duty::Due(6))]);
}

#[test]
fn what_becomes_of_my_duties_is_told_with_whose_they_were() {
    let now = Instant::now();
    let mut known = watcher(now);
    let taken = |from| [DutyEvent::Taken { duty: Duty::Sweep, from }];
    known.put_owner(Duty::Sweep, id("me"), now);
    known.put_owner(Duty::Sweep, id("me"), now);
    assert_eq!(known.take_events(), taken(Former::Nobody));
    known.gives(Duty::Sweep);
    known.remove_owner(Duty::Sweep, now);
    assert_eq!(known.take_events(), [DutyEvent::GivenBack(Duty::Sweep)]);
    known.put_owner(Duty::Sweep, id("x"), now);
    known.remove_owner(Duty::Sweep, now);
    known.put_owner(Duty::Sweep, id("me"), now);
    assert_eq!(known.take_events(), taken(Former::GaveBack(id("x"))));
    known.put_owner(Duty::Sweep, id("x"), now);
    assert_eq!(known.take_events(), [DutyEvent::Lost { duty: Duty::Sweep, to: Some(id("x")) }]);
    known.remove(&id("x"), now);
    known.put_owner(Duty::Sweep, id("me"), now);
    assert_eq!(known.take_events(), taken(Former::Left(id("x"))));
    // A list that does not have it says the same, and a lost lease loses all.
    list_of(&mut known, &["me"], now);
    assert_eq!(known.take_events(), []);
    known.rename(id("me2"));
    assert_eq!(known.take_events(), [DutyEvent::Lost { duty: Duty::Sweep, to: None }]);
    known.list(HashMap::new(), BTreeMap::new(), now);
    assert_eq!(known.take_events(), [], "it was not mine any more");
}

#[test]
fn who_comes_back_takes_duties_again() {
    let now = Instant::now();
    let mut known = watcher(now);
    known.remove(&id("x"), now);
    known.release();
    assert_eq!(known.steps(now), []);
    known.resume();
    assert_eq!(known.steps(now), [DutyStep::Claim { duty: Duty::Sweep, from: None }]);
}
