//! What puts and gets of one namespace lose while the keys of another leave the indexes: because it
//! was dropped, or because they have expired. And how much memory is left of keys that have
//! expired.
//!
//! `cargo bench --bench upkeep` prints the memory by time, and then rates and ratios, the medians
//! of several rounds. `-- --keys 1000000` sets the number of keys that leave at a time, `--rounds`
//! the number of rounds; `--test` runs few, to see that it works.
//!
//! Records are read call by call, so each that is read costs a system call. In the rows called
//! "cold" each read of the store's own threads also sleeps, as on a device; there are fewer keys.

#[allow(dead_code, reason = "no bench uses all of it")]
mod common;

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{KEYS, directory, mix, options, random_key, value};
use embercask::storage::{Call, Interposed, Interposer, Operation, OsStorage};
use embercask::{ManualClock, Namespace, PutOptions, ReadMode};

/// Some day in 2033.
const START_MS: u64 = 2_000_000_000_000;
/// Keys of the namespace that is written and read meanwhile.
const KEPT: u64 = 100_000;
/// How long a cold read takes, at least.
const COLD: Duration = Duration::from_micros(100);
/// A cold round has this many times fewer keys.
const COLD_SHARE: u64 = 20;
/// Threads and the namespaces that leave beside them.
const WORK: [(&str, Operate); 2] = [("puts", put), ("gets", get)];

/// One operation on the namespace that is kept.
type Operate = fn(&Namespace, u64);

fn put(namespace: &Namespace, number: u64) {
    let random = mix(number);
    let key = random_key(random % KEPT);
    namespace.put(key, value(random)).expect("a put");
}

fn get(namespace: &Namespace, number: u64) {
    let found = namespace.get(random_key(mix(number) % KEPT)).expect("a get");
    assert!(found.is_some(), "a key that is kept");
}

thread_local! {
    /// Whether this thread is one whose operations are counted.
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Makes reads by other threads slow.
#[derive(Debug)]
struct Device {
    is_cold: AtomicBool,
}

impl Interposer for Device {
    fn around(&self, call: &Call<'_>, make: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        if call.operation == Operation::Read && self.is_cold.load(Ordering::Relaxed) && !IS_WORKER.get() {
            std::thread::sleep(COLD);
        }
        make()
    }
}

/// The command line.
struct Wanted {
    keys: u64,
    rounds: usize,
    /// How long operations are counted with nothing beside them.
    alone: Duration,
    /// When memory is looked at, after the keys have expired.
    looks: &'static [u64],
}

impl Wanted {
    fn from_arguments() -> Wanted {
        let mut wanted = Wanted {
            keys: KEYS,
            rounds: 3,
            alone: Duration::from_secs(2),
            looks: &[0, 3, 10, 20, 30],
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || -> u64 {
                let number = arguments.next().and_then(|number| number.parse().ok());
                number.unwrap_or_else(|| panic!("{argument} takes a number"))
            };
            match argument.as_str() {
                "--keys" => wanted.keys = number().max(COLD_SHARE),
                "--rounds" => wanted.rounds = number().max(1) as usize,
                "--test" | "--quick" => {
                    wanted.keys = 5_000;
                    wanted.rounds = 1;
                    wanted.alone = Duration::from_millis(50);
                    wanted.looks = &[0];
                }
                // Passed by Cargo.
                "--bench" => {}
                _ => panic!("{argument} is none of --keys, --rounds, --test"),
            }
        }
        wanted
    }
}

/// A row of the table: operations a second in each round.
struct Row {
    name: String,
    alone: Vec<f64>,
    beside: Vec<f64>,
    /// How long the keys took to leave.
    took: Vec<f64>,
}

