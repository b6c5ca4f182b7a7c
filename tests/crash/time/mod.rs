//! Time that jumps both ways, around crashes, openings, compaction and sweeps: what has expired is
//! gone for as long as the documentation says, and nothing else is.
//!
//! A seeded state machine ([`life`]) moves the clocks, writes, sweeps, compacts any subset of
//! segments, and ends the store in every way: closed, killed, by a power cut, and during
//! maintenance. After each step everything visible is compared with a small oracle ([`oracle`]).
//! Invariants:
//!
//! * A record is gone exactly at its expiry, by the latest wall clock that this opening has seen
//!   since the record was written. So what was seen expired stays expired until the store is opened
//!   again, and records written after the clock was set back live as long as intended.
//! * Across openings the wall clock decides: after the clock was set back, an expired put reappears
//!   as the newest put of its key, with its own value, or, if compaction was entitled to drop it,
//!   not at all.
//! * Compaction is entitled to drop a put that has been expired for the grace period by the wall
//!   clock, except within ten minutes after a reading of the clocks that showed a jump forward by
//!   more than the grace period and a second.
//! * Nothing older of a key comes back, neither a replaced nor a deleted value, no matter what was
//!   dropped and which crash happened.
//! * Checkpoint, salvage and verify see the same, and so does an opening that finds an index file
//!   of another time.
//!
//! `EMBERCASK_TIME_CASES` sets the number of runs. A failure prints the trace and the seed of its
//! run, which `EMBERCASK_TIME_LIFE` replays alone.
//!
//! `tests/engine/expiry.rs` has the table of all ways to read or change a key, one millisecond
//! before its expiry and at it; [`boundary`] adds conditions on sequences, and the stores that
//! table does not cover: recovered, cut, salvaged and copied ones.

mod boundary;
mod life;
mod oracle;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use life::{Life, Tally};
use test_support::{at_least, rng};

/// Some day in 2033.
const START_MS: u64 = 2_000_000_000_000;

#[test]
fn what_has_expired_is_gone_whichever_way_the_clock_jumps_and_nothing_older_comes_back() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    let lives: Vec<u64> = match number("EMBERCASK_TIME_LIFE") {
        Some(seed) => vec![seed],
        None => {
            let mut rng = rng();
            (0..number("EMBERCASK_TIME_CASES").unwrap_or(400))
                .map(|_| rng.next())
                .collect()
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        let tally = &tally;
        for seeds in lives.chunks(lives.len().div_ceil(threads)) {
            scope.spawn(move || {
                for seed in seeds {
                    let mut life = Life::new(*seed);
                    let lived = catch_unwind(AssertUnwindSafe(|| life.live()));
                    assert!(
                        lived.is_ok(),
                        "{}see the panic above; EMBERCASK_TIME_LIFE={seed}",
                        life.trace
                    );
                    tally.lock().unwrap().add(life.tally);
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap();
    println!("{tally:#?}");
    let lived = lives.len() as u64;
    if lived < 20 {
        // Only that run was replayed.
        return;
    }
    for (what, a_hundred_lives) in [
        ("clean openings", 140),
        ("openings that recovered", 150),
        ("openings by an index file", 50),
        ("keys that are there again", 90),
        ("keys that were dropped", 20),
        ("maintenance that was stopped", 45),
        ("compactions", 280),
        ("copies", 150),
        ("looks at what has expired", 4_500),
    ] {
        at_least(a_hundred_lives * lived / 100, tally.get(what), what);
    }
}
