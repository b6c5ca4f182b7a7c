//! Worst-case latency of single puts and gets while everything happens at once: growing tables,
//! sealing segments, sweeping expired keys, compaction.
//!
//! `cargo bench --bench pauses` prints latencies, the slowest operations, and what the store did at
//! the same time, according to its statistics. `-- --operations 100000000` sets the number of
//! operations, `--threads` the number of threads that share them, `--keys` the number of keys up to
//! which the store grows; `--test` runs few, to see that it works.
//!
//! The machine causes pauses too. A yardstick measures them, and each slow operation is printed
//! with the time that its thread waited for a processor; operations that are slow even without that
//! wait are listed separately.
//!
//! A thread samples statistics every few milliseconds, and writers may have to wait for it; slow
//! operations during a sample are marked. `--sample-milliseconds 0` takes no samples.

#[allow(dead_code, reason = "no bench uses all of it")]
mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{VALUE_BYTES, directory, mix, options, random_key, value};
use embercask::{Namespace, PutOptions, Stats, Store};
use hdrhistogram::Histogram;

/// Number of slowest operations printed per kind.
const SLOWEST: usize = 10;
/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);
/// Operations after which a thread reports its progress.
const STEP: u64 = 1024;
const QUANTILES: [f64; 5] = [0.5, 0.99, 0.999, 0.9999, 0.99999];

/// The command line.
struct Wanted {
    operations: u64,
    threads: u64,
    keys: u64,
    /// Time between two samples; none are taken if it is zero.
    sample: Duration,
    /// Time for the yardstick.
    watch: Duration,
}

impl Wanted {
    fn from_arguments() -> Wanted {
        let mut wanted = Wanted {
            operations: 2_000_000,
            threads: 2,
            keys: 5_000_000,
            sample: Duration::from_millis(5),
            watch: Duration::from_secs(3),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || -> u64 {
                let number = arguments.next().and_then(|number| number.parse().ok());
                number.unwrap_or_else(|| panic!("{argument} takes a number"))
            };
            match argument.as_str() {
                "--operations" => wanted.operations = number(),
                "--threads" => wanted.threads = number().max(1),
                "--keys" => wanted.keys = number().max(1),
                "--sample-milliseconds" => wanted.sample = Duration::from_millis(number()),
                "--test" | "--quick" => {
                    wanted.operations = 50_000;
                    wanted.watch = Duration::from_millis(200);
                }
                // Passed by Cargo.
                "--bench" => {}
                _ => panic!("{argument} is none of --operations, --threads, --keys, --sample-milliseconds, --test"),
            }
        }
        wanted
    }
}

/// A slow operation.
#[derive(Clone, Copy)]
struct Slow {
    /// Since the start.
    began: Duration,
    took: Duration,
    /// Upper bound of the part of `took` that its thread waited for a processor; None if the system
    /// does not tell.
    waited: Option<Duration>,
}

impl Slow {
    /// Its time without the wait.
    fn ran(&self) -> Duration {
        self.took - self.waited.unwrap_or_default()
    }
}

/// Latencies of all operations of a kind.
struct Times {
    histogram: Histogram<u64>,
    slowest: Slowest,
    /// The slowest, not counting the wait for a processor.
    slowest_running: Slowest,
}

/// The slowest operations, slowest first.
struct Slowest {
    operations: Vec<Slow>,
    time: fn(&Slow) -> Duration,
}

impl Slowest {
    /// Ranks operations by this time.
    fn by(time: fn(&Slow) -> Duration) -> Slowest {
        let operations = Vec::new();
        Slowest { operations, time }
    }

    /// Whether an operation that took this long may be among the slowest.
    fn may_take(&self, took: Duration) -> bool {
        let least = self.operations.get(SLOWEST - 1).map(self.time);
        least.is_none_or(|least| least < took)
    }

    fn add(&mut self, slow: Slow) {
        let time = (self.time)(&slow);
        let place = self.operations.partition_point(|other| (self.time)(other) >= time);
        self.operations.insert(place, slow);
        self.operations.truncate(SLOWEST);
    }
}

impl Times {
    fn new() -> Times {
        Times {
            histogram: Histogram::new(3).expect("a histogram"),
            slowest: Slowest::by(|slow| slow.took),
            slowest_running: Slowest::by(Slow::ran),
        }
    }

