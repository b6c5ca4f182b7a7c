//! `embercask bench`: throughput and latencies of this machine on a scratch store of random keys.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use embercask::{Durability, Namespace, PutOptions, Store};
use hdrhistogram::Histogram;
use serde_json::json;

use super::arguments::Bench;
use super::output::json_line;
use super::random::{Random, Zipfian, mix};
use super::session::Session;
use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;

/// The skew of YCSB: with a million keys, every tenth access is to one of the same eight.
const SKEW: f64 = 0.99;
/// Keys per listed page.
const PAGE_KEYS: usize = 100;
/// Longer latencies are recorded as this one.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// The longest run of a load: a day.
const SECONDS_MAX: Duration = Duration::from_secs(86_400);
/// Operations between two checks of the clock and for Ctrl-C.
const LOOK_EVERY: u64 = 16;

/// Something to measure.
struct Load {
    name: &'static str,
    operation: fn(&Work, &mut Random) -> Outcome,
}

const LOADS: [Load; 6] = [
    Load {
        name: "get, uniform",
        operation: |work, random| work.get(random.below(work.keys)),
    },
    Load {
        name: "get, zipfian",
        operation: |work, random| work.get(work.zipfian.pick(random)),
    },
    Load {
        name: "get, absent",
        operation: |work, random| {
            let key = key(work.keys + random.below(work.keys));
            work.namespace.get(key)?;
            Ok(())
        },
    },
    Load {
        name: "put, zipfian",
        operation: |work, random| work.put(work.zipfian.pick(random)),
    },
    Load {
        name: "half puts, half gets, zipfian",
        operation: |work, random| {
            let number = work.zipfian.pick(random);
            if random.below(2) == 0 {
                work.put(number)
            } else {
                work.get(number)
            }
        },
    },
    Load {
        name: "list, 100 keys",
        operation: |work, random| {
            let start = key(random.below(work.keys));
            work.namespace.list().start(start).page_size(PAGE_KEYS).page()?;
            Ok(())
        },
    },
];

/// What the loads work on.
struct Work {
    namespace: Namespace,
    keys: u64,
    value: Vec<u8>,
    durability: Durability,
    zipfian: Zipfian,
}

impl Work {
    fn put(&self, number: u64) -> Outcome {
        let options = PutOptions::new().durability(self.durability);
        self.namespace.put_with(key(number), &self.value, options)?;
        Ok(())
    }

    fn get(&self, number: u64) -> Outcome {
        match self.namespace.get(key(number))? {
            Some(value) if value.len() == self.value.len() => Ok(()),
            _ => Err(Failure::damaged(format!(
                "key {number} does not have the value that was put"
            ))),
        }
    }
}

/// A key of 16 bytes; successive numbers are in no order.
fn key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    let bits = mix(number);
    for (index, byte) in key.iter_mut().enumerate() {
        let digit = (bits >> (60 - 4 * index) & 15) as u8;
        *byte = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
    }
    key
}

pub(crate) fn run(session: &Session, arguments: &Bench) -> Outcome {
    let duration = Some(arguments.seconds)
        .filter(|seconds| (Duration::from_nanos(1)..=SECONDS_MAX).contains(seconds))
        .ok_or_else(|| Failure::usage("--seconds must be above zero, and at most 86400", ""))?;
    // Slow for very many keys.
    let zipfian = Zipfian::new(arguments.keys, SKEW);
    let _expected = interrupt::expect();
    let base = arguments.directory.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = Scratch::new(&base)?;
    let store = session.chosen_options()?.apply(Store::options()).open(&scratch.path)?;
    let work = Work {
        namespace: store.namespace("BENCH")?,
        keys: arguments.keys,
        value: vec![b'v'; arguments.value_bytes as usize],
        durability: arguments.class.durability(),
        zipfian,
    };
    let report = Report { json: arguments.json };
    report.head(arguments, &base)?;
    report.row("fill", &fill(&work, arguments.threads)?)?;
    for load in &LOADS {
        let measured = measure(arguments.threads, |random, latencies| {
            let end = Instant::now() + duration;
            loop {
                for _ in 0..LOOK_EVERY {
                    timed(latencies, || (load.operation)(&work, random))?;
                }
                interrupt::check("the scratch store is removed")?;
                if Instant::now() >= end {
                    return Ok(());
                }
            }
        })?;
        report.row(load.name, &measured)?;
    }
    drop(work);
    Ok(store.close()?)
}

