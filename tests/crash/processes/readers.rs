//! Readers, and verify, beside a process that writes, compacts, and is killed and started again.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use embercask::{Durability, ErrorKind, Options, ReadMode, Store, verify};

use test_support::process::{Child, Role, open_in, report, role, was_killed};
use test_support::{Rng, StopOnDrop, at_least, class, mix, rng};

const NAME: &str = concat!(
    module_path!(),
    "::readers_beside_a_writer_that_is_killed_see_whole_batches_and_all_that_was_acknowledged"
);

const ACCOUNTS: u64 = 50;
const IN_ALL: u64 = ACCOUNTS * 100;
/// Keys of a namespace that is filled by one batch, and dropped later.
const SCRATCH: u64 = 20;

fn account(number: u64) -> String {
    format!("account {number:02}")
}

fn writing() -> Options {
    Store::options()
        .segment_bytes(4096)
        .waste_ceiling(1.1)
        .durability(Durability::Os)
}

/// Moves money between accounts and counts the transfers, until it is killed. Reports each count
/// once it is acknowledged. Number: the seed.
fn transfer(role: &Role) {
    let mut rng = Rng::new(role.numbers[0]);
    let store = writing().open(&role.directory).expect("open");
    let bank = store.namespace("bank").expect("a namespace");
    let held = |number| {
        let value = bank.get_text(account(number)).expect("a get");
        value.map(|value| value.trim().parse::<u64>().expect("a number"))
    };
    if held(0).is_none() {
        let mut opening = store.batch();
        for number in 0..ACCOUNTS {
            opening.put(&bank, account(number), "100");
        }
        opening.put(&bank, "count", "0").commit().expect("a batch");
    }
    let count = bank.get_text("count").expect("a get").expect("the count");
    let mut count: u64 = count.parse().expect("a number");
    report(format_args!("{count}"));
    loop {
        count += 1;
        let (from, to) = (rng.below(ACCOUNTS), rng.below(ACCOUNTS));
        let (has, gets) = (held(from).expect("an account"), held(to).expect("an account"));
        let sum = rng.below(has + 1).min(if from == to { 0 } else { u64::MAX });
        let padding = " ".repeat(rng.below(100) as usize);
        let mut batch = store.batch();
        batch.put(&bank, account(to), format!("{}{padding}", gets + sum));
        if from != to {
            batch.put(&bank, account(from), format!("{}{padding}", has - sum));
        }
        batch.put(&bank, "count", format!("{count}"));
        batch.delete(&bank, format!("mark {}", count - 1));
        let durability = [Durability::Os, Durability::Sync][usize::from(rng.below(20) == 0)];
        batch
            .put(&bank, format!("mark {count}"), "")
            .durability(durability)
            .commit()
            .expect("a batch");
        report(format_args!("{count}"));
        match rng.below(60) {
            0 => {
                let scratch = store.namespace("scratch").expect("a namespace");
                let mut batch = store.batch();
                for number in 0..SCRATCH {
                    batch.put(&scratch, format!("{number}"), &padding);
                }
                batch.commit().expect("a batch");
            }
            1 => match store.drop_namespace("scratch") {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                dropped => dropped.expect("a drop"),
            },
            2 => drop(store.compact().expect("a compaction")),
            3 => {
                let options = class(Durability::Buffered);
                bank.put_with("unsure", &padding, options).expect("a put");
            }
            _ => {}
        }
    }
}

/// Each reader refreshes so often.
const REFRESHES: u64 = 100;
/// The writer is killed so often, and more often, up to a bound, until the readers have refreshed
/// often enough.
const KILLS: u64 = 20;
const KILLS_MAX: u64 = 60;

/// What the writer has been heard to acknowledge.
#[derive(Default)]
struct Heard {
    count: AtomicU64,
    /// How often each reader has refreshed.
    refreshes: [AtomicU64; 4],
    stop: AtomicBool,
}

