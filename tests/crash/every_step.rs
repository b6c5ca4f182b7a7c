//! A store is cut off before every step it takes on the disk, and then opened from what the crash
//! left.
//!
//! A step is a call that changes stored data or makes it durable. At each step the process is
//! killed before the call, or within it if it is a write; or power fails, and of the unsynced
//! operations none, all, a prefix, or any of them survive, out of order and in parts of 512 bytes
//! or 4 KiB. [`explorer`] lists the checks on each state,
//! [`recording`](test_support::crash::recording) describes how a run is recorded. Recovery itself
//! is cut off and checked in the same way.
//!
//! `a_checkpoint...at_any_step` in `tests/engine/checkpoint.rs` and `tests/engine/second_crash.rs`
//! do this for single scenarios; the model test (`tests/crash/model.rs`) crashes at random places.
//! This suite visits every place.
//!
//! * `EMBERCASK_SEED` seeds the random workloads and the choice of states.
//! * `EMBERCASK_EXHAUSTIVE=1` builds all states of the workload with every kind of operation; the
//!   default is a sample, a different one in each run.
//! * `EMBERCASK_CRASH_STATES` sets the minimum number of states opened for random workloads.
//! * `EMBERCASK_CRASH_PLACE` names one state, in the form that a failure prints, for
//!   `the_state_that_the_environment_names_holds`.

use std::sync::Arc;

use embercask::storage::{CutPolicy, MemStorage, Storage};

use test_support::Sample;
use test_support::crash::cut::{self, Cut, Place};
use test_support::crash::explorer::{self, Explorer};
use test_support::crash::liar::Lie;
use test_support::crash::recording::{Below, Moment};
use test_support::crash::workload::Workload;
use test_support::driver::DIRECTORY;

/// Default number of states for random workloads.
const RANDOM_STATES: u64 = 2_500;

/// The states built for the workload with every kind of operation; all in an exhaustive run.
#[derive(Clone, Copy)]
struct Samples {
    /// Of the states left by cutting off the run.
    life: Sample,
    /// Of the states left by cutting off a recovery.
    recoveries: Sample,
}

fn honest() -> Below {
    Arc::new(|disk: &MemStorage| -> Arc<dyn Storage> { Arc::new(disk.clone()) })
}

/// A generator that is the same for the same place.
fn fate(seed: u64, place: &Place, step: usize) -> test_support::Rng {
    let mut numbers = vec![seed, step as u64];
    for (step, cut) in place {
        numbers.extend([*step as u64, cut.number()]);
    }
    test_support::Rng::new(test_support::mix(&numbers))
}

fn random_cut(fate: &mut test_support::Rng) -> Cut {
    let seed = fate.next() >> 32;
    let grain = if fate.below(2) == 0 { 512 } else { 4096 };
    Cut::Power(CutPolicy::Random { seed, grain })
}

/// Kills within the next write: after its first byte, in its middle, and before its last byte.
fn torn(moment: &Moment, fate: &mut test_support::Rng) -> Vec<Cut> {
    let length = moment.write.as_ref().map_or(0, |write| write.bytes.len());
    let mut parts = vec![1, length.saturating_sub(1), length / 2];
    if length > 1 {
        parts.push(1 + fate.below(length as u64 - 1) as usize);
    }
    parts.retain(|bytes| (1..length).contains(bytes));
    parts.sort_unstable();
    parts.dedup();
    parts.into_iter().map(Cut::KillWithin).collect()
}

/// Every possible cut at this moment, and `random` random ones.
fn every_cut(moment: &Moment, random: u64, fate: &mut test_support::Rng) -> Vec<Cut> {
    let mut cuts = vec![Cut::Kill, Cut::Power(CutPolicy::LoseUnsynced)];
    cuts.extend(torn(moment, fate));
    let pending = moment.disk.pending_operations();
    if pending > 0 {
        let prefixes = (1..pending).map(|operations| CutPolicy::KeepPrefix { operations });
        cuts.extend(prefixes.chain([CutPolicy::KeepAll]).map(Cut::Power));
        cuts.extend((0..random).map(|_| random_cut(fate)));
    }
    cuts
}

