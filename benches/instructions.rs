//! Instruction counts of single operations, by callgrind: detects a growth of a tenth even on a
//! busy machine.
//!
//! `cargo bench --bench instructions` compares the counts with `benches/instructions.txt`, and
//! fails if one has grown by more than a tenth; `-- --accept` writes the counts to that file
//! instead. `-- --test` runs each operation a few times without counting, to see that it works.
//! Counting needs valgrind.
//!
//! Counts depend on the compiler and on the processor's extensions: if either differs from where
//! the file was written, first count and accept the state before a change.
//!
//! For each operation this program starts itself under callgrind with some number of calls and with
//! twice as many, several times each, and takes the lowest counts. The work common to both (opening
//! a store, making keys) cancels out. Both open a copy of the same store, so they hash keys alike.

#[allow(dead_code, reason = "no bench uses all of it")]
mod common;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use common::{VALUE_BYTES, directory, mix, random_key, value};
use embercask::{Durability, Maintenance, Namespace, Options, PutOptions, Store};

/// Keys of a store.
const KEYS: u64 = 20_000;
/// Keys made for the calls of each run: as many as the longest run needs.
const KEYS_PREPARED: u64 = 10_000;
/// Keys put after the store was opened, in a separate namespace.
const KEYS_RECENT: u64 = 1_000;
/// Keys of a page.
const PAGE_KEYS: usize = 1_000;
/// Calls of each operation with `--test`.
const CALLS_SHORT: usize = 2;
/// Runs per number of calls, of which the lowest count is taken.
const REPETITIONS: usize = 3;
/// Maximum growth, in percent.
const GROWTH_MAX: f64 = 10.0;

/// Environment variable with the operation that a child of this program runs.
const OPERATION: &str = "EMBERCASK_BENCH_OPERATION";
/// Environment variable with the number of calls.
const CALLS: &str = "EMBERCASK_BENCH_CALLS";
/// Environment variable with the directory of the store.
const STORE: &str = "EMBERCASK_BENCH_STORE";

/// An operation to count.
struct Operation {
    name: &'static str,
    /// Calls in the shorter of the two runs.
    calls: usize,
    /// Keys per call; counts are per key.
    keys: usize,
    /// Whether the keys of the store have an expiry and metadata.
    detailed: bool,
    call: fn(&Work, usize),
}

const OPERATIONS: [Operation; 13] = [
    single("put of a new key", |work, call| {
        work.namespace.put(&work.absent[call], work.value).expect("a put");
    }),
    single("put over an existing key", |work, call| {
        work.namespace.put(&work.existing[call], work.value).expect("a put");
    }),
    single("put of a new key, buffered", |work, call| {
        let options = PutOptions::new().durability(Durability::Buffered);
        work.namespace
            .put_with(&work.absent[call], work.value, options)
            .expect("a put");
    }),
    many("put of a new key, 100 in a batch", |work, call| {
        let mut batch = work.store.batch();
        for key in &work.absent[call * 100..][..100] {
            batch.put(&work.namespace, key, work.value);
        }
        batch.commit().expect("a batch");
    }),
    single("delete", |work, call| {
        work.namespace.delete(&work.existing[call]).expect("a delete");
    }),
    single("get, hit", |work, call| {
        let value = work.namespace.get(&work.existing[call]).expect("a get");
        assert!(value.is_some(), "the key is there");
        black_box(value);
    }),
    single("get, just written", |work, call| {
        let key = &work.existing[call % KEYS_RECENT as usize];
        let value = work.recent.get(key).expect("a get");
        assert!(value.is_some(), "the key is there");
        black_box(value);
    }),
    single("get, miss", |work, call| {
        let value = work.namespace.get(&work.absent[call]).expect("a get");
        assert!(value.is_none(), "the key is not there");
    }),
    single("get, lent", |work, call| {
        let length = work.namespace.get_with(&work.existing[call], |value| value.len());
        assert_eq!(length.expect("a get"), Some(work.value.len()));
    }),
    many("get, 100 in one call", |work, call| {
        let keys = &work.existing[call * 100..][..100];
        black_box(work.namespace.get_many(keys).expect("a get"));
    }),
    page("list, 1,000 in a page", false),
    page("list, 1,000 in a page, expiry and metadata", true),
    Operation {
        name: "put over an existing key, expiry and metadata",
        detailed: true,
        ..single("", |work, call| {
            work.namespace
                .put_with(&work.existing[call], work.value, details())
                .expect("a put");
        })
    },
];

