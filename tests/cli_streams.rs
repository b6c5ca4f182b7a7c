//! The command line: export and import of far more than memory should take, stopped in the middle and gone on with.
#![cfg(target_os = "linux")]

#[path = "common/command.rs"]
#[allow(dead_code, reason = "each program that includes this file uses its own part of it")]
mod command;

use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};

use command::{Workplace, bytes_in, interrupt, stopped, wait_until};
use embercask::{Durability, Store};

const VALUE_BYTES: usize = 64 << 10;
/// Together 1 GiB of values.
const KEYS: u64 = (1 << 30) / VALUE_BYTES as u64;
/// An eighth of what is moved: room for the segment that is written to, and a batch or a page.
const MEMORY_BYTES_MAX: u64 = 128 << 20;

/// The value of a key: half of them are text, the others any bytes.
fn value(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words = (0..VALUE_BYTES / 8).map(|_| next());
    if number.is_multiple_of(2) {
        let letters = |word: u64| {
            word.to_le_bytes()
                .map(|byte| b"abcdefghijklmnop"[usize::from(byte & 15)])
        };
        words.flat_map(letters).collect()
    } else {
        words.flat_map(u64::to_le_bytes).collect()
    }
}

fn key(number: u64) -> String {
    format!("key-{number:08}")
}

fn fill(path: &Path) {
    let store = Store::options().durability(Durability::Os).open(path).unwrap();
    let namespace = store.namespace("N").unwrap();
    for number in 0..KEYS {
        namespace.put(key(number), value(number)).unwrap();
    }
    drop(namespace);
    store.close().unwrap();
}

/// Memory of its own that a process has: no pages of files, which are the system's to keep or not.
fn memory_bytes(process: u32) -> u64 {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) else {
        return 0;
    };
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

/// Runs `work` on the child, and gives the most memory that it had meanwhile.
fn watched<T>(child: Child, work: impl FnOnce(Child) -> T) -> (T, u64) {
    let (process, done) = (child.id(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let most = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = memory_bytes(process).max(most);
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            most
        });
        let result = work(child);
        done.store(true, Ordering::Relaxed);
        (result, most.join().unwrap())
    })
}

/// Ctrl-C when so much of a file or directory is written; then to the end. Gives the most memory that either had.
fn stopped_and_gone_on_with(at: &Workplace, arguments: &[&str], written: &Path, stop_at_bytes: u64) -> u64 {
    let (told, before) = watched(at.spawned(arguments.iter().copied()), |child| {
        wait_until("a part of it", || bytes_in(written) > stop_at_bytes);
        interrupt(&child);
        stopped(child)
    });
    assert!(told.contains("--resume goes on"), "{told}");
    let child = at.spawned(arguments.iter().copied().chain(["--resume"]));
    let (output, after) = watched(child, |child| child.wait_with_output().unwrap());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    before.max(after)
}

#[test]
fn a_gibibyte_goes_through_a_file_in_bounded_memory() {
    let at = Workplace::new();
    fill(&at.path("store"));

    let file = at.path("all.jsonl");
    let partial = at.path("all.jsonl.partial");
    let exporting = stopped_and_gone_on_with(&at, &["export", "all.jsonl"], &partial, 200 << 20);
    assert!(bytes_in(&file) > 1 << 30 && !partial.exists());

    let import = ["--store", "copy", "import", "all.jsonl", "--os"];
    let importing = stopped_and_gone_on_with(&at, &import, &at.path("copy"), 400 << 20);
    assert!(!at.path("all.jsonl.progress").exists());

    let copy = Store::options().create(false).open(at.path("copy")).unwrap();
    let namespace = copy.open_namespace("N").unwrap();
    assert_eq!(namespace.count().unwrap(), KEYS);
    for number in 0..KEYS {
        assert_eq!(
            namespace.get(key(number)).unwrap().as_deref(),
            Some(&value(number)[..]),
            "{number}"
        );
    }
    println!("most memory: export {exporting} bytes, import {importing} bytes");
    assert!(exporting.max(importing) < MEMORY_BYTES_MAX, "{exporting} {importing}");
}