/// Every step of the run, with every cut. After a kill, or a power cut that keeps nothing or
/// everything, also every step of the recovery, with the cuts that differ most; a sample of the
/// steps of other recoveries, and of recoveries after a second crash. Reduced to the states in the
/// samples and a kill before every step.
fn exhaustively(samples: Samples, place: &Place, step: usize, moment: &Moment) -> Vec<Cut> {
    let mut cuts = without_sampling(samples.life.seed, place, step, moment);
    let mut numbers = vec![step as u64];
    numbers.extend(place.iter().flat_map(|(step, cut)| [*step as u64, cut.number()]));
    let here = test_support::mix(&numbers);
    cuts.retain(|cut| match place.is_empty() {
        true => *cut == Cut::Kill || samples.life.has(here ^ cut.number()),
        false => samples.recoveries.has(here ^ cut.number()),
    });
    cuts
}

fn without_sampling(seed: u64, place: &Place, step: usize, moment: &Moment) -> Vec<Cut> {
    let mut fate = fate(seed, place, step);
    let one_in = match place.last() {
        None => return every_cut(moment, 24, &mut fate),
        _ if place.len() > 2 => return Vec::new(),
        _ if place.len() == 2 => 150,
        Some((_, Cut::Kill | Cut::Power(CutPolicy::LoseUnsynced | CutPolicy::KeepAll))) => 1,
        Some(_) => 4,
    };
    match fate.below(one_in) {
        0 => vec![Cut::Kill, Cut::Power(CutPolicy::LoseUnsynced), random_cut(&mut fate)],
        _ => Vec::new(),
    }
}

#[test]
fn a_life_of_every_kind_of_operation_survives_a_crash_at_every_step_and_at_every_step_of_the_recovery() {
    a_life_survives(false);
}

#[test]
fn the_same_life_with_a_ring_survives_a_crash_at_every_step_and_at_every_step_of_the_recovery() {
    a_life_survives(true);
}

fn a_life_survives(ring: bool) {
    let workload = Workload::every_kind(ring);
    let recording = workload.record(honest());
    let explorer = Explorer::default();
    let samples = Samples {
        life: Sample::one_in(5),
        recoveries: Sample::one_in(25),
    };
    let choose = |place: &Place, step: usize, moment: &Moment| exhaustively(samples, place, step, moment);
    let result = explorer.explore(&workload, &recording, &choose);
    println!("{} steps: {}", recording.moments.len(), explorer.summary());
    result.unwrap_or_else(|error| panic!("{error}"));
    test_support::at_least(300, recording.moments.len() as u64, "steps of this life");
    let of_life = [
        ("cut: kill within a write", 300),
        ("cut: power, everything kept", 150),
        ("cut: power, a prefix kept", 200),
        ("before Lock of a life", 14),
        ("before Create of a life", 350),
        ("before Write of a life", 1_100),
        ("before Sync of a life", 800),
        ("before SyncDirectory of a life", 300),
        ("before Rename of a life", 150),
        ("before Remove of a life", 400),
        ("before HardLink of a life", 70),
        ("checkpoints found whole", 70),
    ];
    let of_all = [
        (explorer::BUILT, 75_000),
        (explorer::OPENED, 40_000),
        (explorer::RELAPSED, 40_000),
        ("cut: kill", 20_000),
        ("cut: power, nothing kept", 6_000),
        ("cut: power, any of it kept", 12_000),
        ("before Create of an opening", 4_500),
        ("before Write of an opening", 6_000),
        ("before Sync of an opening", 6_000),
        ("before SyncDirectory of an opening", 4_500),
        ("before Rename of an opening", 1_500),
        ("before Remove of an opening", 10_000),
        ("before SetLen of an opening", 800),
        ("openings that recovered", 25_000),
        ("openings that wrote something anew", 18_000),
        ("openings that discarded a torn tail", 5_000),
        ("states of which something might have been lost", 30_000),
        ("states of which something was lost", 20_000),
        ("verified as files", 12_000),
        ("written to afterwards", 12_000),
    ];
    let of_life = of_life.map(|(what, least)| (what, samples.life.outcomes(least)));
    let of_all = of_all.map(|(what, least)| (what, samples.recoveries.outcomes(least)));
    explorer.has_visited(&of_life);
    explorer.has_visited(&of_all);
}

