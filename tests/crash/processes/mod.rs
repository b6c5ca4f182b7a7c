//! Killed processes: what the promises say about a process crash, with a real file system and
//! SIGKILL.
//!
//! A child process works on a store and reports each operation to its parent, before it begins and
//! after it was acknowledged. It is killed by the parent at some moment, or by its storage at a
//! chosen call: during opening, recovery, rotation, compaction, checkpoint or close. In two rounds
//! of three the process leaves the directory from which it opened the store by a relative path, or
//! the store is renamed under it and replaced by another directory. Then the parent checks the
//! store, and the next child continues with it, for hundreds of rounds.
//!
//! Invariants after each round:
//!
//! * the store opens at once, without repair, no matter who held its lock (B26); `verify` finds
//!   nothing;
//! * writes acknowledged as `Os` or `Sync` are there, and those acknowledged as `Buffered` up to
//!   the last flush; of each writer's operations a prefix is there, without holes between writers;
//! * batches and drops are atomic; deleted, dropped, renamed or expired data do not come back; no
//!   key has another key's value;
//! * listing, `get` and `count` agree; state once seen is seen again;
//! * an acknowledged checkpoint is a store in a state of its time; one that was cut short is that
//!   too, or does not exist and can be written again;
//! * if the power fails as well, writes acknowledged as `Sync` are there, and a prefix of the rest;
//! * a store whose creation was cut short can be created by the next process (B37);
//! * the store does not grow without bound, and the parent keeps none of its files open.
//!
//! `EMBERCASK_KILL_ROUNDS` sets the number of rounds (150 by default); `EMBERCASK_SEED` replays all
//! plans, but not the moments at which the parent kills. A failed round keeps its directories and
//! prints their path.
//!
//! `tests/engine/recovery/killed_process.rs` has the smallest test of this kind, for one writer of
//! batches. The model test and others crash a simulated machine at every call.

#![cfg(unix)]

mod beginning;
mod child;
mod deadly;
mod expect;
mod look;
mod plan;
mod power;
mod readers;
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

/// Asserts that these rounds saw enough to prove something. All floors are well below the usual
/// counts.
fn has_seen_enough(tally: &world::Tally, rounds: u64) {
    assert!(rounds > 0, "no round at all");
    test_support::at_least(rounds, tally.acknowledged, "operations that were acknowledged");
    // With few rounds, which kinds occur is up to chance.
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
