//! Throughput of each operation at a million keys, each next to a yardstick: the least work that
//! the machine has to do for it without an engine. Only ratios within one run, on an otherwise idle
//! machine, are meaningful.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{KEYS, KeyOf, directory, filled, mix, options, ordered_key, random_key, value};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group};
use embercask::{Durability, PutOptions, ReadMode, Store};

/// Bytes that a record of the benches takes in a log, and that a raw write writes.
const RECORD_BYTES: usize = 24 + 28 + 100;
/// Bytes of a segment, the default.
const SEGMENT_BYTES: usize = 64 << 20;
/// Environment variable with the directory in which a child of this program leaves the store of a
/// killed process.
const KILLED_IN: &str = "EMBERCASK_BENCH_KILLED_IN";

fn put(c: &mut Criterion) {
    let mut group = c.benchmark_group("put");
    group.throughput(Throughput::Elements(1));
    group.bench_function("yardstick: one write of the same bytes", |b| {
        let directory = directory();
        let mut file = File::create(directory.path().join("log")).expect("a file");
        let record = [7; RECORD_BYTES];
        b.iter(|| file.write_all(black_box(&record)).expect("a write"));
    });
    group.bench_function("yardstick: a copy of the same bytes in memory", |b| {
        // As large as a segment's buffer, so that it does not stay in the processor's cache.
        let mut buffer = vec![1u8; SEGMENT_BYTES];
        let record = [7; RECORD_BYTES];
        let mut offset = 0;
        b.iter(|| {
            if offset + RECORD_BYTES > buffer.len() {
                offset = 0;
            }
            buffer[offset..offset + RECORD_BYTES].copy_from_slice(black_box(&record));
            offset += RECORD_BYTES;
        });
        black_box(buffer);
    });
    for (name, durability) in [("os", Durability::Os), ("buffered", Durability::Buffered)] {
        for (order, key) in [("in order", ordered_key as KeyOf), ("at random", random_key)] {
            group.bench_function(BenchmarkId::new(name, order), |b| {
                let directory = directory();
                let store = Store::options()
                    .durability(durability)
                    .open(directory.path())
                    .expect("a store");
                let namespace = store.namespace("BENCH").expect("a namespace");
                let mut number = 0;
                b.iter(|| {
                    namespace.put(key(number), value(number)).expect("a put");
                    number += 1;
                });
            });
        }
    }
    group.throughput(Throughput::Elements(100));
    group.bench_function("os, batches of 100", |b| {
        let directory = directory();
        let store = options().open(directory.path()).expect("a store");
        let namespace = store.namespace("BENCH").expect("a namespace");
        let mut number = 0;
        b.iter(|| {
            let mut batch = store.batch();
            for _ in 0..100 {
                batch.put(&namespace, ordered_key(number), value(number));
                number += 1;
            }
            batch.commit().expect("a batch")
        });
    });
    group.finish();

    let mut group = c.benchmark_group("durable put");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    group.bench_function("yardstick: one write and one data sync", |b| {
        let directory = directory();
        let mut file = File::create(directory.path().join("log")).expect("a file");
        let record = [7; RECORD_BYTES];
        b.iter(|| {
            file.write_all(black_box(&record)).expect("a write");
            file.sync_data().expect("a sync");
        });
    });
    group.throughput(Throughput::Elements(8));
    group.bench_function("yardstick: one write of eight and one data sync", |b| {
        let directory = directory();
        let mut file = File::create(directory.path().join("log")).expect("a file");
        let records = [7; RECORD_BYTES * 8];
        b.iter(|| {
            file.write_all(black_box(&records)).expect("a write");
            file.sync_data().expect("a sync");
        });
    });
    group.throughput(Throughput::Elements(1));
    for writers in [1u64, 8] {
        group.bench_function(BenchmarkId::new("sync, writers", writers), |b| {
            let directory = directory();
            let store = Store::open(directory.path()).expect("a store");
            let namespace = store.namespace("BENCH").expect("a namespace");
            let mut round = 0;
            b.iter_custom(|iterations| {
                round += 1;
                let started = Instant::now();
                std::thread::scope(|scope| {
                    for writer in 0..writers {
                        let namespace = &namespace;
                        scope.spawn(move || {
                            for number in 0..iterations.div_ceil(writers) {
                                let number = number * writers + writer + (round << 40);
                                namespace.put(random_key(number), value(number)).expect("a put");
                            }
                        });
                    }
                });
                started.elapsed()
            });
        });
    }
    group.finish();
}

