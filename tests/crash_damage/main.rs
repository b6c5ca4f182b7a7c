//! Damage, in every place: whatever happened to the files of a store, it shows what is right or
//! says what is wrong.
//!
//! Stores with every kind of record ([`subject`]) are damaged in all ways ([`damages`]) and opened
//! in both read modes. Held for each ([`judge`]):
//!
//! * opening succeeds, or fails with an error of the right kind that names a damaged file, and the
//!   damaged part of it;
//! * every way to read a key gives the right answer or such an error: never another value, never
//!   "absent" for a key that was there, never a key that had been deleted, dropped or had expired;
//! * `verify` lists every damaged record of a store that opens, by segment and offset, and nothing
//!   else;
//! * `salvage` brings out, of every key, the newest record that is not damaged: which ones these
//!   are is computed from the format by a second reader of it ([`records`]), not by the engine;
//! * nothing panics, and nobody asks for more memory than the files justify ([`allocations`]).
//!
//! What promise 10 excuses, and how much of it, is said where it is tested: the end of the log of a
//! store that was not closed (`unclean`), and a manifest rolled back to an older state (`files`).
//!
//! Of all bits and all lengths of a store of a few kilobytes a sample is tried that has a part of
//! each byte, another one in each run; all of them with `EMBERCASK_EXHAUSTIVE=1`. Of larger stores
//! and of several damages at once `EMBERCASK_DAMAGE_STATES` are tried of each. A failure names the
//! damage; `EMBERCASK_DAMAGE` set to that text tries it alone, in all ways (ids and salts differ
//! from run to run, what lies where does not).
//!
//! `tests/engine/recovery/` has the single cases behind this, `tests/engine/verify_and_salvage/`
//! the reports of verify and salvage, and `tests/engine/damage_while_open.rs` bytes that change
//! under an open store.

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

/// Of all bits, one in so many is tried: at least one of each byte, and all eight in their turn.
const BITS_BETWEEN: u64 = 7;
/// Files that say nothing: one in so many bits is tried.
const UNIMPORTANT_STEP: usize = 251;

fn is_unimportant(path: &std::path::Path) -> bool {
    path.ends_with("RESERVE") || path.ends_with("LOCK")
}

/// Whether all ways of opening are tried for each damage, and not one after the other for one
/// damage after the other.
fn is_thorough() -> bool {
    std::env::var_os("EMBERCASK_DAMAGE_THOROUGH").is_some()
}

/// With hints in both modes, and without in one of them; and salvage.
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

/// Without hints everything is read on opening, so that nothing is found out later, and nothing is
/// overlooked.
fn judge_without_hints(damaged: &Damaged<'_>, mode: ReadMode) -> Tally {
    let verdict = judge(damaged, mode, false);
    assert_ne!(verdict, Verdict::Harmed, "found out late");
    assert!(verdict == Verdict::Refused || !damaged.hurts_a_segment(), "not noticed");
    Tally::of(verdict)
}

/// One of the ways of opening, always with the hints in one of the two modes, and now and then the
/// others: whatever counts up through the damages decides. All of them with
/// `EMBERCASK_DAMAGE_THOROUGH`.
fn judge_one_way(subject: &Subject, damage: &Damage) -> Tally {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    if is_thorough() || std::env::var_os("EMBERCASK_DAMAGE").is_some() {
        return judge_everything(subject, damage);
    }
    // Seven goes through all remainders of eight, whatever the other thread takes.
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
