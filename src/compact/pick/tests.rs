//! Which segments are chosen, at each boundary of each rule.

use super::*;

const SEGMENT: u64 = 100_000;
const CEILING: f64 = 1.6;

/// A segment of a tenth to ten times [`SEGMENT`] that hides nothing; the rest of it is dead, and
/// known to be so.
fn facts(bytes: u64, live_bytes: u64) -> Facts {
    let dead_bytes = bytes - live_bytes;
    Facts {
        bytes,
        live_puts: live_bytes.min(1),
        live_bytes,
        dead_bytes,
        is_wasteful: dead_bytes > 0,
        max_sequence: 1000,
        hides_up_to: (dead_bytes > 0).then_some(1000),
        is_sound: true,
        ..Facts::default()
    }
}

/// A live segment with this many bytes of tombstones.
fn with_tombstones(facts: Facts, tombstone_bytes: u64, max_sequence: u64) -> Facts {
    Facts {
        bytes: facts.bytes + tombstone_bytes,
        tombstone_bytes,
        max_sequence,
        is_wasteful: true,
        ..facts
    }
}

fn limits(waste_ceiling: f64) -> Limits {
    Limits {
        segment_bytes: SEGMENT,
        waste_ceiling,
        is_full: false,
    }
}

fn choice(segments: &[Facts], limits: &Limits) -> Option<Choice> {
    choose(&Account::of(segments.to_vec()), limits)
}

#[track_caller]
fn chosen(segments: &[Facts], indexes: &[usize], pace: Pace) {
    let choice = choice(segments, &limits(CEILING)).expect("nothing is chosen");
    assert_eq!((choice.indexes.as_slice(), choice.pace), (indexes, pace));
}

#[track_caller]
fn none_chosen(segments: &[Facts]) {
    assert_eq!(choice(segments, &limits(CEILING)), None);
}

#[test]
fn segments_without_live_records_go_first_and_at_full_speed() {
    none_chosen(&[]);
    let full = facts(SEGMENT, SEGMENT);
    chosen(&[full, facts(SEGMENT, 0), full, facts(9000, 0)], &[1, 3], Pace::Hurried);
    // Something in it is live.
    none_chosen(&[full, facts(SEGMENT, 1)]);
    // Half of it expired too recently.
    let mut expired = facts(SEGMENT, 0);
    (expired.grace_bytes, expired.dead_bytes) = (SEGMENT / 2, SEGMENT / 2);
    none_chosen(&[full, expired]);
    (expired.grace_bytes, expired.dead_bytes) = (SEGMENT / 2 - 1, SEGMENT / 2 + 1);
    chosen(&[full, expired], &[1], Pace::Hurried);
    // It cannot be read.
    expired.is_sound = false;
    none_chosen(&[full, expired]);
}

#[test]
fn eight_small_segments_are_merged_and_seven_are_not() {
    let (small, not_small) = (facts(SEGMENT / 16 - 1, 6249), facts(SEGMENT / 16, 6250));
    none_chosen(&[small; 7]);
    chosen(&[small; 8], &[0, 1, 2, 3, 4, 5, 6, 7], Pace::Throttled);
    none_chosen(&[not_small; 8]);
    let mut mixed = [small; 10];
    (mixed[0], mixed[4]) = (not_small, not_small);
    chosen(&mixed, &[1, 2, 3, 5, 6, 7, 8, 9], Pace::Throttled);
    // No more than sixteen at a time.
    chosen(&[small; 20], &(0..16).collect::<Vec<_>>(), Pace::Throttled);
    // What has just expired stays apart until it can go.
    let lingering = Facts {
        grace_bytes: 1,
        ..small
    };
    none_chosen(&[lingering; 20]);
}

#[test]
fn nothing_is_copied_until_waste_is_above_its_ceiling() {
    // A million bytes without one segment's are 900,000, which is 1.6 times 562,500.
    let mut segments = [facts(SEGMENT, SEGMENT / 2); 10];
    segments[9] = facts(SEGMENT, SEGMENT);
    segments[8] = facts(SEGMENT, 62_500);
    none_chosen(&segments);
    assert!(choice(&segments, &limits(1.59)).is_some());
    segments[8] = facts(SEGMENT, 62_499);
    assert!(choice(&segments, &limits(CEILING)).is_some());
    assert!(choice(&segments, &limits(1.7)).is_none());
    // What may not go yet is not waste.
    segments[8].dead_bytes -= 2;
    segments[8].grace_bytes = 2;
    none_chosen(&segments);
    // One segment's worth of waste is never too much.
    none_chosen(&[facts(SEGMENT, 1)]);
    // Nor is what cannot be compacted.
    segments.iter_mut().for_each(|facts| facts.is_sound = false);
    none_chosen(&segments);
}