/// An operation on one key.
const fn single(name: &'static str, call: fn(&Work, usize)) -> Operation {
    Operation {
        name,
        calls: 5_000,
        keys: 1,
        detailed: false,
        call,
    }
}

/// An operation on a hundred keys.
const fn many(name: &'static str, call: fn(&Work, usize)) -> Operation {
    Operation {
        calls: 50,
        keys: 100,
        ..single(name, call)
    }
}

/// A listing.
const fn page(name: &'static str, detailed: bool) -> Operation {
    let call = |work: &Work, call: usize| {
        let start = &work.starts[call % work.starts.len()];
        let page = work.namespace.list().start(start).page_size(PAGE_KEYS).page();
        assert_eq!(page.expect("a page").len(), PAGE_KEYS, "the page is full");
    };
    Operation {
        calls: 20,
        keys: PAGE_KEYS,
        detailed,
        ..single(name, call)
    }
}

/// The data that calls use, the same for every operation and number of calls.
struct Work {
    store: Store,
    namespace: Namespace,
    /// Holds the first of the existing keys, all written since the store was opened.
    recent: Namespace,
    /// Distinct keys of the store, in no order.
    existing: Vec<Vec<u8>>,
    /// Keys that are not in the store.
    absent: Vec<Vec<u8>>,
    /// Start keys of pages, each followed by enough keys to fill its page.
    starts: Vec<String>,
    value: [u8; VALUE_BYTES],
}

