//! What reading and writing several keys at one moment costs, and what it costs others.
//!
//! `cargo bench --bench moments` measures each figure in five rounds, each with stores of its own,
//! and prints its median and range, and whether a goal is reached. A time says little about another
//! machine, so beside it is a ratio to something that the same round has measured:
//!
//! * `get-beside-batch`: gets beside one batch of two million puts, to its commit and to gets
//!   beside single puts;
//! * `put-beside-batch`: how long another writer's put waits for a large batch, for each MiB of it
//!   and to its commit;
//! * `reads-beside-batches`: `get_many` of 20,000 keys and pages of 1,000, with and without values,
//!   beside a stream of batches, to the same alone, and beside batches that another store gets;
//! * `snapshot`: the memory of a snapshot held over a million overwrites, and gets of the present
//!   and of the snapshot, to gets once it is dropped;
//! * `transactions`: transactions that read two keys and put both, under no, some and heavy
//!   conflict, to batches of two puts.
//!
//! `-- snapshot transactions` measures these only, `-- --rounds 9` changes the number of rounds,
//! and `-- --test` runs little of each, once, to see that it works; its figures say nothing.
//! `EMBERCASK_BENCH_DIR` says where the stores are.

#[allow(dead_code, reason = "no bench uses all of it")]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{VALUE_BYTES, directory, filled, mix, options, random_key, value};
use embercask::{Durability, Namespace, Result, Store, Transaction, TransactionOptions};
use hdrhistogram::Histogram;

/// How much is done.
struct Size {
    /// Puts of a large batch.
    batch: u64,
    keys: u64,
    /// For what is repeated.
    time: Duration,
    rounds: u32,
}

const WHOLE: Size = Size {
    batch: 2_000_000,
    keys: 1_000_000,
    time: Duration::from_secs(1),
    rounds: 5,
};

const LITTLE: Size = Size {
    batch: 10_000,
    keys: 30_000,
    time: Duration::from_millis(20),
    rounds: 1,
};

/// What a round has measured.
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// What it should be at most.
    goal: Option<f64>,
}

impl Figure {
    fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Figure {
        Figure {
            name: name.into(),
            value,
            unit,
            goal: None,
        }
    }

    fn at_most(self, goal: f64) -> Figure {
        Figure {
            goal: Some(goal),
            ..self
        }
    }
}

/// Measures one round.
type Section = fn(&Size) -> Vec<Figure>;

const SECTIONS: [(&str, Section); 5] = [
    ("get-beside-batch", get_beside_batch),
    ("put-beside-batch", put_beside_batch),
    ("reads-beside-batches", reads_beside_batches),
    ("snapshot", snapshot),
    ("transactions", transactions),
];

fn main() {
    let (mut size, mut rounds, mut chosen) = (&WHOLE, None, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let section = SECTIONS.iter().find(|(name, _)| *name == argument);
        match (argument.as_str(), section) {
            (_, Some(section)) => chosen.push(section),
            ("--test", _) => size = &LITTLE,
            ("--rounds", _) => {
                let number = arguments.next().and_then(|number| number.parse().ok());
                rounds = Some(number.filter(|rounds| *rounds > 0).expect("--rounds takes a number"));
            }
            // Passed by Cargo.
            ("--bench", _) => {}
            _ => panic!("{argument} is none of --test, --rounds and the sections"),
        }
    }
    if chosen.is_empty() {
        chosen.extend(&SECTIONS);
    }
    let rounds = rounds.unwrap_or(size.rounds);
    for (name, measure) in chosen {
        let start = Instant::now();
        let measured: Vec<_> = (0..rounds).map(|_| measure(size)).collect();
        println!("{name}, {rounds} round(s) in {:.0} s", start.elapsed().as_secs_f64());
        (0..measured[0].len()).for_each(|place| print(&measured, place));
    }
}

