//! Tests of who may have memory.

use std::task::{Context, Waker};

use test_support::rng;

use super::*;

const MIB: usize = 1 << 20;

fn token(name: &str) -> Holder {
    Holder::Token(name.into())
}

/// Grows step by step, as a body does that arrives; returns what was granted.
fn fill(ledger: &mut Ledger, id: u64, bytes: usize) -> usize {
    let mut granted = 0;
    while granted < bytes && ledger.grow(id, FIRST_BYTES) == Growth::Granted {
        granted += FIRST_BYTES;
    }
    granted
}

/// Bodies of one client that together need more than there is: as many as fit grow to their
/// end, the others wait with what they have, and go on then.
#[test]
fn bodies_that_grow_at_the_same_time_all_end() {
    let mut ledger = Ledger::new(100 * MIB);
    let mut left: Vec<(u64, usize)> = (0..20)
        .map(|_| (ledger.begin(token("a"), 25 * MIB, Use::Body).0, 25 * MIB))
        .collect();
    let mut ended = 0;
    while !left.is_empty() {
        let before = left.clone();
        for (id, wanted) in &mut left {
            if ledger.grow(*id, FIRST_BYTES) == Growth::Granted {
                *wanted -= FIRST_BYTES;
            }
            assert!(ledger.used() <= 100 * MIB);
        }
        for (id, _) in left.iter().filter(|(_, wanted)| *wanted == 0) {
            ledger.end(*id);
            ended += 1;
        }
        left.retain(|(_, wanted)| *wanted > 0);
        assert_ne!(before, left, "all wait for each other");
    }
    assert_eq!((ended, ledger.used()), (20, 0));
}

#[test]
fn claims_hold_what_has_come_and_not_what_is_still_to_come() {
    let mut ledger = Ledger::new(100 * MIB);
    for _ in 0..1000 {
        let (slow, _) = ledger.begin(token("reader"), 75 * MIB, Use::Body);
        assert_eq!(ledger.grow(slow, 4 << 10), Growth::Granted);
    }
    let (put, _) = ledger.begin(token("admin"), 50 * MIB, Use::Body);
    assert_eq!(fill(&mut ledger, put, 50 * MIB), 50 * MIB);
    ledger.end(put);
    assert_eq!(ledger.used(), 1000 * (4 << 10));
}

/// A client may have everything while no other wants any of it.
#[test]
fn a_holder_of_more_than_a_share_makes_way_for_one_of_less() {
    let mut ledger = Ledger::new(100 * MIB);
    let large: Vec<u64> = (0..4)
        .map(|_| {
            let (id, _) = ledger.begin(token("a"), 23 * MIB, Use::Body);
            assert_eq!(fill(&mut ledger, id, 23 * MIB - FIRST_BYTES), 23 * MIB - FIRST_BYTES);
            id
        })
        .collect();
    let (put, _) = ledger.begin(token("b"), 20 * MIB, Use::Body);
    let granted = fill(&mut ledger, put, 20 * MIB);
    assert!(granted < 20 * MIB, "{granted}");
    // The one that came last is taken back, and no more than needed.
    let pushed_out: Vec<u64> = large.iter().copied().filter(|id| ledger.is_pushed_out(*id)).collect();
    assert_eq!(pushed_out, large[3..]);
    assert_eq!(ledger.grow(large[3], 1), Growth::PushedOut);
    ledger.end(large[3]);
    assert_eq!(fill(&mut ledger, put, 20 * MIB - granted), 20 * MIB - granted);
    // Those that hold no more than a share keep it, and what is processed is not taken back.
    let (other, _) = ledger.begin(token("c"), 24 * MIB, Use::Body);
    ledger.settle(large[2], 23 * MIB);
    fill(&mut ledger, other, 24 * MIB);
    assert!(!ledger.is_pushed_out(put) && !ledger.is_pushed_out(large[2]));
    assert!(ledger.is_pushed_out(large[1]));
}