#[test]
fn what_frees_the_most_is_copied_first_up_to_two_segments_and_in_order_of_age() {
    let (good, better, best) = (facts(SEGMENT, 60_000), facts(SEGMENT, 40_000), facts(SEGMENT, 10_000));
    let full = facts(SEGMENT, SEGMENT);
    let chosen_of = |segments: &[Facts], ceiling| choice(segments, &limits(ceiling)).unwrap().indexes;
    let segments = [good, better, full, better, better, best, good, better, better];
    // 10,000 and four times 40,000 bytes; the next one would be too many.
    assert_eq!(chosen_of(&segments, 1.1), [1, 3, 4, 5, 7]);
    // No more than needed, if that fills half a segment: 720,000 bytes over 470,000 without one
    // segment's are 1.53 times as many as are live.
    assert_eq!(chosen_of(&segments, 1.6), [1, 5]);
    // The first one is taken whatever it takes.
    let large = facts(20 * SEGMENT, 5 * SEGMENT);
    assert_eq!(chosen_of(&[full, large, large], 1.1), [1]);
    // An old segment before a new one with the same waste.
    let old = Facts {
        max_sequence: 10,
        ..better
    };
    let many = |facts: Facts| Facts {
        live_puts: 100,
        ..facts
    };
    assert_eq!(chosen_of(&[many(better), many(old), full, many(better)], 1.2), [0, 1]);
    assert_eq!(chosen_of(&[many(better), many(better), full, many(old)], 1.2), [0, 3]);
    // As much as a run copies, to the byte.
    assert_eq!(chosen_of(&[better; 20], 1.1), [0, 1, 2, 3, 4]);
    // A 32nd must be reclaimed.
    let hardly = |dead_bytes| {
        let mut facts = facts(SEGMENT, 10);
        facts.dead_bytes = dead_bytes;
        facts
    };
    assert_eq!(choice(&[hardly(SEGMENT / 32); 10], &limits(1.1)), None);
    assert!(choice(&[hardly(SEGMENT / 32 + 1); 10], &limits(1.1)).is_some());
}

#[test]
fn a_segment_counts_by_what_it_frees_and_its_age_for_what_it_costs() {
    let with_grace = Facts {
        bytes: 160,
        grace_bytes: 60,
        ..facts(100, 60)
    };
    // 160 bytes are read and 120 copied.
    assert!((score(&with_grace, 40, 6) - 1.0).abs() < 1e-9);
    // With two thousand records, 100 newer ones: an age of 351 with what all have.
    let many = |max_sequence, live_bytes| Facts {
        max_sequence,
        live_puts: 1000,
        ..facts(SEGMENT, live_bytes)
    };
    let first_of = |old: Facts, new: Facts| {
        let account = Account::of(vec![new, old]);
        choose_by_own_gain(&account, &limits(CEILING), 1).0
    };
    // Their benefits are 351 x 50,000 / 150,000 and 251 x 58,... / 141,...: the older one.
    assert_eq!(first_of(many(900, 50_000), many(1000, 41_000)), [1]);
    assert_eq!(first_of(many(900, 50_000), many(1000, 35_000)), [0, 1]);
}

/// The settings and a queue: one old segment with a few dead bytes keeps all later tombstones.
#[test]
fn the_segment_that_keeps_tombstones_elsewhere_is_compacted_for_them() {
    let settings = Facts {
        dead_bytes: 10,
        hides_up_to: Some(5),
        max_sequence: 20,
        ..facts(SEGMENT, SEGMENT - 10)
    };
    let queue = with_tombstones(facts(10, 10), SEGMENT, 1000);
    let segments = [queue, settings, queue, queue, queue];
    let choice_of = |segments: &[Facts]| choice(segments, &limits(CEILING));
    let unpins = |indexes: Vec<usize>| {
        Some(Choice {
            indexes,
            pace: Pace::Throttled,
            unpins: true,
        })
    };
    assert_eq!(choice_of(&segments), unpins(vec![1]));
    // Of several, those up to the best ratio, oldest deaths first.
    let other = |hides_up_to, live_bytes| Facts {
        hides_up_to: Some(hides_up_to),
        ..facts(live_bytes + 10, live_bytes)
    };
    let both = [queue, queue, other(9, 1000), queue, settings, queue, other(2000, 1000)];
    assert_eq!(choice_of(&both), unpins(vec![2, 4]));
    // More than a run copies: the first part.
    let large = [
        queue,
        queue,
        other(9, 2 * SEGMENT),
        queue,
        settings,
        queue,
        queue,
        queue,
    ];
    assert_eq!(choice_of(&large), unpins(vec![4]));
    // If it is damaged, nothing helps, and the tombstones do not count.
    let damaged = Facts {
        is_sound: false,
        ..settings
    };
    let beside_damage = [queue, damaged, queue, queue, queue];
    assert_eq!(choice_of(&beside_damage), None);
    assert_eq!(Account::of(beside_damage.to_vec()).held().damage_bytes, 4 * SEGMENT);
    // If its dead puts expired too recently, neither.
    let expired = Facts {
        dead_bytes: 0,
        grace_bytes: 10,
        ..settings
    };
    let in_grace = [queue, expired, queue, queue, queue];
    assert_eq!(choice_of(&in_grace), None);
    assert_eq!(Account::of(in_grace.to_vec()).held().grace_bytes, 10 + 4 * SEGMENT);
    // Once nothing hides anything, the tombstones go.
    let free = [queue, facts(SEGMENT, SEGMENT), queue, queue, queue];
    assert!(matches!(choice_of(&free), Some(Choice { unpins: false, .. })));
}

