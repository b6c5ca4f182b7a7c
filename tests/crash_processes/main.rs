//! Processes that are killed: what the promises say of a process crash, with a real file system and SIGKILL.
//!
//! A child process works on a store and tells its parent of each operation before it begins it and after it was
//! acknowledged. It is killed by the parent at some moment, or by the storage below it at a chosen call: in the middle of
//! opening, recovery, rotation, compaction, checkpoint or close. In two rounds of three the process leaves the directory from
//! which it has opened the store by a relative path, or the store is renamed under it and another directory put in its place. Then the parent looks, and the next child goes on with the same store,
//! for hundreds of rounds.
//!
//! What holds after each round:
//!
//! * the store opens at once, without repair, whoever held its lock (B26); `verify` finds nothing;
//! * what was acknowledged as `Os` or `Sync` is there, what was acknowledged as `Buffered` back to the last flush; of each
//!   writer's operations a prefix is there, and there is no hole between writers;
//! * batches and drops are whole; what was deleted, dropped, renamed or has expired does not come back; no value is another's;
//! * listing, `get` and `count` agree; what was seen once is seen again;
//! * a checkpoint that was acknowledged is a store in a state of its time; one that was cut short is that, or is not there and
//!   can be made anew;
//! * if the power fails as well, what was acknowledged as `Sync` is there, and a prefix of the rest;
//! * a store whose creation was cut short can be created by the next process (B37);
//! * the store does not grow without bound, and the parent keeps no file of it open.
//!
//! `EMBERCASK_KILL_ROUNDS` says how many rounds (300); `EMBERCASK_SEED` replays all plans (not the moments at which a kill
//! from outside strikes). A failed round keeps its directories and says where.
//!
//! `tests/recovery/killed_process.rs` has the smallest test of this kind, for one writer of batches. Crashes of a simulated machine, at
//! every call, are in the model test and others.

#![cfg(unix)]

mod beginning;
mod child;
#[path = "../common/mod.rs"]
mod common;
mod deadly;
mod expect;
mod look;
#[allow(dead_code, reason = "the states are used here, their history is not")]
#[path = "../model/model.rs"]
mod model;
mod plan;
mod power;
#[path = "../common/process.rs"]
mod process;
mod world;

use plan::Phase;
use world::Story;

fn rounds() -> u64 {
    let rounds = std::env::var("EMBERCASK_KILL_ROUNDS").ok();
    rounds.map_or(300, |rounds| rounds.parse().expect("EMBERCASK_KILL_ROUNDS is a number"))
}

const KILLED: &str = "a_store_whose_process_is_killed_hundreds_of_times_keeps_its_promises";

#[test]
fn a_store_whose_process_is_killed_hundreds_of_times_keeps_its_promises() {
    if let Some(role) = process::role() {
        return child::work(&role);
    }
    let seed = common::rng().next();
    let mut story = Story::new(KILLED, seed);
    for round in 0..rounds() {
        story.round(round);
    }
    println!("{:#?}", story.tally);
    if rounds() >= 300 {
        let struck = |phase| story.tally.kills.get(&phase).copied().unwrap_or(0);
        use Phase::{Checkpointing, Closing, Compacting, Opening, Working};
        for phase in [Opening, Working, Compacting, Checkpointing, Closing] {
            assert!(struck(phase) > 0, "no kill in {phase:?}: {:?}", story.tally);
        }
        assert!(
            story.tally.wandered.len() == 2 && story.tally.wandered.values().all(|rounds| *rounds > 20),
            "hardly a store was left or moved: {:?}",
            story.tally
        );
    }
}
