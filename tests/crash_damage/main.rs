//! Damage everywhere: whatever happens to the files of a store, it shows the right content or
//! reports the damage.
//!
//! Stores with every kind of record ([`subject`]) are damaged in all ways ([`damages`]) and opened
//! in both read modes. Checks for each ([`judge`]):
//!
//! * opening succeeds, or fails with an error of the right kind that names a damaged file and the
//!   damaged part of it;
//! * every way to read a key gives the right answer or such an error: never another value, never
//!   "absent" for an existing key, never a key that was deleted or dropped or had expired;
//! * `verify` lists every damaged record of a store that opens, by segment and offset, and nothing
//!   else;
//! * `salvage` recovers the newest undamaged record of every key. Which ones these are is computed
//!   by a second reader of the format ([`records`]), not by the engine;
//! * nothing panics, and nothing allocates more memory than the files justify ([`allocations`]).
//!
//! The exceptions of promise 13, and their extent, are stated where they are tested: the end of the
//! log of a store that was not closed (`unclean`), and a manifest rolled back to an older state
//! (`files`).
//!
//! Of all bits and lengths of a store of a few kilobytes a sample is tried that touches each byte,
//! a different one in each run; all of them with `EMBERCASK_EXHAUSTIVE=1`. For larger stores, and
//! for several damages at once, `EMBERCASK_DAMAGE_STATES` sets the number of tries. A failure names
//! the damage; `EMBERCASK_DAMAGE` set to that text tries it alone, in all ways (ids and salts
//! differ from run to run, the layout does not).
//!
//! `tests/engine/recovery/` has single cases, `tests/engine/verify_and_salvage/` the reports of
//! verify and salvage, and `tests/engine/damage_while_open.rs` bytes that change under an open
//! store.

mod allocations;
mod damages;
mod files;
mod judge;
mod records;
mod run;
mod subject;
mod unclean;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use embercask::ReadMode;

use damages::{Damage, Damaged};
use judge::{Verdict, judge, judge_salvage};
use run::{Tally, floors, one_in, run};
use subject::Subject;

#[global_allocator]
static ALLOCATOR: allocations::Watched = allocations::Watched;

/// One in this many bits is tried: at least one per byte, and all eight positions in turn.
const BITS_BETWEEN: u64 = 7;
/// One in this many bits is tried of files that hold no data.
const UNIMPORTANT_STEP: usize = 251;

fn is_unimportant(path: &std::path::Path) -> bool {
    path.ends_with("RESERVE") || path.ends_with("LOCK")
}

/// Whether every damage is tried with all ways of opening, instead of rotating through them.
fn is_thorough() -> bool {
    std::env::var_os("EMBERCASK_DAMAGE_THOROUGH").is_some()
}

/// With hints in both read modes, without hints in one of them, and by salvage.
fn judge_everything(subject: &Subject, damage: &Damage) -> Tally {
    let damaged = Damaged::new(subject, damage);
    let by_map = judge(&damaged, ReadMode::Map, true);
    let by_reads = judge(&damaged, ReadMode::Pread, true);
    assert_eq!(by_map, by_reads, "the two read modes disagree");
    let mut tally = Tally::of(by_map);
    tally += Tally::of(by_reads);
    tally += judge_without_hints(&damaged, ReadMode::Map);
    tally += judge_without_hints(&damaged, ReadMode::Pread);
    tally += judge_salvage(&damaged, false);
    tally
}

/// Without hints, opening reads everything, so no damage is found later or missed.
fn judge_without_hints(damaged: &Damaged<'_>, mode: ReadMode) -> Tally {
    let verdict = judge(damaged, mode, false);
    assert_ne!(verdict, Verdict::Harmed, "found out late");
    assert!(verdict == Verdict::Refused || !damaged.hurts_a_segment(), "not noticed");
    Tally::of(verdict)
}

/// One of the ways of opening: always with hints in one read mode, and sometimes another way,
/// chosen by a counter. All ways with `EMBERCASK_DAMAGE_THOROUGH`.
fn judge_one_way(subject: &Subject, damage: &Damage) -> Tally {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    if is_thorough() || std::env::var_os("EMBERCASK_DAMAGE").is_some() {
        return judge_everything(subject, damage);
    }
    // Steps of seven visit all remainders modulo eight, no matter what the other thread takes.
    let count = COUNT.fetch_add(7, Ordering::Relaxed);
    let damaged = Damaged::new(subject, damage);
    let [mode, other] = if count.is_multiple_of(2) {
        [ReadMode::Map, ReadMode::Pread]
    } else {
        [ReadMode::Pread, ReadMode::Map]
    };
    let mut tally = Tally::of(judge(&damaged, mode, true));
    match count % 8 {
        1 | 2 => tally += judge_without_hints(&damaged, other),
        3 | 6 => tally += judge_salvage(&damaged, false),
        _ => {}
    }
    tally
}

fn every_bit(subject: &Subject) -> impl Iterator<Item = Damage> + Send + use<> {
    let lengths: Vec<(PathBuf, usize)> = subject
        .files
        .iter()
        .map(|(path, bytes)| (path.clone(), bytes.len()))
        .collect();
    lengths.into_iter().flat_map(|(path, length)| {
        let step = if is_unimportant(&path) { UNIMPORTANT_STEP } else { 1 };
        (0..length * 8)
            .step_by(step)
            .map(move |bit| Damage::Flip(path.clone(), bit))
    })
}

#[test]
fn every_flipped_bit_of_every_file_of_a_closed_store_is_found_or_does_no_harm() {
    let subject = subject::small(1);
    let sample = one_in(BITS_BETWEEN);
    let least = (
        sample.floor(22_000),
        floors(18_000, 200, 9_000, 5_000).of_sample(sample),
    );
    run("flipped bits", sample.of(every_bit(&subject)), least, |damage| {
        judge_one_way(&subject, damage)
    });
}