impl Work {
    fn open(directory: &Path) -> Work {
        let store = options().open(directory).expect("a store");
        assert!(
            store.recovery_report().index_file_used,
            "both runs hash with the same seeds"
        );
        let namespace = store.namespace("BENCH").expect("a namespace");
        let recent = store.namespace("RECENT").expect("a namespace");
        let work = Work {
            namespace,
            recent,
            existing: (0..KEYS_PREPARED).map(random_key).collect(),
            absent: (KEYS..KEYS + KEYS_PREPARED).map(random_key).collect(),
            // Keys are hexadecimal and evenly spread: a sixteenth of them is at 0xf0 or above.
            starts: (0..100).map(|number| format!("{:02x}", mix(number) % 0xf0)).collect(),
            value: value(0),
            store,
        };
        for key in &work.existing[..KEYS_RECENT as usize] {
            work.recent.put(key, work.value).expect("a put");
        }
        work
    }
}

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(OPERATION) {
        be_counted(&name);
    }
    let has = |name: &str| std::env::args().any(|argument| argument == name);
    let short = has("--test") || has("--quick");
    if !short && Command::new("valgrind").arg("--version").output().is_err() {
        println!("instructions: not counted, since valgrind is missing; most systems have a package of that name");
        return ExitCode::SUCCESS;
    }
    let base = directory();
    let store = |detailed: bool| base.path().join(if detailed { "detailed" } else { "plain" });
    fill(&store(false), &PutOptions::new());
    fill(&store(true), &details());
    if short {
        for operation in &OPERATIONS {
            let copy = copied(&store(operation.detailed), base.path());
            run(Command::new(this_program()), operation, CALLS_SHORT, &copy);
            println!("{}: works", operation.name);
        }
        return ExitCode::SUCCESS;
    }
    let counts: Vec<_> = OPERATIONS
        .iter()
        .map(|operation| {
            // Sporadic work before the first call can only add to a count, so take the minimum.
            let total = |calls| {
                let once = |_| counted(operation, calls, &store(operation.detailed), base.path());
                (0..REPETITIONS).map(once).fold(f64::INFINITY, f64::min)
            };
            let more = total(2 * operation.calls) - total(operation.calls);
            more / (operation.calls * operation.keys) as f64
        })
        .collect();
    let grown = compare(&counts);
    if has("--accept") {
        accept(&counts);
    } else if !grown.is_empty() {
        eprintln!("instructions: more than expected, or without an expected count:");
        grown.iter().for_each(|line| eprintln!("  {line}"));
        eprintln!("If that is intended: cargo bench --bench instructions -- --accept");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Options without background work.
fn options() -> Options {
    common::options()
        .maintenance(Maintenance::Manual)
        .flush_interval(Duration::from_secs(3600))
}

/// Metadata and expiry of the keys of a detailed store.
fn details() -> PutOptions {
    PutOptions::new()
        .metadata("{\"size\":100}")
        .ttl(Duration::from_secs(86_400))
}

/// Creates and closes a store, so that all segments are sealed.
fn fill(directory: &Path, details: &PutOptions) {
    let store = options().open(directory).expect("a store");
    let namespace = store.namespace("BENCH").expect("a namespace");
    for number in 0..KEYS {
        namespace
            .put_with(random_key(number), value(number), details.clone())
            .expect("a put");
    }
    store.maintain().expect("maintenance");
    drop(namespace);
    store.close().expect("a close");
}

/// Runs the operation given by the environment. Exits without closing the store, since the cost of
/// closing depends on how much was put.
fn be_counted(name: &str) -> ! {
    let operation = OPERATIONS.iter().find(|operation| operation.name == name);
    let operation = operation.expect("an operation");
    let calls = std::env::var(CALLS).expect("calls").parse().expect("a number of calls");
    let work = Work::open(Path::new(&std::env::var_os(STORE).expect("a directory")));
    for call in 0..calls {
        (operation.call)(&work, call);
    }
    std::process::exit(0)
}

fn this_program() -> PathBuf {
    std::env::current_exe().expect("this program")
}

/// Copies a closed store, replacing the previous copy.
fn copied(store: &Path, base: &Path) -> PathBuf {
    let copy = base.join("copy");
    if copy.exists() {
        std::fs::remove_dir_all(&copy).expect("a removal");
    }
    std::fs::create_dir(&copy).expect("a directory");
    for file in std::fs::read_dir(store).expect("a directory") {
        let path = file.expect("a file").path();
        std::fs::copy(&path, copy.join(path.file_name().expect("a name"))).expect("a copy");
    }
    copy
}

/// Runs this program with `command` for `calls` calls of the operation.
fn run(mut command: Command, operation: &Operation, calls: usize, store: &Path) {
    let output = command
        .env(OPERATION, operation.name)
        .env(CALLS, calls.to_string())
        .env(STORE, store)
        .output()
        .expect("a child");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", operation.name);
}

/// All instructions of a run of `calls` calls.
fn counted(operation: &Operation, calls: usize, store: &Path, base: &Path) -> f64 {
    let counts = base.join("callgrind");
    let mut command = Command::new("valgrind");
    command
        .args(["--quiet", "--tool=callgrind"])
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(this_program());
    run(command, operation, calls, &copied(store, base));
    std::fs::read_to_string(&counts)
        .expect("counts")
        .lines()
        .find_map(|line| line.strip_prefix("totals:"))
        .expect("totals")
        .trim()
        .parse()
        .expect("a number")
}

fn expected_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt")
}

/// Prints the counts next to the expected ones, and returns those that have grown too much.
fn compare(counts: &[f64]) -> Vec<String> {
    let text = std::fs::read_to_string(expected_path()).unwrap_or_default();
    let expected = |name: &str| -> Option<f64> {
        let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        let (_, count) = lines.into_iter().find(|(expected, _)| *expected == name)?;
        Some(count.parse().expect("a number after each name"))
    };
    let mut grown = Vec::new();
    println!("| operation | instructions a key | expected | change |");
    println!("| --- | --- | --- | --- |");
    for (Operation { name, .. }, count) in OPERATIONS.iter().zip(counts) {
        let Some(expected) = expected(name) else {
            println!("| {name} | {count:.0} | none | |");
            grown.push(format!("{name}: nothing is expected yet"));
            continue;
        };
        let change = (count / expected - 1.0) * 100.0;
        println!("| {name} | {count:.0} | {expected:.0} | {change:+.1} % |");
        if change > GROWTH_MAX {
            grown.push(format!("{name}: {count:.0}, not {expected:.0}, {change:+.1} %"));
        }
    }
    grown
}

/// Makes these counts the expected ones.
fn accept(counts: &[f64]) {
    let mut text =
        "# Instructions for one key, as `cargo bench --bench instructions -- --accept` wrote them.\n".to_owned();
    for (operation, count) in OPERATIONS.iter().zip(counts) {
        text += &format!("{} {count:.0}\n", operation.name);
    }
    std::fs::write(expected_path(), text).expect("a file of the counts");
}
