use std::collections::BTreeSet;

use embercask::Store;
use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn a_window_takes_each_counter_once(
        start in prop_oneof![Just(0), Just(u64::MAX - 500)],
        counters in prop::collection::vec(0..300_u64, 1..200),
    ) {
        let (mut window, mut seen) = (Window::default(), BTreeSet::new());
        for counter in counters {
            let counter = start + counter;
            let is_below = seen.last().is_some_and(|highest: &u64| highest.saturating_sub(counter) > 64);
            let is_new = counter > 0 && !is_below && seen.insert(counter);
            prop_assert_eq!(window.note(counter, 1), is_new, "{} after {:?}", counter, seen);
            prop_assert_eq!(Window::decode(&window.encode()), Some(window));
        }
    }
}

#[test]
fn writers_are_forgotten_after_two_hours_without_an_entry() {
    let mut writers = Writers::default();
    writers.note(1, 1, 1000);
    writers.note(2, 1, 2000);
    assert_eq!(writers.take_changes().len(), 2);
    writers.forget(1000 + FORGET_MS - 1);
    assert!(writers.take_changes().is_empty());
    assert!(!writers.note(1, 1, 1000 + FORGET_MS - 1));
    writers.forget(1000 + FORGET_MS);
    let changes = writers.take_changes();
    assert_eq!(changes, [(format!("writer/{:032x}", 1), None)]);
    assert!(!writers.note(2, 1, 1000 + FORGET_MS));
    writers.forget(2000 + FORGET_MS);
    assert_eq!(writers.take_changes(), [(format!("writer/{:032x}", 2), None)]);
}

#[test]
fn writers_are_read_as_they_were_written() {
    let store = Store::in_memory().unwrap();
    let held = store.namespace("held").unwrap();
    let mut writers = Writers::default();
    writers.note(u128::MAX, 9, 1000);
    writers.note(3, 70, 2000);
    for (key, window) in writers.take_changes() {
        held.put(key, window.unwrap()).unwrap();
    }
    assert_eq!(Writers::load(&held).unwrap().windows, writers.windows);
    held.put("writer/what", [0; 24]).unwrap();
    assert!(Writers::load(&held).is_err());
}