/// Prints the figure of this place, over all rounds.
fn print(rounds: &[Vec<Figure>], place: usize) {
    let mut values: Vec<f64> = rounds.iter().map(|figures| figures[place].value).collect();
    values.sort_by(f64::total_cmp);
    let (median, last) = (values[values.len() / 2], values.len() - 1);
    let Figure { name, unit, goal, .. } = &rounds[0][place];
    let digits = if values[last] < 100.0 { 3 } else { 0 };
    let goal = goal.map_or(String::new(), |goal| match median <= goal {
        _ if rounds.len() == 1 => format!("; should be at most {goal}"),
        true => format!("; at most {goal}: reached"),
        false => format!("; at most {goal}: not reached"),
    });
    println!(
        "  {name}: {median:.digits$} {unit} ({:.digits$} to {:.digits$}){goal}",
        values[0], values[last]
    );
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn ratio(time: Duration, to: Duration) -> f64 {
    time.as_secs_f64() / to.as_secs_f64().max(1e-9)
}

/// What the system says of this thread.
#[derive(Clone, Copy)]
struct Scheduled {
    /// How long it has waited for a processor, though it could have run.
    waited: Duration,
    /// How often it was given one.
    turns: u64,
}

impl Scheduled {
    fn now() -> Option<Scheduled> {
        let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        let mut words = told.split_whitespace().skip(1).map(str::parse);
        Some(Scheduled {
            waited: Duration::from_nanos(words.next()?.ok()?),
            turns: words.next()?.ok()?,
        })
    }
}

/// How long this thread has run.
fn has_run() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Times of an operation.
struct Times {
    /// In nanoseconds.
    all: Histogram<u64>,
    /// The slowest, less what the thread waited for a processor, or what the machine's own host
    /// took.
    slowest_own: Option<Duration>,
}

/// Times an operation on one random key of `keys` after the other, on a thread of its own, while
/// `work` is done. Returns those times, and that of the work. Making and freeing a key is not
/// timed: it may wait for the lock of an allocator's arena that threads share.
fn beside(keys: u64, operation: impl Fn(&[u8], u64) + Sync, work: impl FnOnce()) -> (Times, Duration) {
    /// Only after operations slower than this is the system asked.
    const SLOW: Duration = Duration::from_micros(100);
    /// And so often, so that waits of others are not taken for theirs.
    const ASK_EVERY: u64 = 64;
    let (begun, done) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let repeated = scope.spawn(|| {
            let mut all = Histogram::new(3).expect("a histogram");
            let mut before = Scheduled::now();
            let mut slowest_own = before.map(|_| Duration::ZERO);
            for number in 0.. {
                let key = random_key(mix(number) % keys);
                let (had_run, start) = (has_run(), Instant::now());
                operation(&key, number);
                let took = start.elapsed();
                all.record(took.as_nanos() as u64).expect("a time");
                if took > SLOW
                    && let (Some(before), Some(now)) = (before, Scheduled::now())
                {
                    let own = match before.turns == now.turns {
                        // It was never taken off its processor.
                        true => has_run() - had_run,
                        false => took.saturating_sub(now.waited - before.waited),
                    };
                    slowest_own = slowest_own.max(Some(own));
                }
                if number % ASK_EVERY == 0 || took > SLOW {
                    before = Scheduled::now();
                }
                begun.store(true, Ordering::Release);
                if done.load(Ordering::Acquire) {
                    break;
                }
            }
            Times { all, slowest_own }
        });
        while !begun.load(Ordering::Acquire) {
            assert!(!repeated.is_finished(), "the operation has failed");
            std::thread::yield_now();
        }
        let start = Instant::now();
        work();
        let took = start.elapsed();
        done.store(true, Ordering::Release);
        (repeated.join().expect("a thread"), took)
    })
}

fn quantile(times: &Histogram<u64>, quantile: f64) -> Duration {
    Duration::from_nanos(times.value_at_quantile(quantile))
}

/// Gets a key that a store was filled with.
fn get_one(namespace: &Namespace, key: &[u8]) {
    let found = namespace.get(key).expect("a get");
    assert!(found.is_some(), "a key is absent");
}

