//! Which segments are chosen, at each boundary of each rule.

use super::*;

const SEGMENT: u64 = 1000;
const CEILING: f64 = 1.6;

/// A segment with this many live bytes, and this many bytes reclaimed by compacting it.
fn facts(bytes: u64, live_bytes: u64, gain: u64) -> Facts {
    Facts {
        bytes,
        live_puts: u64::from(live_bytes > 0),
        live_bytes,
        is_wasteful: false,
        gain,
    }
}

#[track_caller]
fn chosen(candidates: &[Facts], expected: &[usize], pace: Pace) {
    let (chosen, chosen_pace) = choose(candidates, SEGMENT, CEILING).expect("nothing is chosen");
    assert_eq!((chosen.as_slice(), chosen_pace), (expected, pace));
}

#[track_caller]
fn none_chosen(candidates: &[Facts]) {
    let chosen = choose(candidates, SEGMENT, CEILING);
    assert!(chosen.is_none(), "{chosen:?}");
}

#[test]
fn segments_without_live_records_go_first_and_at_full_speed() {
    none_chosen(&[]);
    let full = facts(1000, 1000, 0);
    chosen(
        &[full, facts(1000, 0, 501), full, facts(1000, 0, 1000)],
        &[1, 3],
        Pace::Hurried,
    );
    // Most of it would have to be copied.
    none_chosen(&[full, facts(1000, 0, 500)]);
    // Something in it is live.
    none_chosen(&[full, facts(1000, 1, 999)]);
}

#[test]
fn eight_small_segments_are_merged_and_seven_are_not() {
    let (small, not_small) = (facts(249, 249, 0), facts(250, 250, 0));
    none_chosen(&[small; 7]);
    chosen(&[small; 8], &[0, 1, 2, 3, 4, 5, 6, 7], Pace::Throttled);
    none_chosen(&[not_small; 8]);
    let mut mixed = [small; 10];
    (mixed[0], mixed[4]) = (not_small, not_small);
    chosen(&mixed, &[1, 2, 3, 5, 6, 7, 8, 9], Pace::Throttled);
}

#[test]
fn nothing_is_copied_until_waste_is_above_its_ceiling() {
    // 10,000 bytes without one segment's are 9,000, which is 1.6 times 5,625.
    let mut candidates = [facts(1000, 500, 500); 10];
    candidates[9] = facts(1000, 1000, 0);
    candidates[8] = facts(1000, 625, 375);
    none_chosen(&candidates);
    assert!(choose(&candidates, SEGMENT, 1.59).is_some());
    candidates[8] = facts(1000, 624, 376);
    chosen(&candidates, &[0, 1, 2, 3, 4, 5, 6], Pace::Throttled);
    assert!(choose(&candidates, SEGMENT, 1.7).is_none());
    // One segment's worth of waste is never too much.
    none_chosen(&[facts(1000, 1, 999)]);
}

#[test]
fn what_gives_back_the_most_is_copied_first_up_to_four_segments_and_in_order_of_age() {
    let (good, better, best) = (facts(1000, 700, 300), facts(1000, 600, 400), facts(1000, 100, 900));
    let full = facts(1000, 1000, 0);
    let chosen_with = |candidates: &[Facts]| choose(candidates, SEGMENT, 1.1).unwrap().0;
    // 100 + 600 * 6 live bytes, and one for each: 7 of them fit into 4,000.
    let candidates = [good, better, better, better, full, better, better, better, best, good];
    assert_eq!(chosen_with(&candidates), [1, 2, 3, 5, 6, 7, 8]);
    // No more than eight.
    assert_eq!(chosen_with(&[best; 12]), [0, 1, 2, 3, 4, 5, 6, 7]);
    // More than an eighth must be reclaimed.
    let mut few = [facts(1000, 874, 126), best, facts(1000, 875, 125), best, best];
    assert_eq!(chosen_with(&few), [0, 1, 3, 4]);
    few[0] = facts(1000, 875, 125);
    assert_eq!(chosen_with(&few), [1, 3, 4]);
    // Exactly four segments, and one byte more.
    let whole = |live_bytes| [facts(10_000, live_bytes, 9000), facts(10_000, 1999, 8000)];
    assert_eq!(chosen_with(&whole(1999)), [0, 1]);
    assert_eq!(chosen_with(&whole(2000)), [0]);
    // The first one is taken whatever its live bytes; the next one only if there is room, even
    // after one without live bytes.
    assert_eq!(chosen_with(&[facts(10_000, 4500, 5000)]), [0]);
    let without_live_bytes = Facts {
        live_puts: 1,
        ..facts(1000, 0, 600)
    };
    assert_eq!(chosen_with(&[without_live_bytes, facts(9000, 4400, 4500)]), [0]);
    // Above the ceiling, but nothing would be reclaimed.
    assert!(choose(&[facts(1000, 100, 0); 10], SEGMENT, CEILING).is_none());
}

#[test]
fn a_forced_compaction_takes_all_that_is_wasteful_or_small() {
    let full = facts(20_000, 20_000, 0);
    let small = facts(499, 499, 0);
    let wasteful = Facts {
        is_wasteful: true,
        ..full
    };
    let all = |candidates: &[Facts]| choose_all(candidates, SEGMENT);
    assert!(all(&[]).is_empty());
    assert_eq!(all(&[full, wasteful, full, wasteful]), [[1, 3]]);
    // More than the overhead of a segment, plus a twentieth, must be reclaimed.
    assert!(all(&[facts(20_000, 1, 4096 + 1000)]).is_empty());
    assert_eq!(all(&[facts(20_000, 1, 4096 + 1001)]), [[0]]);
    // One small segment stays as it is.
    assert!(all(&[full, small, full]).is_empty());
    assert_eq!(all(&[full, small, full, small]), [[1, 3]]);
    assert!(all(&[facts(500, 500, 0); 3]).is_empty());
    // A gibibyte at once.
    let half = |more: u64| Facts {
        is_wasteful: true,
        ..facts((1u64 << 29) + more, 1, 0)
    };
    assert_eq!(all(&[half(0), half(0), half(0)]), [vec![0, 1], vec![2]]);
    assert_eq!(all(&[half(0), half(1), half(0)]), [vec![0], vec![1], vec![2]]);
    assert_eq!(all(&[half(1 << 30), half(0), half(0)]), [vec![0], vec![1, 2]]);
}