fn main() {
    let wanted = Wanted::from_arguments();
    // First, while the process holds nothing else.
    memory(&wanted);
    let mut rows: Vec<Row> = Vec::new();
    for _ in 0..wanted.rounds {
        for is_cold in [false, true] {
            round(&wanted, is_cold, &mut rows);
        }
    }
    println!("\n| beside | operations | alone, a second | beside, a second | ratio | keys gone after, s |");
    println!("| --- | --- | ---: | ---: | ---: | ---: |");
    for row in &mut rows {
        let mut ratios: Vec<_> = row
            .alone
            .iter()
            .zip(&row.beside)
            .map(|(alone, beside)| beside / alone)
            .collect();
        let medians = [&mut row.alone, &mut row.beside, &mut ratios, &mut row.took].map(|numbers| median(numbers));
        let [alone, beside, ratio, took] = medians;
        println!("| {} | {alone:.0} | {beside:.0} | {ratio:.2} | {took:.2} |", row.name);
    }
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Measures each kind of operation beside each way of leaving.
fn round(wanted: &Wanted, is_cold: bool, rows: &mut Vec<Row>) {
    let keys = if is_cold { wanted.keys / COLD_SHARE } else { wanted.keys };
    let directory = directory();
    let clock = ManualClock::new(START_MS);
    fill(directory.path(), &clock, keys);
    let device = Arc::new(Device {
        is_cold: AtomicBool::new(is_cold),
    });
    let store = options()
        .clock(clock.clone())
        .read_mode(ReadMode::Pread)
        .storage(Arc::new(Interposed::over(Arc::new(OsStorage), device.clone())))
        .open(directory.path())
        .expect("a store");
    store.pause_compaction();
    let kept = store.namespace("KEPT").expect("a namespace");
    let temperature = if is_cold { "cold keys" } else { "keys" };
    for (name, operate) in WORK {
        let leave_by_drop = || store.drop_namespace(name).expect("a drop");
        let leave_by_expiry = || clock.advance(1_000);
        let leaving: [(&str, &dyn Fn()); 2] = [("a drop of", &leave_by_drop), ("a sweep of", &leave_by_expiry)];
        for (way, leave) in leaving {
            let (alone, _) = rate(&kept, operate, || std::thread::sleep(wanted.alone));
            let before = store.stats().keys;
            let (beside, took) = rate(&kept, operate, || {
                leave();
                store.maintain().expect("maintenance");
            });
            assert_eq!(before - store.stats().keys, keys, "they have left");
            let name = format!("{way} {keys} {temperature} | {name}");
            if !rows.iter().any(|row| row.name == name) {
                let (alone, beside, took) = (Vec::new(), Vec::new(), Vec::new());
                rows.push(Row {
                    name: name.clone(),
                    alone,
                    beside,
                    took,
                });
            }
            let row = rows.iter_mut().find(|row| row.name == name).expect("a row");
            row.alone.push(alone);
            row.beside.push(beside);
            row.took.push(took);
        }
    }
    device.is_cold.store(false, Ordering::Relaxed);
    drop(kept);
    store.close().expect("a close");
}

/// A store with a namespace to keep, and for each kind of operation one to drop, and one whose keys
/// expire a second after those of the one before.
fn fill(directory: &Path, clock: &ManualClock, keys: u64) {
    let store = options().clock(clock.clone()).open(directory).expect("a store");
    let kept = store.namespace("KEPT").expect("a namespace");
    for number in 0..KEPT {
        kept.put(random_key(number), value(number)).expect("a put");
    }
    for (index, (name, _)) in WORK.iter().enumerate() {
        let drops = store.namespace(name).expect("a namespace");
        let expires = store.namespace(&format!("{name} expire")).expect("a namespace");
        let expiry = PutOptions::new().expires_at_ms(START_MS + 1_000 * (index as u64 + 1));
        for number in 0..keys {
            drops.put(random_key(number), value(number)).expect("a put");
            let (key, value) = (random_key(number), value(number));
            expires.put_with(key, value, expiry.clone()).expect("a put");
        }
    }
    drop(kept);
    store.close().expect("a close");
}

/// Operations a second of one thread during `meanwhile`, and how long that took.
fn rate(namespace: &Namespace, operate: Operate, meanwhile: impl FnOnce()) -> (f64, f64) {
    let (done, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            IS_WORKER.set(true);
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                operate(namespace, number);
                number += 1;
                done.store(number, Ordering::Relaxed);
            }
        });
        while done.load(Ordering::Relaxed) < 100 {
            std::thread::yield_now();
        }
        let (before, began) = (done.load(Ordering::Relaxed), Instant::now());
        meanwhile();
        let (counted, took) = (done.load(Ordering::Relaxed) - before, began.elapsed().as_secs_f64());
        is_over.store(true, Ordering::Relaxed);
        (counted as f64 / took, took)
    })
}

/// Prints what keys hold in memory before they expire and after.
fn memory(wanted: &Wanted) {
    let directory = directory();
    let clock = ManualClock::new(START_MS);
    let store = options().clock(clock.clone()).open(directory.path()).expect("a store");
    let namespace = store.namespace("BENCH").expect("a namespace");
    println!(
        "| memory, bytes a key | keydir | key order | expiry queue | buffers | process, own | process, of files |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let look = |when: &str| {
        let stats = store.stats();
        let each = |bytes: u64| bytes as f64 / wanted.keys as f64;
        let [own, files] = resident();
        println!(
            "| {when}, {} keys | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |",
            stats.keys,
            each(stats.keydir_bytes),
            each(stats.key_order_bytes),
            each(stats.expiry_queue_bytes),
            each(stats.buffer_bytes),
            each(own),
            each(files)
        );
    };
    look("none");
    let expiring = PutOptions::new().expires_at_ms(START_MS + 1_000);
    for number in 0..wanted.keys {
        let (key, value) = (random_key(number), value(number));
        namespace.put_with(key, value, expiring.clone()).expect("a put");
    }
    look("all");
    clock.advance(1_000);
    let (expired, mut told) = (Instant::now(), 0);
    for seconds in wanted.looks {
        while expired.elapsed() < Duration::from_secs(*seconds) {
            std::thread::sleep(Duration::from_millis(50));
            let now = expired.elapsed().as_millis() as u64;
            clock.advance(now - std::mem::replace(&mut told, now));
        }
        look(&format!("expired for {seconds} s"));
    }
}

/// Memory of this process that is its own, and of files, in bytes; 0 if the system does not tell.
fn resident() -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ["RssAnon:", "RssFile:"].map(|name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    })
}