/// C17
#[test]
fn tombstones_count_as_gain_if_no_other_segment_has_what_they_hide() {
    let mut random = 1u64;
    let mut below = |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % bound
    };
    for _ in 0..200 {
        let count = below(6) + 1;
        let segments: Vec<_> = (0..count)
            .map(|_| Facts {
                hides_up_to: Some(below(10)).filter(|floor| *floor < 8),
                ..with_tombstones(facts(100, 100), 7, below(10))
            })
            .collect();
        let account = Account::of(segments.clone());
        for (index, facts) in segments.iter().enumerate() {
            let mut others = segments.iter().enumerate().filter(|(other, _)| *other != index);
            let go = others.all(|(_, other)| other.hides_up_to.is_none_or(|floor| facts.max_sequence <= floor));
            assert_eq!(account.gain(index, facts), 7 * u64::from(go), "{index} of {segments:?}");
        }
    }
}

#[test]
fn on_a_full_disk_one_segment_is_compacted_at_a_time_whatever_the_ceiling() {
    let full = Limits {
        is_full: true,
        ..limits(10.0)
    };
    let segments = [facts(SEGMENT, 90_000), facts(SEGMENT, 50_000), facts(SEGMENT, 60_000)];
    let one = |index, unpins| {
        Some(Choice {
            indexes: vec![index],
            pace: Pace::Hurried,
            unpins,
        })
    };
    assert_eq!(choice(&segments, &full), one(1, false));
    // More than a block, or an eighth of a small segment.
    assert_eq!(choice(&[facts(8000, 7000); 2], &full), None);
    assert_eq!(choice(&[facts(8000, 6999); 2], &full), one(1, false));
    assert_eq!(choice(&[facts(SEGMENT, SEGMENT - 4096); 2], &full), None);
    assert_eq!(choice(&[facts(SEGMENT, SEGMENT - 4097); 2], &full), one(1, false));
    let settings = Facts {
        hides_up_to: Some(5),
        ..facts(SEGMENT, SEGMENT - 10)
    };
    let queue = with_tombstones(facts(10, 10), SEGMENT, 1000);
    assert_eq!(choice(&[queue, settings], &full), one(1, true));
}

#[test]
fn hints_count_and_values_that_are_small_beside_them_leave_something_for_waste() {
    let tiny = |waste: u64| Facts {
        live_puts: 20_000,
        ..facts(SEGMENT + 60_000 + waste, SEGMENT)
    };
    // Hints take 60,000 bytes: half of what a ceiling of 1.1 allows for waste is 8,000.
    let excess = |waste| Account::of(vec![tiny(waste)]).excess(1.1, 0);
    assert_eq!((excess(8000), excess(8001)), (0, 1));
    assert_eq!(Account::of(vec![tiny(0)]).excess(1.6, 0), 0);
    assert_eq!(Account::of(vec![facts(SEGMENT, 50_000)]).excess(1.6, 0), 20_000);
    assert_eq!(Account::of(vec![facts(SEGMENT, 50_000)]).excess(1.6, 20_000), 0);
}

#[test]
fn a_forced_compaction_takes_all_that_is_wasteful_or_small() {
    let full = facts(SEGMENT, SEGMENT);
    let small = facts(SEGMENT / 2 - 1, SEGMENT / 2 - 1);
    let wasteful = facts(SEGMENT, SEGMENT - 1);
    let all = |segments: &[Facts]| choose_all(&Account::of(segments.to_vec()), SEGMENT);
    assert!(all(&[]).is_empty());
    assert_eq!(all(&[full, wasteful, full, wasteful]), [[1, 3]]);
    // More than the overhead of a segment, plus a twentieth, is neither live nor known.
    let unknown = |bytes| Facts {
        live_bytes: SEGMENT - bytes,
        ..full
    };
    assert!(all(&[unknown(4096 + 5000)]).is_empty());
    assert_eq!(all(&[unknown(4096 + 5001)]), [[0]]);
    // One small segment stays as it is.
    assert!(all(&[full, small, full]).is_empty());
    assert_eq!(all(&[full, small, full, small]), [[1, 3]]);
    assert!(all(&[facts(SEGMENT / 2, SEGMENT / 2); 3]).is_empty());
    // A gibibyte at once.
    let half = |more: u64| facts((1u64 << 29) + more, 1);
    assert_eq!(all(&[half(0), half(0), half(0)]), [vec![0, 1], vec![2]]);
    assert_eq!(all(&[half(0), half(1), half(0)]), [vec![0], vec![1], vec![2]]);
    assert_eq!(all(&[half(1 << 30), half(0), half(0)]), [vec![0], vec![1, 2]]);
}
