//! A store that was not closed. Everything covered by a mark is durable, so damage to it is
//! corruption. After the last mark, damage looks like a torn write: promise 13 excuses the loss,
//! and these tests bound it: only records from the damage on, nothing before it, and batches as a
//! whole.

use std::path::PathBuf;

use embercask::storage::CutPolicy;
use embercask::{ErrorKind, ReadMode, verify};

use crate::damages::{Damage, Damaged};
use crate::judge::{Verdict, content, judge_salvage};
use crate::records::{Content, Record, SEGMENT_HEADER_LEN, resolve, segment_id};
use crate::run::{Tally, floors, one_in, run};
use crate::subject::{NOW_MS, Subject, is_segment, killed, options};
use test_support::DIRECTORY;

/// One in this many places in the log is damaged. Odd, so that both read modes are used.
const PLACES_BETWEEN: u64 = 5;

/// The active segment: the newest.
fn active(subject: &Subject) -> PathBuf {
    subject
        .files
        .keys()
        .filter(|path| is_segment(path))
        .max()
        .unwrap()
        .clone()
}

/// What the store must show, or None if it must report damage.
fn expected(damaged: &Damaged<'_>, active: &PathBuf) -> Option<Content> {
    if damaged.is_touched(active, 0..SEGMENT_HEADER_LEN) {
        // Synced before the manifest lists the segment.
        return None;
    }
    let own: Vec<&Record> = damaged
        .subject
        .records
        .iter()
        .filter(|record| record.path == *active)
        .collect();
    let is_touched = |record: &&Record| damaged.is_touched(active, record.start..record.end);
    let end = own
        .iter()
        .find(|record| is_touched(record))
        .map_or(usize::MAX, |record| record.batch.unwrap_or(record.start));
    let id = segment_id(&damaged.subject.files[active]);
    let marks = own
        .iter()
        .filter(|record| !is_touched(record))
        .filter_map(|record| record.mark());
    let durable_end = marks
        .filter(|(segment, _)| *segment == id)
        .map(|(_, offset)| offset)
        .max();
    if durable_end.is_some_and(|durable_end| durable_end > end) {
        return None;
    }
    let others = damaged.subject.records.iter().filter(|record| record.path != *active);
    Some(resolve(
        others.chain(own.into_iter().filter(|record| record.start < end)),
        NOW_MS,
    ))
}

fn judge_unclean(subject: &Subject, active: &PathBuf, damage: &Damage, mode: ReadMode) -> Tally {
    let damaged = Damaged::new(subject, damage);
    let expected = expected(&damaged, active);
    let disk = damaged.disk();
    match verify(DIRECTORY, &options(&disk.crash_process(), NOW_MS)) {
        Ok(report) => assert_eq!(report.is_sound(), expected.is_some(), "{report:?}"),
        Err(error) => assert!(damaged.is_touched(active, 8..12), "{error}"),
    }
    let mut tally = Tally::default();
    match (options(&disk, NOW_MS).read_mode(mode).open(DIRECTORY), expected) {
        (Ok(store), Some(expected)) => {
            tally += Tally::of(Verdict::Whole);
            assert_eq!(content(&store).unwrap(), expected);
            // The decision is final.
            let cut = disk.power_cut(&CutPolicy::LoseUnsynced);
            assert_eq!(
                content(&options(&cut, NOW_MS).open(DIRECTORY).unwrap()).unwrap(),
                expected
            );
        }
        (Ok(store), None) => panic!("damage not noticed; it shows {:?}", content(&store)),
        (Err(error), Some(_)) => panic!("a torn write was reported as damage: {error}"),
        (Err(error), None) => {
            tally += Tally::of(Verdict::Refused);
            match error.kind() {
                ErrorKind::Corruption => assert!(error.to_string().contains(&*active.to_string_lossy()), "{error}"),
                _ => assert!(damaged.is_touched(active, 8..12), "{error}"),
            }
        }
    }
    tally += judge_salvage(&damaged, true);
    tally
}

#[test]
fn every_flipped_bit_before_the_last_mark_is_corruption_and_one_behind_it_costs_the_end_only() {
    let subject = killed();
    let path = active(&subject);
    let length = subject.files[&path].len();
    let (mut noticed, mut lost) = (0, 0);
    for bit in 0..length * 8 {
        match expected(&Damaged::new(&subject, &Damage::Flip(path.clone(), bit)), &path) {
            None => noticed += 1,
            Some(_) => lost += 1,
        }
    }
    println!("{noticed} bits are before the last mark, {lost} behind it");
    assert!(
        noticed > 4_000 && lost > 4_000,
        "too few bits before or behind the last mark"
    );
    // Two bits per byte by default, one in each mode.
    let tried = move |bit: &usize| crate::is_thorough() || bit % 8 == bit / 8 % 8 || bit % 8 == (bit / 8 + 3) % 8;
    let flips = (0..length * 8).filter(tried).map(|bit| Damage::Flip(path.clone(), bit));
    let sample = one_in(PLACES_BETWEEN);
    run(
        "flipped bits of a killed store",
        sample.of(flips),
        (sample.floor(2_000), floors(1_100, 0, 900, 2_000).of_sample(sample)),
        |damage| {
            let first = matches!(damage, Damage::Flip(_, bit) if bit % 8 == bit / 8 % 8);
            let mode = if first { ReadMode::Map } else { ReadMode::Pread };
            judge_unclean(&subject, &path, damage, mode)
        },
    );
}

#[test]
fn a_log_cut_at_any_length_loses_what_was_cut_off_and_nothing_before_it() {
    let subject = killed();
    let path = active(&subject);
    let cuts = (0..=subject.files[&path].len()).map(|cut| Damage::SetLength(path.clone(), cut));
    let sample = one_in(PLACES_BETWEEN);
    run(
        "cut logs of a killed store",
        sample.of(cuts),
        (sample.floor(1_000), floors(40, 0, 950, 1_000).of_sample(sample)),
        |damage| {
            let even = matches!(damage, Damage::SetLength(_, cut) if cut % 2 == 0);
            judge_unclean(
                &subject,
                &path,
                damage,
                if even { ReadMode::Map } else { ReadMode::Pread },
            )
        },
    );
}

/// Blocks written out of order, as a device may do: lost blocks at the end are accepted, lost
/// blocks before a later mark are not.
#[test]
fn blocks_of_the_log_that_never_arrived_are_judged_by_the_marks_behind_them() {
    let subject = killed();
    let path = active(&subject);
    let length = subject.files[&path].len();
    let fills = [64, 128, 512].into_iter().flat_map(|size: usize| {
        let path = path.clone();
        (0..length)
            .step_by(8)
            .map(move |at| Damage::Fill(path.clone(), at..at + size, 0))
    });
    run(
        "lost blocks of a killed store",
        fills,
        (400, floors(150, 0, 230, 400)),
        |damage| judge_unclean(&subject, &path, damage, ReadMode::Map),
    );
}
