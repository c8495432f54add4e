use super::super::super::turn::tests::{clock, stopped};
use super::*;
use crate::defaults::TURN;

fn newcomer(slot: u32, bytes: usize) -> TokenCheck {
    let who = Address { shard: 0, slot, generation: 0 };
    TokenCheck { who, token: "t".repeat(bytes), is_known: false, by: Instant::now() }
}

fn known(slot: u32, bytes: usize) -> TokenCheck {
    TokenCheck { is_known: true, ..newcomer(slot, bytes) }
}

fn slots(questions: &[TokenCheck]) -> Vec<u32> {
    questions.iter().map(|question| question.who.slot).collect()
}

/// As a shard does it, in a turn that has all the time there is.
fn taken(all: &mut Authentications, mut costs_a_call: impl FnMut(&TokenCheck) -> bool) -> Vec<TokenCheck> {
    gather(Budget::by(stopped), || {
        let question = all.pop()?;
        if !costs_a_call(&question) {
            return Some(Look::NoCall);
        }
        all.takes_turn(&question);
        Some(Look::Ask(question))
    })
}

#[test]
fn each_address_has_its_turn_and_who_left_takes_no_place() {
    let mut all = Authentications::default();
    for slot in 0..300 {
        all.push(Some(1), newcomer(slot, 10)).unwrap();
    }
    all.push(Some(2), newcomer(1_000, 10)).unwrap();
    all.push(Some(2), newcomer(1_001, 10)).unwrap();
    let stays = |question: &TokenCheck| !(2..6).contains(&question.who.slot);
    let asked = taken(&mut all, stays);
    assert_eq!(slots(&asked)[..6], [0, 1_000, 1, 1_001, 6, 7]);
    assert_eq!(asked.len(), TOKENS_PER_CALL_MAX);
    let rest = taken(&mut all, stays);
    assert_eq!((slots(&rest).first(), rest.len()), (Some(&258), 42));
    assert_eq!((all.newcomers.bytes, all.is_empty()), (0, true));
}

#[test]
fn who_is_known_goes_before_those_that_come() {
    let mut all = Authentications::default();
    for slot in 0..3 {
        all.push(Some(1), newcomer(slot, 10)).unwrap();
    }
    all.push(Some(1), known(9, 10)).unwrap();
    assert_eq!(slots(&taken(&mut all, |_| true)), [9, 0, 1, 2]);
    for slot in 0..u32::try_from(TOKENS_WAITING_MAX).unwrap() {
        all.push(Some(1), newcomer(slot, 1)).unwrap();
    }
    assert!(all.push(Some(1), newcomer(7, 1)).is_err());
    assert!(all.push(Some(1), known(7, 1)).is_ok(), "a crowd takes no place of those that are there");
}

/// As many as the other kind has between two of them, however many wait and whoever left meanwhile.
#[test]
fn refreshes_without_end_leave_newcomers_their_part_of_each_call() {
    let mut all = Authentications::default();
    let most = u32::try_from(TOKENS_WAITING_MAX).unwrap();
    (0..most).for_each(|slot| all.push(Some(1), known(slot, 10)).unwrap());
    (0..300).for_each(|slot| all.push(Some(1), newcomer(slot, 10)).unwrap());
    // Every third newcomer is there still.
    let stays = |question: &TokenCheck| question.is_known || question.who.slot.is_multiple_of(3);
    let part = TOKENS_PER_CALL_MAX / (KNOWN_IN_A_ROW_MAX + 1);
    let asked = taken(&mut all, stays);
    let newcomers: Vec<usize> = (0..asked.len()).filter(|place| !asked[*place].is_known).collect();
    assert_eq!(newcomers.len(), part);
    assert!(newcomers.windows(2).all(|pair| pair[1] - pair[0] == KNOWN_IN_A_ROW_MAX + 1), "{newcomers:?}");
    // Who is known asks again each time it is answered: nobody waits longer for that.
    for question in asked.into_iter().filter(|question| question.is_known) {
        all.push(Some(1), question).unwrap();
    }
    let rest = taken(&mut all, stays).iter().filter(|question| !question.is_known).count();
    assert_eq!((rest, all.newcomers.questions.len()), (100 - part, 0));
}

/// Long tokens of the one kind take no place of the other.
#[test]
fn each_kind_has_its_own_bytes() {
    let mut all = Authentications::default();
    for slot in 0..16 {
        all.push(None, known(slot, TOKENS_WAITING_BYTES_MAX / 16)).unwrap();
    }
    assert!(all.push(None, known(16, 1)).is_err());
    assert!(all.push(None, newcomer(17, TOKENS_WAITING_BYTES_MAX)).is_ok());
    assert!(all.push(None, newcomer(18, 1)).is_err());
}

#[test]
fn who_has_no_verdict_yet_goes_first_in_the_next_call() {
    let mut all = Authentications::default();
    for slot in 0..4 {
        all.push(None, newcomer(slot, 10)).unwrap();
    }
    let open = [all.pop(), all.pop()];
    all.ask_again(open.into_iter().flatten());
    assert_eq!((slots(&taken(&mut all, |_| true)), all.newcomers.bytes), (vec![0, 1, 2, 3], 0));
}

#[test]
fn a_call_is_as_long_as_it_may_be_and_takes_one_that_is_longer_alone() {
    let mut all = Authentications::default();
    for slot in 0..3 {
        all.push(None, newcomer(slot, AUTHENTICATE_BYTES_MAX)).unwrap();
    }
    for slot in 3..300 {
        all.push(None, newcomer(slot, 8 * 1024)).unwrap();
    }
    let mut calls = Vec::new();
    while !all.is_empty() {
        calls.push(taken(&mut all, |_| true).len());
    }
    assert_eq!(calls, [1, 1, 1, 64, 64, 64, 64, 41]);
}

#[test]
fn what_waits_is_bounded_in_number_and_bytes() {
    let mut many = Authentications::default();
    for slot in 0..u32::try_from(TOKENS_WAITING_MAX).unwrap() {
        many.push(None, newcomer(slot, 1)).unwrap();
    }
    assert_eq!(many.push(Some(1), newcomer(7, 1)).map_err(|back| back.who.slot), Err(7));
    let mut long = Authentications::default();
    for slot in 0..16 {
        long.push(None, newcomer(slot, TOKENS_WAITING_BYTES_MAX / 16)).unwrap();
    }
    assert_eq!(long.push(None, newcomer(7, 1)).map_err(|back| back.who.slot), Err(7));
    assert_eq!(taken(&mut long, |_| true).len(), 1);
    assert!(long.push(None, newcomer(7, 1)).is_ok(), "there is room again");
}

/// Thousands may be late or gone at once, and each of them is an answer to write or a connection to drop.
#[test]
fn a_look_at_who_costs_no_call_ends_with_the_turn() {
    let mut looked_at = 0;
    let asked = gather(Budget::by(clock), || {
        looked_at += 1;
        Some(Look::NoCall)
    });
    assert_eq!((asked.len(), looked_at), (0, TURN.as_millis()));
}