fn get(c: &mut Criterion) {
    let mut group = c.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    {
        let map: HashMap<Vec<u8>, Vec<u8>> = (0..KEYS)
            .map(|number| (random_key(number), value(number).to_vec()))
            .collect();
        let mut number = 0;
        group.bench_function("yardstick: HashMap, hit", |b| {
            b.iter(|| {
                number += 1;
                map.get(&random_key(mix(number) % KEYS)).map(|value| value[0])
            });
        });
        group.bench_function("yardstick: HashMap, miss", |b| {
            b.iter(|| {
                number += 1;
                map.get(&random_key(KEYS + mix(number) % KEYS)).map(|value| value[0])
            });
        });
    }
    let directory = directory();
    let (store, namespace) = filled(directory.path(), KEYS, random_key);
    store.sync().expect("a sync");
    let mut number = 0;
    group.bench_function("hit", |b| {
        b.iter(|| {
            number += 1;
            namespace
                .get(random_key(mix(number) % KEYS))
                .expect("a get")
                .map(|value| value[0])
        });
    });
    group.bench_function("miss", |b| {
        b.iter(|| {
            number += 1;
            namespace
                .get(random_key(KEYS + mix(number) % KEYS))
                .expect("a get")
                .is_some()
        });
    });
    group.bench_function("just written", |b| {
        b.iter(|| {
            number += 1;
            namespace
                .get(random_key(KEYS - 1 - mix(number) % 1000))
                .expect("a get")
                .map(|value| value[0])
        });
    });
    group.throughput(Throughput::Elements(100));
    group.bench_function("100 in one call", |b| {
        b.iter(|| {
            number += 1;
            let keys: Vec<_> = (0..100).map(|n| random_key(mix(number * 100 + n) % KEYS)).collect();
            namespace.get_many(&keys).expect("a get")
        });
    });
    group.throughput(Throughput::Elements(1)).sample_size(10);
    drop(namespace);
    store.close().expect("a close");
    cold(&mut group, directory.path());
    group.finish();
}

/// Gets whose values are only on the device: in pread mode, since mapped pages stay in memory, and
/// with an emptied page cache. The yardstick reads one page at random offsets of the same files.
fn cold(group: &mut BenchmarkGroup<'_, WallTime>, directory: &Path) {
    if !drop_page_cache() {
        println!("cold gets: skipped, since this process may not empty the page cache");
        return;
    }
    let store = options().read_mode(ReadMode::Pread).open(directory).expect("a store");
    let namespace = store.namespace("BENCH").expect("a namespace");
    let segment = std::fs::read_dir(directory)
        .expect("a directory")
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
        .max_by_key(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.len()))
        .expect("a segment");
    let pages = std::fs::metadata(&segment).expect("a length").len() / 4096;
    let mut round = 0;
    group.bench_function("yardstick: one page of a file, cold", |b| {
        b.iter_custom(|iterations| {
            drop_page_cache();
            round += 1;
            let file = File::open(&segment).expect("a file");
            let mut page = [0; 4096];
            let started = Instant::now();
            for number in 0..iterations {
                let offset = mix(number ^ (round << 40)) % pages * 4096;
                file.read_exact_at(&mut page, offset).expect("a read");
            }
            started.elapsed()
        });
    });
    group.bench_function("hit, cold", |b| {
        b.iter_custom(|iterations| {
            drop_page_cache();
            round += 1;
            let started = Instant::now();
            for number in 0..iterations {
                let key = random_key(mix(number ^ (round << 40)) % KEYS);
                black_box(namespace.get(key).expect("a get"));
            }
            started.elapsed()
        });
    });
}

/// Drops clean pages from the page cache; false if this process may not.
fn drop_page_cache() -> bool {
    std::fs::write("/proc/sys/vm/drop_caches", "1").is_ok()
}

fn list(c: &mut Criterion) {
    let mut group = c.benchmark_group("list a page of 1,000");
    group.throughput(Throughput::Elements(1000));
    {
        let map: BTreeMap<Vec<u8>, ()> = (0..KEYS).map(|number| (random_key(number), ())).collect();
        let mut number = 0;
        group.bench_function("yardstick: BTreeMap", |b| {
            b.iter(|| {
                number += 1;
                map.range(random_key(mix(number))..)
                    .take(1000)
                    .map(|(key, ())| key.len())
                    .sum::<usize>()
            });
        });
    }
    let directory = directory();
    let (store, namespace) = filled(directory.path(), KEYS, random_key);
    let details = store.namespace("DETAILS").expect("a namespace");
    for number in 0..KEYS / 10 {
        let options = PutOptions::new()
            .metadata("{\"size\":100}")
            .ttl(Duration::from_secs(86_400));
        details
            .put_with(random_key(number), value(number), options)
            .expect("a put");
    }
    store.maintain().expect("maintenance");
    let mut number = 0;
    group.bench_function("keys", |b| {
        b.iter(|| {
            number += 1;
            namespace
                .list()
                .start(random_key(mix(number)))
                .page()
                .expect("a page")
                .len()
        });
    });
    group.bench_function("keys, expiry and metadata", |b| {
        b.iter(|| {
            number += 1;
            details
                .list()
                .start(random_key(mix(number)))
                .page()
                .expect("a page")
                .len()
        });
    });
    group.bench_function("keys and values", |b| {
        b.iter(|| {
            number += 1;
            namespace
                .list()
                .start(random_key(mix(number)))
                .with_values()
                .page()
                .expect("a page")
                .len()
        });
    });
    group.finish();
}