#[test]
fn random_lives_survive_crashes_at_sampled_steps() {
    let states = std::env::var("EMBERCASK_CRASH_STATES").map_or(RANDOM_STATES, |states| states.parse().unwrap());
    let mut seeds = test_support::rng();
    let explorer = Explorer::default();
    let mut lives = 0;
    while explorer.visited(explorer::OPENED) < states {
        let seed = seeds.next() >> 16;
        let workload = Workload::random(seed);
        let recording = workload.record(honest());
        let sample = |place: &Place, step: usize, moment: &Moment| -> Vec<Cut> {
            let mut fate = fate(seed, place, step);
            let Some(one_in) = [1, 12, 40].get(place.len()) else {
                return Vec::new();
            };
            if fate.below(*one_in) > 0 {
                return Vec::new();
            }
            let mut cuts = every_cut(moment, 6, &mut fate);
            vec![cuts.swap_remove(fate.below(cuts.len() as u64) as usize)]
        };
        let result = explorer.explore(&workload, &recording, &sample);
        result.unwrap_or_else(|error| panic!("{error}"));
        explorer.forget();
        lives += 1;
    }
    println!("{lives} lives: {}", explorer.summary());
    test_support::at_least(1, lives, "lives");
    // Scaled to the requested number of states, since a few runs need not contain everything.
    let part = |share: f64| (states as f64 * share) as u64;
    explorer.has_visited(&[
        (explorer::OPENED, states),
        (explorer::RELAPSED, part(0.25)),
        ("cut: kill", part(0.04)),
        ("cut: kill within a write", part(0.02)),
        ("cut: power, nothing kept", part(0.03)),
        ("cut: power, everything kept", part(0.03)),
        ("cut: power, a prefix kept", part(0.08)),
        ("cut: power, any of it kept", part(0.15)),
        ("before Write of a life", part(0.03)),
        ("before Sync of a life", part(0.03)),
        ("before Write of an opening", part(0.03)),
        ("before Sync of an opening", part(0.03)),
        ("openings that recovered", part(0.25)),
        ("openings that wrote something anew", part(0.15)),
        ("openings that discarded a torn tail", part(0.01)),
        ("states of which something might have been lost", part(0.25)),
        ("states of which something was lost", part(0.1)),
        ("verified as files", part(0.2)),
        ("written to afterwards", part(0.2)),
    ]);
}

/// A place names a state only if everything on the disk derives from the seed, including ids, salts
/// and the hashes in index files.
#[test]
fn the_same_workload_takes_the_same_steps_and_writes_the_same_bytes() {
    let mut seeds = test_support::rng();
    let random = || Workload::random(seeds.next() >> 16);
    for workload in [false, true]
        .into_iter()
        .map(Workload::every_kind)
        .chain(std::iter::repeat_with(random).take(5))
    {
        let [first, second] = [workload.record(honest()), workload.record(honest())];
        assert!(first.moments.len() > 30, "{}", workload.name);
        assert_eq!(first.moments.len(), second.moments.len(), "{}", workload.name);
        for (first, second) in first.moments.iter().zip(&second.moments) {
            assert_eq!(first.step, second.step, "{}", workload.name);
            let files = first.disk.files(DIRECTORY);
            assert_eq!(files, second.disk.files(DIRECTORY), "{}: {}", workload.name, first.step);
            for path in files {
                let same = first.disk.read_file(&path).unwrap() == second.disk.read_file(&path).unwrap();
                assert!(same, "{}: {}: {}", workload.name, first.step, path.display());
            }
        }
    }
}

/// By default a state in the middle of recovery, so that replaying keeps working.
#[test]
fn the_state_that_the_environment_names_holds() {
    let (workload, place) = explorer::place_to_replay().unwrap_or_else(|| {
        let lost = Cut::Power(CutPolicy::LoseUnsynced);
        (Workload::every_kind(true).name, vec![(150, Cut::Kill), (2, lost)])
    });
    explorer::replay(&workload, &place, honest()).unwrap_or_else(|error| panic!("{error}"));
}

/// Exploring a device that lies must fail, and so must replaying the place that the error names.
fn notices(lie: Lie) {
    let workload = Workload::every_kind(false);
    let recording = workload.record(lie.below());
    let cuts = |place: &Place, step: usize, moment: &Moment| match place.len() {
        0 => every_cut(moment, 4, &mut fate(0, place, step)),
        _ => Vec::new(),
    };
    let error = Explorer::default().explore(&workload, &recording, &cuts).unwrap_err();
    println!("{lie:?}: {error}");
    let named = error.rsplit('\'').nth(1).unwrap();
    let (name, place) = cut::read_place(named).unwrap();
    explorer::replay(&name, &place, lie.below()).unwrap_err();
}

#[test]
fn a_device_that_ignores_syncs_of_files_is_noticed() {
    notices(Lie::FileSyncs);
}

#[test]
fn a_device_that_ignores_syncs_of_directories_is_noticed() {
    notices(Lie::DirectorySyncs);
}

#[test]
fn a_device_that_renames_before_the_data_are_there_is_noticed() {
    notices(Lie::RenameBeforeData);
}

#[test]
fn a_device_that_loses_a_write_in_the_middle_is_noticed() {
    notices(Lie::MiddleWrite);
}
