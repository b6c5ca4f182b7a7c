//! Disk space under writers at full speed: settled, at its peak, and what keeping to the bound
//! costs.
//!
//! `cargo bench --bench space` fills a store with a million keys, then overwrites them, evenly,
//! with a zipfian choice, and as a queue beside settings, at three waste ceilings, and prints for
//! each how many bytes the segments took per live byte, how many bytes were written per byte put,
//! and how long puts took. `-- --keys 100000` takes other sizes; `--test` runs few, to see that it
//! works. The bound is checked: after the writes the store must settle within it.

#[allow(dead_code, reason = "no bench uses all of it")]
mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{directory, mix, options, random_key, value};
use embercask::{Namespace, Stats, Store};
use hdrhistogram::Histogram;

/// Time between two samples of the disk.
const SAMPLE: Duration = Duration::from_millis(20);
/// Longest time to settle.
const SETTLE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
enum Workload {
    Uniform,
    Zipfian,
    Queue,
}

/// What one workload came to.
struct Outcome {
    peak: f64,
    settled: f64,
    amplification: f64,
    puts_per_second: f64,
    latencies: Histogram<u64>,
    buffers: u64,
}

fn main() {
    let mut keys = common::KEYS;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--keys" => {
                let number = arguments.next().and_then(|number| number.parse().ok());
                keys = number.expect("--keys takes a number");
            }
            "--test" | "--quick" => keys = 20_000,
            // Passed by Cargo.
            "--bench" => {}
            _ => panic!("{argument} is none of --keys, --test"),
        }
    }
    println!("{keys} keys, overwritten four times; bytes of segments per live byte");
    println!(
        "| workload | ceiling | peak | settled | bytes written per byte put | puts/s | p99.9 | worst put | buffers |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for workload in [Workload::Uniform, Workload::Zipfian, Workload::Queue] {
        for ceiling in [1.35, 1.6, 2.0] {
            let outcome = run(workload, ceiling, keys);
            let micros = |nanos: u64| nanos as f64 / 1000.0;
            println!(
                "| {workload:?} | {ceiling} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} us | {:.0} us | {:.0} MiB |",
                outcome.peak,
                outcome.settled,
                outcome.amplification,
                outcome.puts_per_second,
                micros(outcome.latencies.value_at_quantile(0.999)),
                micros(outcome.latencies.max()),
                outcome.buffers as f64 / f64::from(1 << 20),
            );
        }
    }
}

/// Bytes of segments per live byte, but for what may not go yet.
fn ratio(stats: &Stats) -> f64 {
    let held = stats.space.grace_bytes + stats.space.damage_bytes;
    (stats.segment_bytes + stats.space.pinned_bytes - held.min(stats.segment_bytes)) as f64
        / stats.live_bytes.max(1) as f64
}

fn run(workload: Workload, ceiling: f64, keys: u64) -> Outcome {
    let directory = directory();
    let store = options()
        .waste_ceiling(ceiling)
        .open(directory.path())
        .expect("a store");
    let namespace = store.namespace("BENCH").expect("a namespace");
    for number in 0..keys {
        namespace.put(random_key(number), value(number)).expect("a put");
    }
    let before = store.stats();
    let done = AtomicBool::new(false);
    let mut latencies = Histogram::new_with_max(60_000_000_000, 3).expect("a histogram");
    let (mut peak, mut buffers, mut seconds) = (0.0f64, 0, 0.0);
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let (mut peak, mut buffers) = (0.0f64, 0);
            while !done.load(Ordering::Relaxed) {
                let stats = store.stats();
                (peak, buffers) = (peak.max(ratio(&stats)), buffers.max(stats.buffer_bytes));
                std::thread::sleep(SAMPLE);
            }
            (peak, buffers)
        });
        seconds = overwrite(workload, &namespace, keys, &mut latencies);
        done.store(true, Ordering::Relaxed);
        (peak, buffers) = sampler.join().expect("the sampler");
    });
    let settled = settle(&store);
    let written = settled.written_bytes - before.written_bytes;
    let compacted = settled.compaction.written_bytes - before.compaction.written_bytes;
    Outcome {
        peak,
        settled: ratio(&settled),
        amplification: (written + compacted) as f64 / written.max(1) as f64,
        puts_per_second: latencies.len() as f64 / seconds,
        latencies,
        buffers,
    }
}

fn overwrite(workload: Workload, namespace: &Namespace, keys: u64, latencies: &mut Histogram<u64>) -> f64 {
    let began = Instant::now();
    for step in 0..4 * keys {
        let number = match workload {
            Workload::Uniform => mix(step) % keys,
            Workload::Zipfian => zipfian(mix(step), keys),
            Workload::Queue => keys + step,
        };
        let (key, value) = (random_key(number), value(step));
        let began = Instant::now();
        namespace.put(&key, value).expect("a put");
        // Saturates.
        latencies.saturating_record(began.elapsed().as_nanos() as u64);
        if matches!(workload, Workload::Queue) && step >= 1000 {
            namespace.delete(random_key(keys + step - 1000)).expect("a delete");
        }
    }
    began.elapsed().as_secs_f64()
}

/// A number below `keys`, by the density 1/x: a few are chosen most of the time.
fn zipfian(random: u64, keys: u64) -> u64 {
    let uniform = (random >> 11) as f64 / (1u64 << 53) as f64;
    let rank = (keys as f64).powf(uniform) as u64;
    mix(rank) % keys
}

/// Waits until compaction owes nothing.
fn settle(store: &Store) -> Stats {
    let began = Instant::now();
    loop {
        let stats = store.stats();
        if stats.space.owed_bytes == 0 {
            return stats;
        }
        assert!(began.elapsed() < SETTLE, "the store does not settle: {:?}", stats.space);
        std::thread::sleep(SAMPLE);
    }
}