fn change(c: &mut Criterion) {
    let mut group = c.benchmark_group("change");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    {
        let mut map: HashMap<Vec<u8>, Vec<u8>> = (0..KEYS)
            .map(|number| (random_key(number), value(number).to_vec()))
            .collect();
        let mut number = 0;
        group.bench_function("yardstick: HashMap, overwrite", |b| {
            b.iter(|| {
                number += 1;
                map.insert(random_key(mix(number) % KEYS), value(number).to_vec())
            });
        });
        let mut next = 0;
        group.bench_function("yardstick: HashMap, remove", |b| {
            b.iter_custom(|iterations| {
                let first = next;
                next += iterations;
                for number in first.max(KEYS)..next.max(KEYS) {
                    map.insert(random_key(number), value(number).to_vec());
                }
                let started = Instant::now();
                for number in first..next {
                    black_box(map.remove(&random_key(number)));
                }
                started.elapsed()
            });
        });
    }
    let directory = directory();
    let (store, namespace) = filled(directory.path(), KEYS, random_key);
    let mut number = 0;
    group.bench_function("overwrite at random", |b| {
        b.iter(|| {
            number += 1;
            namespace
                .put(random_key(mix(number) % KEYS), value(number))
                .expect("a put")
        });
    });
    let mut next = 0;
    group.bench_function("delete", |b| {
        b.iter_custom(|iterations| {
            // Missing keys to delete are put first, untimed.
            let first = next;
            next += iterations;
            for number in first.max(KEYS)..next.max(KEYS) {
                namespace.put(random_key(number), value(number)).expect("a put");
            }
            let started = Instant::now();
            for number in first..next {
                namespace.delete(random_key(number)).expect("a delete");
            }
            started.elapsed()
        });
    });
    drop(store);
    group.finish();
}

fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("open a million keys");
    group.sample_size(10);
    let directory = directory();
    let (store, namespace) = filled(directory.path(), KEYS, random_key);
    drop(namespace);
    store.close().expect("a close");
    group.bench_function("yardstick: read all its bytes", |b| {
        b.iter(|| {
            let files = std::fs::read_dir(directory.path()).expect("a directory");
            files
                .map(|file| std::fs::read(file.expect("a file").path()).map_or(0, |bytes| bytes.len()))
                .sum::<usize>()
        });
    });
    group.bench_function("after close", |b| {
        b.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                let started = Instant::now();
                let store = options().open(directory.path()).expect("a store");
                spent += started.elapsed();
                store.close().expect("a close");
            }
            spent
        });
    });
    let status = std::process::Command::new(std::env::current_exe().expect("this program"))
        .env(KILLED_IN, directory.path())
        .status()
        .expect("a child");
    assert!(!status.success(), "the child ends by a kill");
    group.bench_function("after a kill, a quarter of them written since the last opening", |b| {
        b.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                // Opening recovers the store, so each iteration needs a copy of the files as the
                // kill left them.
                let killed = common::directory();
                for file in std::fs::read_dir(directory.path()).expect("a directory") {
                    let path = file.expect("a file").path();
                    let name = path.file_name().expect("a name");
                    std::fs::copy(&path, killed.path().join(name)).expect("a copy");
                }
                let started = Instant::now();
                let store = options().open(killed.path()).expect("a store");
                spent += started.elapsed();
                assert!(!store.recovery_report().clean, "it was killed");
                store.close().expect("a close");
            }
            spent
        });
    });
    group.finish();
}

/// Overwrites a quarter of a store's keys and dies without closing it. Copying the files of a
/// running process would not do: background work may replace files while they are copied.
fn be_killed(directory: &Path) -> ! {
    let store = options().open(directory).expect("a store");
    let namespace = store.namespace("BENCH").expect("a namespace");
    for number in 0..KEYS / 4 {
        namespace.put(random_key(number), value(number)).expect("a put");
    }
    std::process::abort()
}

fn compaction(c: &mut Criterion) {
    let mut group = c.benchmark_group("compaction");
    group.sample_size(10);
    let keys = KEYS;
    group.bench_function("half of a million keys overwritten", |b| {
        b.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                let directory = directory();
                let (store, namespace) = filled(directory.path(), keys, random_key);
                for number in 0..keys / 2 {
                    namespace.put(random_key(number * 2), value(number)).expect("a put");
                }
                let started = Instant::now();
                store.compact().expect("a compaction");
                spent += started.elapsed();
            }
            spent
        });
    });
    group.bench_function("yardstick: copy and sync the live bytes", |b| {
        let directory = directory();
        let bytes = vec![7; keys as usize * RECORD_BYTES];
        b.iter(|| {
            let mut file = File::create(directory.path().join("copy")).expect("a file");
            file.write_all(&bytes).expect("a write");
            file.sync_data().expect("a sync");
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = put, get, list, change, open, compaction
}

fn main() {
    if let Some(directory) = std::env::var_os(KILLED_IN) {
        be_killed(Path::new(&directory));
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