    /// Records an operation that has just ended. `waited` is the time that its thread had waited
    /// for a processor as of the last check.
    fn note(&mut self, began: Duration, took: Duration, waited: &mut Option<Duration>) {
        self.histogram.record(took.as_nanos() as u64).expect("a time");
        if self.slowest.may_take(took) || self.slowest_running.may_take(took) {
            let before = std::mem::replace(waited, waited_by_now());
            let waited = waited.zip(before).map(|(now, before)| (now - before).min(took));
            let slow = Slow { began, took, waited };
            self.slowest.add(slow);
            self.slowest_running.add(slow);
        }
    }

    fn add(&mut self, other: &Times) {
        self.histogram.add(&other.histogram).expect("a histogram");
        other.slowest.operations.iter().for_each(|slow| self.slowest.add(*slow));
        let running = &other.slowest_running.operations;
        running.iter().for_each(|slow| self.slowest_running.add(*slow));
    }

    fn worst(&self) -> Duration {
        self.slowest.operations.first().map_or(Duration::ZERO, |slow| slow.took)
    }
}

/// A changing number of the store.
struct Counter {
    name: &'static str,
    is_bytes: bool,
    of: fn(&Stats) -> u64,
}

const fn number(name: &'static str, of: fn(&Stats) -> u64) -> Counter {
    let is_bytes = false;
    Counter { name, is_bytes, of }
}

const fn bytes(name: &'static str, of: fn(&Stats) -> u64) -> Counter {
    let is_bytes = true;
    Counter { name, is_bytes, of }
}

const COUNTERS: [Counter; 14] = [
    number("segments", |stats| stats.segments.len() as u64),
    number("compactions ended", |stats| stats.compaction.runs),
    bytes("compaction read", |stats| stats.compaction.read_bytes),
    bytes("compaction wrote", |stats| stats.compaction.written_bytes),
    number("keys", |stats| stats.keys),
    number("keys swept", |stats| stats.expired),
    number("keys due to be swept", |stats| stats.expired_not_swept),
    number("write-outs", |stats| stats.write_outs),
    bytes("written out", |stats| stats.written_bytes),
    number("syncs", |stats| stats.syncs),
    bytes("hash index", |stats| stats.keydir_bytes),
    bytes("key order", |stats| stats.key_order_bytes),
    bytes("expiry queue", |stats| stats.expiry_queue_bytes),
    bytes("buffers", |stats| stats.buffer_bytes),
];

/// The store's statistics at a moment. Both times are since the start.
struct Sample {
    began: Duration,
    ended: Duration,
    counts: [u64; COUNTERS.len()],
    /// Number of segments ever seen sealed, including outputs of compaction.
    sealed: u64,
}

/// State shared by the threads.
struct Run<'a> {
    wanted: &'a Wanted,
    store: &'a Store,
    namespace: &'a Namespace,
    started: Instant,
    /// Number of keys for which a put has begun; may exceed `wanted.keys` a little.
    keys: AtomicU64,
    /// Operations done, in steps.
    done: AtomicU64,
    is_over: AtomicBool,
}

fn main() {
    let wanted = Wanted::from_arguments();
    println!("{}", watched(wanted.watch));
    let directory = directory();
    let store = options().open(directory.path()).expect("a store");
    let namespace = store.namespace("BENCH").expect("a namespace");
    let run = Run {
        wanted: &wanted,
        store: &store,
        namespace: &namespace,
        started: Instant::now(),
        keys: AtomicU64::new(0),
        done: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
    };
    let (mut puts, mut gets) = (Times::new(), Times::new());
    let mut samples = Vec::new();
    let mut spent = Duration::ZERO;
    std::thread::scope(|scope| {
        let sampling = (!wanted.sample.is_zero()).then(|| scope.spawn(|| sample(&run)));
        let working: Vec<_> = (0..wanted.threads)
            .map(|thread| {
                let run = &run;
                scope.spawn(move || work(run, thread))
            })
            .collect();
        let mut told = Instant::now();
        while !working.iter().all(|thread| thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                tell_progress(&run);
            }
        }
        spent = run.started.elapsed();
        run.is_over.store(true, Ordering::Relaxed);
        for thread in working {
            let (its_puts, its_gets) = thread.join().expect("a thread that works");
            puts.add(&its_puts);
            gets.add(&its_gets);
        }
        if let Some(sampling) = sampling {
            samples = sampling.join().expect("a thread that samples");
        }
    });
    report(&puts, &gets, &samples);
    total(&run, spent, &samples);
    drop(namespace);
    store.close().expect("a close");
}

