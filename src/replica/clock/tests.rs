use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;

const START: u64 = 1_800_000_000_000;

fn at(stamps: &[u64]) -> LogTime {
    stamps.iter().fold(LogTime::default(), |time, stamp| time.after(*stamp))
}

#[test]
fn log_time_is_that_of_the_stamps_while_these_go_on() {
    assert_eq!(at(&[START]).ms(), START);
    assert_eq!(
        at(&[START, START + 5, START + 5, START + 3_600_000]).ms(),
        START + 3_600_000
    );
}

#[test]
fn where_stamps_step_back_log_time_stands_and_is_slower_until_they_have_caught_up() {
    let back = START - 1000;
    assert_eq!(at(&[START, back]).ms(), START);
    assert_eq!(at(&[START, back, back + 800]).ms(), START + 700);
    // In steps of a millisecond it is as fast.
    let mut time = at(&[START, back]);
    for step in 1..=8000 {
        time = time.after(back + step);
        assert_eq!(time.ms(), START + step * 7 / 8);
    }
    assert_eq!(time.ms(), time.last_stamp_ms());
    assert_eq!(time.after(back + 8001).ms(), back + 8001);
}

#[test]
fn stamps_that_go_back_and_forth_do_not_drive_log_time_on() {
    let (hour, mut time) = (3_600_000, at(&[START]));
    for step in 1..=100 {
        time = time.after(START - hour + step).after(START + step);
        let ahead = time.ms() - time.last_stamp_ms();
        assert!(ahead <= step * 10_000 * 7 / 8 + 1, "{ahead} ms after {step} times");
    }
    // A short step counts as before.
    let ahead = at(&[START, START - hour]);
    assert_eq!(ahead.after(START - hour + 10_000).ms(), START + 8_750);
    assert_eq!(ahead.after(START - hour + 20_000).ms(), START + 8_750);
}

#[test]
fn lifetimes_are_measured_from_the_stamp_of_the_entry() {
    let even = at(&[START]);
    assert_eq!(even.expiry_ms(Lifetime::After(500), None), Some(START + 500));
    assert_eq!(even.expiry_ms(Lifetime::At(START + 500), None), Some(START + 500));
    assert_eq!(even.expiry_ms(Lifetime::Default, Some(7)), Some(START + 7));
    assert_eq!(even.expiry_ms(Lifetime::Default, None), None);
    assert_eq!(even.expiry_ms(Lifetime::Forever, Some(7)), None);
    let ahead = at(&[START + 1000, START]);
    assert_eq!(ahead.ms(), START + 1000);
    assert_eq!(ahead.expiry_ms(Lifetime::After(500), None), Some(START + 1500));
    assert_eq!(ahead.expiry_ms(Lifetime::At(START + 500), None), Some(START + 1500));
    // What had expired before, or overflows.
    assert_eq!(ahead.expiry_ms(Lifetime::At(5), None), Some(ahead.ms()));
    assert_eq!(ahead.expiry_ms(Lifetime::After(u64::MAX), None), Some(u64::MAX));
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn log_time_never_goes_back_and_is_never_behind(stamps in prop::collection::vec(any::<u64>(), 1..20)) {
        let mut time = LogTime::default();
        for stamp in stamps {
            let next = time.after(stamp);
            prop_assert!(next.ms() >= time.ms().max(stamp));
            time = next;
        }
    }

    /// As the store compares its clocks: at any moments, log time gains less than a second on the
    /// monotonic clock.
    #[test]
    fn log_time_never_gains_on_the_monotonic_clock(
        moves in prop::collection::vec((0..5000_u64, prop_oneof![0..1000_u64, 0..10_000_000_u64], any::<bool>()), 1..50),
    ) {
        let shared = LogClock::new().0;
        let (mut elapsed, mut log) = (0, START);
        shared.set(log, elapsed);
        let monotonic = |elapsed: u64| elapsed + shared.jumped_ms.load(Ordering::Relaxed);
        let mut seen = (log, monotonic(elapsed));
        for (passes, step, is_looked_at) in moves {
            elapsed += passes;
            if is_looked_at {
                seen = (log, monotonic(elapsed));
            }
            log += step;
            shared.set(log, elapsed);
            let passed = monotonic(elapsed) - seen.1;
            prop_assert!(log - seen.0 <= passed + 1000, "log {} and monotonic {}", log - seen.0, passed);
        }
    }
}

#[test]
fn the_clock_shows_what_it_was_set_to() {
    let clock = LogClock::new();
    assert_eq!(clock.wall_ms(), 0);
    clock.set(START);
    clock.set(START - 1);
    assert_eq!(clock.clone().wall_ms(), START);
    assert!(clock.monotonic_ms() >= START);
}