/// Puts every key once.
fn fill(work: &Work, threads: u64) -> Outcome<Measured> {
    let next = std::sync::atomic::AtomicU64::new(0);
    measure(threads, |_, latencies| {
        loop {
            let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if number >= work.keys {
                return Ok(());
            }
            if number.is_multiple_of(LOOK_EVERY) {
                interrupt::check("the scratch store is removed")?;
            }
            timed(latencies, || work.put(number))?;
        }
    })
}

fn timed(latencies: &mut Histogram<u64>, operation: impl FnOnce() -> Outcome) -> Outcome {
    let started = Instant::now();
    operation()?;
    latencies.saturating_record(started.elapsed().as_nanos() as u64);
    Ok(())
}

/// The result of a load.
struct Measured {
    latencies: Histogram<u64>,
    elapsed: Duration,
}

/// Runs `load` on `threads` threads at once.
fn measure(threads: u64, load: impl Fn(&mut Random, &mut Histogram<u64>) -> Outcome + Sync) -> Outcome<Measured> {
    let started = Instant::now();
    let of_threads: Vec<Outcome<Histogram<u64>>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let load = &load;
                scope.spawn(move || {
                    let mut latencies = histogram()?;
                    load(&mut Random::new(thread), &mut latencies)?;
                    Ok(latencies)
                })
            })
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        running.into_iter().map(join).collect()
    });
    let elapsed = started.elapsed();
    let mut latencies = histogram()?;
    for of_thread in of_threads {
        latencies
            .add(of_thread?)
            .map_err(|error| Failure::usage(error.to_string(), ""))?;
    }
    Ok(Measured { latencies, elapsed })
}

fn histogram() -> Outcome<Histogram<u64>> {
    Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, 3)
        .map_err(|error| Failure::usage(error.to_string(), ""))
}

/// Writes the results, row by row.
struct Report {
    json: bool,
}

impl Report {
    fn head(&self, arguments: &Bench, base: &Path) -> Outcome {
        if self.json {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "{} keys of 16 bytes, values of {} bytes, {} threads, class {:?}, in {}",
            arguments.keys,
            arguments.value_bytes,
            arguments.threads,
            arguments.class.durability(),
            base.display()
        )?;
        writeln!(
            out,
            "\n{:30} {:>12} {:>10} {:>10} {:>10} {:>10}",
            "load", "a second", "p50", "p99", "p99.9", "worst"
        )?;
        Ok(())
    }

    fn row(&self, name: &str, measured: &Measured) -> Outcome {
        let Measured { latencies, elapsed } = measured;
        let rate = latencies.len() as f64 / elapsed.as_secs_f64();
        let at = |quantile: f64| latencies.value_at_quantile(quantile);
        let mut out = std::io::stdout().lock();
        if self.json {
            let line = json!({
                "load": name,
                "operations": latencies.len(),
                "seconds": elapsed.as_secs_f64(),
                "per_second": rate,
                "p50_ns": at(0.5),
                "p99_ns": at(0.99),
                "p999_ns": at(0.999),
                "worst_ns": latencies.max(),
            });
            return json_line(&mut out, &line);
        }
        let shown = |ns: u64| format!("{:.1?}", Duration::from_nanos(ns));
        writeln!(
            out,
            "{name:30} {rate:>12.0} {:>10} {:>10} {:>10} {:>10}",
            shown(at(0.5)),
            shown(at(0.99)),
            shown(at(0.999)),
            shown(latencies.max())
        )?;
        Ok(())
    }
}

/// A directory that is removed on drop.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(base: &Path) -> Outcome<Scratch> {
        // In containers process ids repeat, so a killed process may have left this directory
        // behind.
        let mut attempt = 0;
        loop {
            let path = base.join(format!("embercask-bench-{}-{attempt}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Scratch { path }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists && attempt < 1000 => attempt += 1,
                Err(error) => return Err(Failure::file("create", path.display(), &error)),
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // If that fails, the directory stays where the user can see it.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
