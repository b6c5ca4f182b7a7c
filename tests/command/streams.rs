//! The command line: export and import of much more data than the memory they may use, stopped in
//! the middle and resumed.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use crate::command::{Workplace, bytes_in, interrupt, memory_of, stopped};
use embercask::{Durability, Store};

const VALUE_BYTES: usize = 64 << 10;
/// 1 GiB of values in all.
const KEYS: u64 = (1 << 30) / VALUE_BYTES as u64;
/// An eighth of the data: room for the active segment, and a batch or a page.
const MEMORY_BYTES_MAX: u64 = 128 << 20;

/// Interval between measurements of a child's memory.
const BETWEEN_TWO_LOOKS: Duration = Duration::from_millis(5);

/// The value of a key: half of the values are text, the others any bytes.
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

/// Watches a child until the condition is true, or the child has ended; returns its peak memory,
/// without pages of files, which the system may drop.
fn watched(child: &Child, is_so: impl Fn() -> bool) -> u64 {
    let mut most = 0;
    while let Some(bytes) = memory_of(child, "RssAnon") {
        most = bytes.max(most);
        if is_so() {
            break;
        }
        std::thread::sleep(BETWEEN_TWO_LOOKS);
    }
    assert!(most > 1 << 20, "{most} bytes are less than any process has");
    most
}

/// Sends Ctrl-C once more than `stop_at_bytes` of a file or directory are written, then resumes to
/// the end. Returns the peak memory of both runs.
fn stopped_and_gone_on_with(at: &Workplace, arguments: &[&str], written: &Path, stop_at_bytes: u64) -> u64 {
    let child = at.spawned(arguments.iter().copied());
    let before = watched(&child, || bytes_in(written) > stop_at_bytes);
    interrupt(&child);
    let told = stopped(child);
    assert!(told.contains("--resume continues"), "{told}");
    let child = at.spawned(arguments.iter().copied().chain(["--resume"]));
    let after = watched(&child, || false);
    let output = child.wait_with_output().unwrap();
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

/// The value that is large, its length, and the memory that a process may take for it: two and a
/// half times as much, and what any process takes.
const LARGE_BYTES: usize = 64 << 20;
const LARGE_MEMORY_BYTES_MAX: u64 = LARGE_BYTES as u64 * 5 / 2 + (24 << 20);

/// The most memory that the command took, with all pages of files that it mapped; it must succeed.
fn most_memory(at: &Workplace, arguments: &[&str]) -> u64 {
    let mut child = at.spawned(arguments.iter().copied());
    let mut most = 0;
    while let Some(bytes) = memory_of(&child, "VmHWM") {
        most = bytes;
        std::thread::sleep(BETWEEN_TWO_LOOKS);
    }
    assert!(child.wait().unwrap().success(), "{arguments:?}");
    most
}

/// A value is in memory once or twice, not as its line, its text, its base64 and itself.
#[test]
fn a_large_value_goes_through_a_file_in_little_more_memory_than_its_own() {
    let text = "a line of 32 bytes, \"quoted\" ü\n".repeat(LARGE_BYTES / 32);
    let bytes: Vec<u8> = (0..LARGE_BYTES as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for (what, value) in [("text", text.into_bytes()), ("bytes", bytes)] {
        let at = Workplace::with_namespace();
        let store = at.store();
        store.open_namespace("N").unwrap().put("large", &value).unwrap();
        store.close().unwrap();
        for (format, file) in [("lines", "all.jsonl"), ("bulk", "pairs.json")] {
            let export = ["export", "-n", "N", "--format", format, file];
            let import = ["--store", format, "import", "-n", "N", "--os", "--format", format, file];
            let (exporting, importing) = (most_memory(&at, &export), most_memory(&at, &import));
            let copy = Store::options().create(false).open(at.path(format)).unwrap();
            let copied = copy.open_namespace("N").unwrap().get("large").unwrap().unwrap();
            assert!(copied.as_bytes() == value, "{what} as {format}");
            println!("{what} as {format}: export {exporting} bytes, import {importing} bytes");
            let most = exporting.max(importing);
            // Otherwise something else was measured.
            assert!(exporting.min(importing) > LARGE_BYTES as u64, "{exporting} {importing}");
            assert!(
                most < LARGE_MEMORY_BYTES_MAX,
                "{what} as {format}: {exporting} {importing}"
            );
            drop(copied);
            drop(copy);
            std::fs::remove_dir_all(at.path(format)).unwrap();
            std::fs::remove_file(at.path(file)).unwrap();
        }
    }
}