fn get_beside_batch(size: &Size) -> Vec<Figure> {
    let directory = directory();
    let (store, namespace) = filled(directory.path(), size.keys, random_key);
    let get = |key: &[u8], _| get_one(&namespace, key);
    let (beside_puts, _) = beside(size.keys, get, || {
        let start = Instant::now();
        for number in (0..).take_while(|_| start.elapsed() < size.time) {
            let key = random_key(mix(number) % size.keys);
            namespace.put(key, value(number)).expect("a put");
        }
    });
    let mut batch = store.batch();
    for number in 0..size.batch {
        batch.put(&namespace, random_key(number), [number as u8; 50]);
    }
    let (beside_batch, commit) = beside(size.keys, get, || {
        batch.commit().expect("a batch");
    });
    let puts = size.batch;
    let [slowest, usual, single] = [
        quantile(&beside_batch.all, 1.0),
        quantile(&beside_batch.all, 0.999),
        quantile(&beside_puts.all, 0.999),
    ];
    let mut figures = vec![
        Figure::new(
            format!("slowest get beside a batch of {puts} puts"),
            micros(slowest),
            "us",
        )
        .at_most(1000.0),
        Figure::new("p99.9 of these gets", micros(usual), "us").at_most(1000.0),
        Figure::new("slowest get, to the commit of the batch", ratio(slowest, commit), "x"),
        Figure::new("p99.9, to that of gets beside single puts", ratio(usual, single), "x"),
    ];
    if let Some(own) = beside_batch.slowest_own {
        let name = "slowest of these gets, less waits for a processor";
        figures.push(Figure::new(name, micros(own), "us").at_most(1000.0));
    }
    figures
}

/// A put waits while a batch is appended and published, so at most as long as its commit takes.
fn put_beside_batch(size: &Size) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (bytes, puts) in [(50, size.batch), (4096, size.batch / 40)] {
        let directory = directory();
        let (store, namespace) = filled(directory.path(), size.keys, random_key);
        let (mut batch, mut total) = (store.batch(), 0);
        for number in 0..puts {
            let key = random_key(number);
            total += key.len() + bytes;
            batch.put(&namespace, key, vec![number as u8; bytes]);
        }
        let put = |key: &[u8], number| {
            namespace.put(key, value(number)).expect("a put");
        };
        let (times, commit) = beside(size.keys, put, || {
            batch.commit().expect("a batch");
        });
        let slowest = quantile(&times.all, 1.0);
        let name = format!("slowest put beside a batch of {puts} puts of {bytes} bytes");
        let mib = total as f64 / f64::from(1 << 20);
        figures.extend([
            Figure::new(&name, micros(slowest) / 1e3, "ms"),
            Figure::new(
                "for each MiB of the keys and values in it",
                micros(slowest) / 1e3 / mib,
                "ms",
            ),
            Figure::new("to the commit of the batch", ratio(slowest, commit), "x"),
        ]);
    }
    figures
}

/// The median time of reading.
fn reading(size: &Size, read: impl Fn()) -> Duration {
    let begun = Instant::now();
    let mut times = Vec::new();
    while begun.elapsed() < size.time || times.is_empty() {
        let begun = Instant::now();
        read();
        times.push(begun.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

fn reads_beside_batches(size: &Size) -> Vec<Figure> {
    let directory = directory();
    let (store, namespace) = filled(directory.path(), size.keys, random_key);
    let keys: Vec<_> = (0..20_000).map(|number| random_key(mix(number) % size.keys)).collect();
    let many = || {
        let values = namespace.get_many(&keys).expect("values");
        assert!(values.iter().all(Option::is_some), "a key is absent");
    };
    let page = || assert_eq!(namespace.list().page().expect("a page").len(), 1_000);
    let page_with_values = || {
        let page = namespace.list().with_values().page().expect("a page");
        assert!(page.len() == 1_000 && page.iter().all(|entry| entry.value().is_some()));
    };
    let read = || {
        [
            reading(size, many),
            reading(size, page),
            reading(size, page_with_values),
        ]
    };
    let names = ["get_many of 20,000", "a page of 1,000", "a page of 1,000 with values"];
    let alone = read();
    let mut figures = Vec::new();
    for (name, alone) in names.iter().zip(alone) {
        figures.push(Figure::new(format!("{name}, alone"), micros(alone), "us"));
    }
    // What others on the same processors cost, whatever store they write to.
    let elsewhere = self::directory();
    let (other_store, other) = filled(elsewhere.path(), size.keys, random_key);
    for records in [10, 100, 1_000] {
        let (times, rate) = beside_batches((&store, &namespace), size, records, read);
        let (times_beside_others, _) = beside_batches((&other_store, &other), size, records, read);
        for (place, name) in names.iter().enumerate() {
            let name = format!("{name}, beside batches of {records}");
            let (time, other) = (times[place], times_beside_others[place]);
            figures.push(Figure::new(format!("{name}, to alone"), ratio(time, alone[place]), "x").at_most(1.3));
            figures.push(Figure::new(
                format!("{name}, to the same of another store"),
                ratio(time, other),
                "x",
            ));
        }
        figures.push(Figure::new(format!("these batches of {records}"), rate, "a second"));
    }
    figures
}

/// Reads while a thread commits batches of random keys; returns the times, and batches a second.
fn beside_batches<T>(
    (store, namespace): (&Store, &Namespace),
    size: &Size,
    records: u64,
    read: impl Fn() -> T,
) -> (T, f64) {
    let mut batch = store.batch();
    batch.durability(Durability::Buffered);
    let commits = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let start = Instant::now();
    let times = std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in (0..).take_while(|_| !done.load(Ordering::Acquire)) {
                for record in 0..records {
                    let key = random_key(mix(number * records + record) % size.keys);
                    batch.put(namespace, key, value(number));
                }
                batch.commit().expect("a batch");
                commits.fetch_add(1, Ordering::Release);
            }
        });
        while commits.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        let times = read();
        done.store(true, Ordering::Release);
        times
    });
    (times, commits.into_inner() as f64 / start.elapsed().as_secs_f64())
}