/// The yardstick: how long a thread that only reads the clock was kept from running.
fn watched(watch: Duration) -> String {
    let started = Instant::now();
    let (mut last, mut worst, mut long) = (started, Duration::ZERO, 0);
    while last - started < watch {
        let now = Instant::now();
        let gap = now - last;
        worst = worst.max(gap);
        long += u64::from(gap >= Duration::from_millis(1));
        last = now;
    }
    format!(
        "yardstick: a thread that only reads the clock, alone for {:.1} s, was kept from it for {} at worst, and \
         {long} times for a millisecond or more",
        watch.as_secs_f64(),
        time(worst)
    )
}

/// Does one thread's share of the operations, half of them puts.
fn work(run: &Run<'_>, thread: u64) -> (Times, Times) {
    let (mut puts, mut gets) = (Times::new(), Times::new());
    let wanted = run.wanted;
    let share = (wanted.operations + thread) / wanted.threads;
    let mut waited = waited_by_now();
    for index in 0..share {
        let random = mix((thread << 48) + index);
        let known = run.keys.load(Ordering::Relaxed).min(wanted.keys);
        let is_put = random.is_multiple_of(2) || known == 0;
        let key_number = mix(random) % known.max(1);
        if is_put {
            // A third of the puts are of new keys, as long as there is room.
            let is_new = (random >> 8).is_multiple_of(3) && known < wanted.keys;
            let key_number = if is_new || known == 0 {
                run.keys.fetch_add(1, Ordering::Relaxed) % wanted.keys
            } else {
                key_number
            };
            // A tenth expire within seconds.
            let mut options = PutOptions::new();
            if (random >> 16).is_multiple_of(10) {
                options = options.ttl(Duration::from_millis(2000 + (random >> 32) % 3000));
            }
            let (key, value) = (random_key(key_number), value(index));
            let began = Instant::now();
            run.namespace.put_with(key, value, options).expect("a put");
            let took = began.elapsed();
            puts.note(began - run.started, took, &mut waited);
        } else {
            let key = random_key(key_number);
            let began = Instant::now();
            let value = run.namespace.get(key).expect("a get");
            let took = began.elapsed();
            gets.note(began - run.started, took, &mut waited);
            assert!(
                value.is_none_or(|value| value.len() == VALUE_BYTES),
                "a value as it was put"
            );
        }
        if index % STEP == STEP - 1 {
            run.done.fetch_add(STEP, Ordering::Relaxed);
            waited = waited_by_now();
        }
    }
    (puts, gets)
}

/// The time that this thread has waited for a processor since it began, if the system tells.
fn waited_by_now() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

/// Samples the store every few milliseconds until the run is over.
fn sample(run: &Run<'_>) -> Vec<Sample> {
    let (mut samples, mut sealed) = (Vec::new(), HashSet::new());
    let mut is_last = false;
    while !is_last {
        is_last = run.is_over.load(Ordering::Relaxed);
        let began = run.started.elapsed();
        let stats = run.store.stats();
        let ended = run.started.elapsed();
        let of_sealed = stats.segments.iter().filter(|segment| segment.sealed);
        sealed.extend(of_sealed.map(|segment| segment.id));
        samples.push(Sample {
            began,
            ended,
            counts: COUNTERS.map(|counter| (counter.of)(&stats)),
            sealed: sealed.len() as u64,
        });
        std::thread::sleep(run.wanted.sample);
    }
    samples
}

fn tell_progress(run: &Run<'_>) {
    let (done, spent) = (run.done.load(Ordering::Relaxed), run.started.elapsed().as_secs_f64());
    let keys = run.keys.load(Ordering::Relaxed).min(run.wanted.keys);
    eprintln!(
        "{spent:.0} s: {done} of {} operations, {:.0} a second, {keys} keys",
        run.wanted.operations,
        done as f64 / spent
    );
}

