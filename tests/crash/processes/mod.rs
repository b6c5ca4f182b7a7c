//! Processes that are killed: what the promises say of a process crash, with a real file system and
//! SIGKILL.
//!
//! A child process works on a store and tells its parent of each operation before it begins it and
//! after it was acknowledged. It is killed by the parent at some moment, or by the storage below it
//! at a chosen call: in the middle of opening, recovery, rotation, compaction, checkpoint or close.
//! In two rounds of three the process leaves the directory from which it has opened the store by a
//! relative path, or the store is renamed under it and another directory put in its place. Then the
//! parent looks, and the next child goes on with the same store, for hundreds of rounds.
//!
//! What holds after each round:
//!
//! * the store opens at once, without repair, whoever held its lock (B26); `verify` finds nothing;
//! * what was acknowledged as `Os` or `Sync` is there, what was acknowledged as `Buffered` back to
//!   the last flush; of each writer's operations a prefix is there, and there is no hole between
//!   writers;
//! * batches and drops are whole; what was deleted, dropped, renamed or has expired does not come
//!   back; no value is another's;
//! * listing, `get` and `count` agree; what was seen once is seen again;
//! * a checkpoint that was acknowledged is a store in a state of its time; one that was cut short
//!   is that, or is not there and can be made anew;
//! * if the power fails as well, what was acknowledged as `Sync` is there, and a prefix of the
//!   rest;
//! * a store whose creation was cut short can be created by the next process (B37);
//! * the store does not grow without bound, and the parent keeps no file of it open.
//!
//! `EMBERCASK_KILL_ROUNDS` says how many rounds (300); `EMBERCASK_SEED` replays all plans (not the
//! moments at which a kill from outside strikes). A failed round keeps its directories and says
//! where.
//!
//! `tests/engine/recovery/killed_process.rs` has the smallest test of this kind, for one writer of
//! batches. Crashes of a simulated machine, at every call, are in the model test and others.

#![cfg(unix)]

mod beginning;
mod child;
mod deadly;
mod expect;
mod look;
mod plan;
mod power;
mod world;

use plan::Phase;
use world::Story;

fn rounds() -> u64 {
    let rounds = std::env::var("EMBERCASK_KILL_ROUNDS").ok();
    rounds.map_or(150, |rounds| rounds.parse().expect("EMBERCASK_KILL_ROUNDS is a number"))
}

const KILLED: &str = concat!(
    module_path!(),
    "::a_store_whose_process_is_killed_hundreds_of_times_keeps_its_promises"
);

#[test]
fn a_store_whose_process_is_killed_hundreds_of_times_keeps_its_promises() {
    if let Some(role) = test_support::process::role() {
        return child::work(&role);
    }
    let seed = test_support::rng().next();
    let mut story = Story::new(KILLED, seed);
    for round in 0..rounds() {
        story.round(round);
    }
    println!("{:#?}", story.tally);
    has_seen_enough(&story.tally, rounds());
}

/// That enough has happened in these rounds to prove something; all of it is well below what is
/// ordinarily seen.
fn has_seen_enough(tally: &world::Tally, rounds: u64) {
    assert!(rounds > 0, "no round at all");
    test_support::at_least(rounds, tally.acknowledged, "operations that were acknowledged");
    // Of a few rounds, what kinds there are is up to chance.
    if rounds < 150 {
        return;
    }
    let share = |share: f64| (rounds as f64 * share) as u64;
    for (what, found, least) in [
        ("processes that came to their end", tally.finished, share(0.03)),
        ("operations that were acknowledged", tally.acknowledged, share(12.0)),
        ("rounds in which any was", tally.rounds_acknowledged, share(0.4)),
        (
            "acknowledged operations that might be lost",
            tally.unpromised,
            share(0.5),
        ),
        ("checkpoints made", tally.checkpoints_made, share(0.08)),
        ("checkpoints cut short", tally.checkpoints_cut, share(0.04)),
        ("stores recovered", tally.recovered, share(0.25)),
        ("power cuts", tally.power_cuts, share(0.3)),
        ("power cuts that took something", tally.power_cuts_felt, share(0.15)),
        (
            "rounds in which the parent compacted something",
            tally.compacted,
            share(0.12),
        ),
    ] {
        test_support::at_least(least, found, what);
    }
    for (phase, least) in [
        (Phase::Opening, share(0.1)),
        (Phase::Working, share(0.1)),
        (Phase::Compacting, share(0.08)),
        (Phase::Checkpointing, share(0.04)),
        (Phase::Closing, share(0.02)),
    ] {
        let struck = tally.kills.get(&phase).copied().unwrap_or(0);
        test_support::at_least(least, struck, &format!("kills in {phase:?}"));
    }
    assert!(tally.wandered.len() == 2 || rounds < 50, "{tally:?}");
    for (how, times) in &tally.wandered {
        test_support::at_least(share(0.1), *times, &format!("stores that were left or moved, {how}"));
    }
}
