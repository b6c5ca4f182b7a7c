//! Time that jumps both ways, around crashes, openings, compaction and sweeps: what has expired is
//! gone, for as long as the documentation says, and nothing else is.
//!
//! A seeded machine of states ([`life`]) moves the clocks, writes, sweeps, compacts any subset of
//! segments, and ends the store in every way: closed, killed, without power, and in the middle of
//! maintenance. After each step everything that can be seen is compared with a small
//! oracle ([`oracle`]). Held:
//!
//! * At its expiry a record is gone, and not a millisecond before, by the latest wall clock that
//!   this opening has seen since the record was written. So what was seen expired stays expired
//!   until the store is opened again, and what is written after the clock was set back lives as
//!   long as it was told to.
//! * Across openings the wall clock decides: a put that had expired is there again after the clock
//!   was set back, the newest put of its key with its own value, or, if compaction was entitled to
//!   drop it, nothing.
//! * Compaction is entitled to that once a put has been expired for the grace period by the wall
//!   clock, and not within ten minutes of a look at the clocks that showed a jump forward by more
//!   than the grace and a second.
//! * Whatever was dropped, and whichever crash came in between, nothing older of the key comes
//!   back: neither a replaced value, nor a deleted one.
//! * Checkpoint, salvage and verify see the same. So does an opening that finds an index file of
//!   another time.
//!
//! `EMBERCASK_TIME_CASES` says how many lives are lived; a failure prints the seed of its life,
//! which `EMBERCASK_TIME_LIFE` lives again alone, and all that happened in it.
//!
//! `tests/engine/expiry.rs` holds the table of paths that read or change a key, at one millisecond
//! before its expiry and at it; [`boundary`] adds the conditions on sequences, and the places that
//! table does not reach: recovered, cut, salvaged and copied stores.

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
        // One of them that is to be lived again.
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