/// The time of gets of keys in no order.
fn gets(size: &Size, get: impl Fn(&[u8])) -> Duration {
    let begun = Instant::now();
    let count = size.keys.min(500_000);
    for number in 0..count {
        get(&random_key(mix(number) % size.keys));
    }
    begun.elapsed() / count as u32
}

fn snapshot(size: &Size) -> Vec<Figure> {
    let directory = directory();
    let (store, namespace) = filled(directory.path(), size.keys, random_key);
    let snapshot = store.snapshot().expect("a snapshot");
    for number in 0..size.keys {
        namespace.put(random_key(number), value(number + 1)).expect("a put");
    }
    store.maintain().expect("maintenance");
    let held = store.stats().snapshots;
    assert_eq!(held.kept_records, size.keys, "each put has replaced a record");
    let of_present = |key: &[u8]| assert!(namespace.get(key).expect("a get").is_some());
    let of_snapshot = |key: &[u8]| assert!(snapshot.get(&namespace, key).expect("a get").is_some());
    let past = gets(size, of_snapshot);
    let present = gets(size, of_present);
    assert_eq!(
        *snapshot
            .get(&namespace, random_key(7))
            .expect("a get")
            .expect("a value"),
        value(7)
    );
    let freed = freed_by(|| drop(snapshot));
    // By what is left, so that the files and the caches are the same.
    let without = gets(size, of_present);
    let each = |bytes: u64| bytes as f64 / held.kept_records as f64;
    vec![
        Figure::new("memory of a kept record: freed with the snapshot", each(freed), "bytes"),
        Figure::new("the same, as Stats::snapshots tells", each(held.memory_bytes), "bytes"),
        Figure::new("gets without a snapshot", micros(without), "us"),
        Figure::new("gets of the present beside it, to these", ratio(present, without), "x").at_most(1.2),
        Figure::new(
            "gets of the snapshot, all overwritten, to these",
            ratio(past, without),
            "x",
        )
        .at_most(1.2),
    ]
}

/// The system's allocator, which counts what is freed while it is asked to.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;
static COUNTS: AtomicBool = AtomicBool::new(false);
static FREED: AtomicU64 = AtomicU64::new(0);

// SAFETY: all of it is left to the system's allocator, as it is asked for.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the contract of `GlobalAlloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        if COUNTS.load(Ordering::Relaxed) {
            FREED.fetch_add(layout.size() as u64, Ordering::Relaxed);
        }
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}

/// Bytes of memory that are freed meanwhile.
fn freed_by(free: impl FnOnce()) -> u64 {
    let before = FREED.load(Ordering::Relaxed);
    COUNTS.store(true, Ordering::SeqCst);
    free();
    COUNTS.store(false, Ordering::SeqCst);
    FREED.load(Ordering::Relaxed) - before
}

const BALANCE_AT_FIRST: u64 = 1_000;
/// How often two threads meet, and among how many keys.
const CONFLICTS: [(&str, u64); 3] = [("no", u64::MAX), ("some", 1_000), ("heavy", 4)];

/// An account begins with its balance.
fn account(balance: u64) -> [u8; VALUE_BYTES] {
    let mut account = [0; VALUE_BYTES];
    account[..8].copy_from_slice(&balance.to_le_bytes());
    account
}