/// Looks at the store until told to stop, and counts how often it was refreshed; returns how often
/// there was something new.
fn look(directory: &Path, heard: &Heard, reader: usize, mode: ReadMode) -> u64 {
    let options = || Store::options().read_only(true).read_mode(mode);
    let mut store = options().open(directory).unwrap();
    let mut bank = store.open_namespace("bank").unwrap();
    let keys: Vec<_> = (0..ACCOUNTS).map(account).chain(["count".to_owned()]).collect();
    let (mut newest, mut news) = (0, 0);
    while !heard.stop.load(Ordering::Acquire) {
        let least = heard.count.load(Ordering::Acquire);
        if heard.refreshes[reader].load(Ordering::Relaxed) % 50 == 49 {
            store = options().open(directory).unwrap();
            bank = store.open_namespace("bank").unwrap();
        }
        news += u64::from(store.refresh().unwrap().changed);
        heard.refreshes[reader].fetch_add(1, Ordering::Relaxed);
        let values = bank.get_many(&keys).unwrap();
        let numbers: Vec<u64> = (values.iter())
            .map(|value| value.as_ref().unwrap().as_str().unwrap().trim().parse().unwrap())
            .collect();
        let (count, accounts) = numbers.split_last().unwrap();
        assert_eq!(accounts.iter().sum::<u64>(), IN_ALL, "{numbers:?}");
        assert!(*count >= least, "{count} is shown, {least} was acknowledged before");
        assert!(*count >= newest, "{count} is shown, {newest} was shown before");
        newest = *count;
        // The listing is of the same state: nothing refreshes in between.
        let marks: Vec<_> = bank
            .list()
            .prefix("mark")
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap();
        let marks: Vec<_> = marks.iter().map(|mark| mark.key_str().unwrap()).collect();
        let expected = format!("mark {count}");
        assert_eq!(marks, [&expected[..]][..usize::from(*count > 0)]);
        assert_eq!(bank.list().prefix("account").count().unwrap(), ACCOUNTS);
        match store.open_namespace("scratch") {
            Ok(scratch) => {
                let keys = scratch.count().unwrap();
                assert!(keys == 0 || keys == SCRATCH, "{keys} of a batch");
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
        }
    }
    news
}

/// Verifies the directory until told to stop: whatever the writer does to it, nothing is damage.
/// Returns how often, and how often the store was found in use.
fn verify_again_and_again(directory: &Path, heard: &Heard) -> (u64, u64) {
    let (mut times, mut in_use) = (0, 0);
    while !heard.stop.load(Ordering::Acquire) {
        let report = verify(directory, &Store::options()).unwrap();
        assert!(report.is_sound(), "{:?}", report.damaged);
        assert!(report.records > 0, "{report:?}");
        times += 1;
        in_use += u64::from(report.discarded.is_empty());
    }
    (times, in_use)
}

#[test]
fn readers_beside_a_writer_that_is_killed_see_whole_batches_and_all_that_was_acknowledged() {
    if let Some(role) = role() {
        return transfer(&role);
    }
    let mut rng = rng();
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("store");
    let heard = Heard::default();
    let spawn = |rng: &mut Rng| Child::spawn(NAME, "transfer", &directory, &[mix(&[rng.next()])]);
    let mut child = spawn(&mut rng);
    // The accounts are there before any reader looks.
    child.next_report().unwrap();
    let looked: Vec<_> = std::thread::scope(|scope| {
        let _stop = StopOnDrop(&heard.stop);
        let modes = [ReadMode::Map, ReadMode::Pread, ReadMode::Map, ReadMode::Pread];
        let (at, heard) = (&directory, &heard);
        let readers: Vec<_> = (modes.into_iter().enumerate())
            .map(|(reader, mode)| scope.spawn(move || look(at, heard, reader, mode)))
            .collect();
        let verifier = scope.spawn(move || verify_again_and_again(at, heard));
        let is_enough = |refreshes: &AtomicU64| refreshes.load(Ordering::Relaxed) >= REFRESHES;
        for killed in 0..KILLS_MAX {
            if killed >= KILLS && heard.refreshes.iter().all(is_enough) {
                break;
            }
            let lives = Duration::from_millis(200 + rng.below(800));
            let begun = Instant::now();
            while begun.elapsed() < lives {
                let told = child.next_report().expect("the writer goes on");
                heard.count.store(told.parse().unwrap(), Ordering::Release);
            }
            child.kill();
            // What it had acknowledged before it was killed counts as well.
            while let Some(told) = child.next_report() {
                heard.count.store(told.parse().unwrap(), Ordering::Release);
            }
            assert!(was_killed(std::mem::replace(&mut child, spawn(&mut rng)).wait()));
        }
        heard.stop.store(true, Ordering::Release);
        let (times, in_use) = verifier.join().unwrap();
        at_least(40, times, "verifies");
        at_least(20, in_use, "verifies that found nothing torn");
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    child.kill();
    drop(child);
    for (news, refreshes) in looked.into_iter().zip(heard.refreshes) {
        at_least(REFRESHES, refreshes.into_inner(), "refreshes");
        at_least(20, news, "refreshes that found something");
    }
    assert_eq!(open_in(temporary.path()), [""; 0]);
}