fn report(puts: &Times, gets: &Times, samples: &[Sample]) {
    println!("\n|  | operations | p50 | p99 | p99.9 | p99.99 | p99.999 | worst |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (name, times) in [("put", puts), ("get", gets)] {
        let quantiles = QUANTILES.map(|quantile| {
            let nanoseconds = times.histogram.value_at_quantile(quantile);
            time(Duration::from_nanos(nanoseconds))
        });
        let (operations, worst) = (times.histogram.len(), time(times.worst()));
        println!("| {name} | {operations} | {} | {worst} |", quantiles.join(" | "));
    }
    for (what, slowest) in [
        ("slowest puts", &puts.slowest),
        ("slowest gets", &gets.slowest),
        ("slowest puts, the wait for a processor left out", &puts.slowest_running),
        ("slowest gets, the wait for a processor left out", &gets.slowest_running),
    ] {
        println!("\n{what}:");
        for slow in &slowest.operations {
            let (began, took) = (slow.began.as_secs_f64(), time(slow.took));
            let waited = slow.waited.filter(|waited| !waited.is_zero());
            let waited = waited.map_or(String::new(), |waited| {
                format!(", up to {} of it without a processor", time(waited))
            });
            println!("  at {began:.3} s, {took}{waited}: {}", meanwhile(slow, samples));
        }
    }
}

/// What changed between the last sample before an operation and the first after it.
fn meanwhile(slow: &Slow, samples: &[Sample]) -> String {
    let ended = slow.began + slow.took;
    let next = samples.partition_point(|sample| sample.ended <= slow.began);
    let after = samples.partition_point(|sample| sample.began < ended);
    let (Some(before), Some(later)) = (samples[..next].last(), samples.get(after)) else {
        return "no samples around it".to_owned();
    };
    let mut changes: Vec<_> = COUNTERS
        .iter()
        .zip(before.counts.iter().zip(&later.counts))
        .filter(|(_, (earlier, later))| earlier != later)
        .map(|(counter, (earlier, later))| {
            let sign = if later > earlier { "+" } else { "-" };
            let change = amount(counter, later.abs_diff(*earlier));
            format!("{} {sign}{change}", counter.name)
        })
        .collect();
    if later.sealed > before.sealed {
        changes.insert(0, format!("segments sealed +{}", later.sealed - before.sealed));
    }
    // Samples that overlap the operation.
    if let Some(longest) = samples[next..after]
        .iter()
        .map(|sample| sample.ended - sample.began)
        .max()
    {
        changes.push(format!("a sample was taken, in {}", time(longest)));
    }
    let between = time(later.began.saturating_sub(before.ended));
    format!("within {between} {}", changes.join(", "))
}

/// Prints the totals of the run.
fn total(run: &Run<'_>, spent: Duration, samples: &[Sample]) {
    let stats = run.store.stats();
    println!("\nin {:.1} s:", spent.as_secs_f64());
    if let (Some(first), Some(last)) = (samples.first(), samples.last()) {
        println!("  segments sealed, compacted ones among them: {}", last.sealed);
        for (counter, (earlier, later)) in COUNTERS.iter().zip(first.counts.iter().zip(&last.counts)) {
            let (earlier, later) = (amount(counter, *earlier), amount(counter, *later));
            println!("  {}: {earlier} to {later}", counter.name);
        }
        let took = samples.iter().map(|sample| sample.ended - sample.began);
        let (worst, all) = (took.clone().max().unwrap_or_default(), took.sum::<Duration>());
        println!(
            "  samples: {}, {} in all, {} at worst",
            samples.len(),
            time(all),
            time(worst)
        );
    } else {
        println!("  compactions ended: {}", stats.compaction.runs);
        println!("  keys: {}, swept: {}", stats.keys, stats.expired);
    }
    if let Some(error) = stats.background_error.or(stats.poisoned) {
        println!("  an error in the background: {error}");
    }
}

fn amount(counter: &Counter, amount: u64) -> String {
    if !counter.is_bytes {
        amount.to_string()
    } else if amount < 1 << 20 {
        format!("{:.1} KiB", amount as f64 / f64::from(1 << 10))
    } else {
        format!("{:.1} MiB", amount as f64 / f64::from(1 << 20))
    }
}

/// A time in a suitable unit.
fn time(time: Duration) -> String {
    let microseconds = time.as_secs_f64() * 1e6;
    if microseconds >= 1e6 {
        format!("{:.2} s", microseconds / 1e6)
    } else if microseconds >= 1e3 {
        format!("{:.2} ms", microseconds / 1e3)
    } else {
        format!("{microseconds:.2} µs")
    }
}