fn balance(account: &[u8]) -> u64 {
    u64::from_le_bytes(account[..8].try_into().expect("eight bytes"))
}

/// Two different keys of these many.
fn two_keys(number: u64, thread: u64, keys: u64) -> [Vec<u8>; 2] {
    let bits = mix(number << 1 | thread);
    let first = bits % keys;
    let second = (first + 1 + mix(bits) % (keys - 1)) % keys;
    [random_key(first), random_key(second)]
}

fn transfer(transaction: &mut Transaction, accounts: &Namespace, keys: &[Vec<u8>; 2]) -> Result<()> {
    let [from, to] = [&keys[0], &keys[1]];
    let balances = [transaction.get(accounts, from)?, transaction.get(accounts, to)?];
    let [from_has, to_has] = balances.map(|account| balance(&account.expect("an account")));
    let amount = from_has.min(1);
    transaction.put(accounts, from, account(from_has - amount))?;
    transaction.put(accounts, to, account(to_has + amount))
}

/// How many a second these threads do, with two keys of this many each, and the sum of what the
/// calls return.
fn rate(size: &Size, threads: u64, keys: u64, work: impl Fn([Vec<u8>; 2]) -> u64 + Sync) -> (f64, f64) {
    let (calls, sum) = (AtomicU64::new(0), AtomicU64::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (work, calls, sum) = (&work, &calls, &sum);
            scope.spawn(move || {
                let (mut own_calls, mut own_sum) = (0, 0);
                while own_calls == 0 || start.elapsed() < size.time {
                    own_sum += work(two_keys(own_calls, thread, keys));
                    own_calls += 1;
                }
                calls.fetch_add(own_calls, Ordering::Relaxed);
                sum.fetch_add(own_sum, Ordering::Relaxed);
            });
        }
    });
    let calls = calls.into_inner() as f64;
    (calls / start.elapsed().as_secs_f64(), sum.into_inner() as f64 / calls)
}

fn open_accounts(directory: &std::path::Path, count: u64) -> (Store, Namespace) {
    let store = options().open(directory).expect("a store");
    let accounts = store.namespace("accounts").expect("a namespace");
    let mut batch = store.batch();
    for number in 0..count {
        batch.put(&accounts, random_key(number), account(BALANCE_AT_FIRST));
        if batch.len() == 1_000 {
            batch.commit().expect("a batch");
        }
    }
    batch.commit().expect("a batch");
    (store, accounts)
}

fn transactions(size: &Size) -> Vec<Figure> {
    let directory = directory();
    let (store, accounts) = open_accounts(directory.path(), size.keys);
    let options = TransactionOptions::new().attempts(u32::MAX);
    let one = |keys: [Vec<u8>; 2]| {
        let run = |transaction: &mut Transaction| transfer(transaction, &accounts, &keys);
        let committed = store.transaction_with(&options, run).expect("a transaction");
        u64::from(committed.attempts)
    };
    let settings = CONFLICTS.iter().flat_map(|(conflict, most)| {
        let keys = size.keys.min(*most);
        [(conflict, keys, 1), (conflict, keys, 2)]
    });
    let done: Vec<_> = settings
        .clone()
        .map(|(_, keys, threads)| rate(size, threads, keys, one))
        .collect();
    let total: u64 = (accounts.list().with_values().into_iter())
        .map(|entry| balance(entry.expect("an entry").value().expect("a value")))
        .sum();
    assert_eq!(total, size.keys * BALANCE_AT_FIRST, "a transaction was lost in part");
    let pair = |keys: [Vec<u8>; 2]| {
        let mut batch = store.batch();
        for (key, number) in keys.into_iter().zip(0..) {
            batch.put(&accounts, key, account(number));
        }
        batch.commit().expect("a batch")
    };
    let mut figures = Vec::new();
    for ((conflict, keys, threads), (rate_done, attempts)) in settings.zip(done) {
        let (batches, _) = rate(size, threads, keys, pair);
        let name = format!("{conflict} conflict, {threads} thread(s)");
        figures.push(Figure::new(&name, rate_done, "a second"));
        figures.push(Figure::new("to batches of two puts", rate_done / batches, "x"));
        if threads > 1 {
            figures.push(Figure::new("attempts", attempts, "a transaction"));
        }
    }
    figures
}