/// What clients do not take must not keep others waiting, since it cannot be taken back.
#[test]
fn responses_of_a_holder_are_within_its_share_or_a_single_one() {
    let mut ledger = Ledger::new(100 * MIB);
    let response = |ledger: &mut Ledger, name, bytes| {
        let (id, _) = ledger.begin(token(name), bytes, Use::Response);
        let growth = ledger.grow(id, bytes);
        ledger.settle(id, bytes);
        (id, growth)
    };
    let (large, growth) = response(&mut ledger, "reader", 60 * MIB);
    assert_eq!(growth, Growth::Granted, "it is the only one");
    let (small, growth) = response(&mut ledger, "reader", FIRST_BYTES);
    assert_eq!(growth, Growth::Granted, "small ones have memory of their own");
    let (second, _) = ledger.begin(token("reader"), MIB, Use::Response);
    assert_eq!(ledger.grow(second, MIB), Growth::Waits);
    // Others go on, although the one that waits is nearer to its end.
    let (put, _) = ledger.begin(token("writer"), 30 * MIB, Use::Body);
    assert_eq!(fill(&mut ledger, put, 30 * MIB), 30 * MIB);
    let (growing, growth) = response(&mut ledger, "another", 2 * MIB);
    assert_eq!(growth, Growth::Granted);
    ledger.end(put);
    let (put, _) = ledger.begin(token("another"), 30 * MIB, Use::Body);
    assert_eq!(fill(&mut ledger, put, 30 * MIB), 30 * MIB);
    for id in [put, growing, large] {
        ledger.end(id);
    }
    assert_eq!(ledger.grow(second, MIB), Growth::Granted);
    let granted = (0..100).map(|_| response(&mut ledger, "reader", MIB).1);
    assert_eq!(granted.filter(|growth| *growth == Growth::Granted).count(), 23);
    ledger.end(small);
    ledger.end(second);
    assert_eq!(ledger.used(), 23 * MIB);
}

#[test]
fn responses_that_wait_for_their_own_client_do_not_take_the_turn_of_others() {
    let is_woken = |woken: &Notify| {
        let notified = std::pin::pin!(woken.notified());
        notified.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    };
    let mut ledger = Ledger::new(100 * MIB);
    let mut begin = |name, bytes, what_for, expected| {
        let (id, woken) = ledger.begin(token(name), bytes, what_for);
        assert_eq!(ledger.grow(id, bytes), expected, "{name} {bytes}");
        (id, woken)
    };
    begin("crowd", 25 * MIB, Use::Response, Growth::Granted);
    let crowd: Vec<_> = (0..40)
        .map(|_| begin("crowd", MIB, Use::Response, Growth::Waits).1)
        .collect();
    begin("other", 10 * MIB, Use::Body, Growth::Granted);
    let (first, _) = begin("other", 20 * MIB, Use::Response, Growth::Granted);
    let (second, woken) = begin("other", 24 * MIB, Use::Response, Growth::Waits);
    assert!(!is_woken(&woken));
    ledger.end(first);
    assert!(is_woken(&woken));
    assert!(!crowd.iter().any(|woken| is_woken(woken)));
    assert_eq!(ledger.grow(second, 24 * MIB), Growth::Granted);
}

/// Random clients: nothing is granted beyond what there is, and one of them can always go on.
#[test]
fn whatever_is_wanted_there_is_no_more_than_all_and_always_one_that_goes_on() {
    let mut random = rng();
    let mut ledger = Ledger::new(100 * MIB);
    let mut left: Vec<(u64, usize)> = Vec::new();
    for _ in 0..300 {
        while left.len() < 12 {
            let need = 1 + random.below(90) as usize * MIB;
            let holder = token(["a", "b", "c"][random.below(3) as usize]);
            left.push((ledger.begin(holder, need, Use::Body).0, need));
        }
        let mut goes_on = false;
        for (id, wanted) in &mut left {
            let by = (*wanted).min(1 + random.below(4) as usize * MIB);
            match ledger.grow(*id, by) {
                Growth::Granted => *wanted -= by,
                Growth::Waits => continue,
                Growth::PushedOut => *wanted = 0,
            }
            goes_on = true;
        }
        assert!(goes_on, "all wait");
        assert!(ledger.used() <= 100 * MIB);
        for (id, _) in left.iter().filter(|(_, wanted)| *wanted == 0) {
            ledger.end(*id);
        }
        left.retain(|(_, wanted)| *wanted > 0);
    }
}
