//! The command line: statistics, compaction, verify, salvage, checkpoint, inspect.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use crate::command::{Workplace, bytes_in, interrupt, stopped, wait_until};
use embercask::{Durability, Maintenance, ManualClock, PutOptions, RecoveryReport, Store};
use serde_json::Value;
use test_support::way::Way;

/// A closed store with this number of keys, each overwritten once.
fn wasteful(keys: u32, value_bytes: usize) -> Workplace {
    overwritten(keys, value_bytes, 1)
}

/// The same, with only every `one_of`-th key overwritten.
fn overwritten(keys: u32, value_bytes: usize, one_of: usize) -> Workplace {
    let at = Workplace::new();
    let store = Store::options()
        .maintenance(Maintenance::Manual)
        .durability(Durability::Os)
        .segment_bytes(4 << 20)
        .open(at.path("store"))
        .unwrap();
    let namespace = store.namespace("N").unwrap();
    for (life, step) in [(0, 1), (1, one_of)] {
        for n in (0..keys).step_by(step) {
            namespace.put(format!("key-{n:08}"), vec![life; value_bytes]).unwrap();
        }
    }
    drop(namespace);
    store.close().unwrap();
    at
}

/// The store's files with this suffix.
fn files(at: &Workplace, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(at.path("store")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(ending));
    paths.sort();
    paths
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn statistics_are_printed_as_text_and_as_json() {
    let at = wasteful(2000, 1000);
    let numbers = at.json(["stats", "--json"]);
    assert_eq!(
        (numbers["keys"].as_u64(), numbers["namespaces"].as_u64()),
        (Some(2000), Some(1))
    );
    let dead = numbers["dead_bytes"].as_u64().unwrap();
    // The record of the namespace is live too.
    let live = numbers["live_bytes"].as_u64().unwrap();
    assert!(dead > 2_000_000 && (dead..dead + 100).contains(&live), "{numbers}");
    assert_eq!(
        numbers["scrub"].to_string(),
        r#"{"bytes":0,"damaged_segments":0,"errors":[],"last_pass_ms":null,"passes":0}"#
    );
    let namespaces = numbers["by_namespace"].as_array().unwrap();
    let [namespace] = &namespaces[..] else {
        panic!("{numbers}")
    };
    assert_eq!((&namespace["name"], &namespace["keys"]), (&"N".into(), &2000.into()));
    assert_eq!(namespace["id"], at.json(["namespace", "list"])[0]["id"]);
    let held = namespace["live_bytes"].as_u64().unwrap();
    assert!((live - 100..live).contains(&held), "{numbers}");
    let text = at.text(["stats"]);
    for part in [
        "2,000 keys",
        "2,000 keys in N",
        "live",
        "dead",
        "expired",
        "segments",
        "bytes a key",
        "closed properly",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    // Nothing is compacted yet.
    assert!(!text.contains("compaction ") && numbers["segments"][0]["rewritten"] == false);
    at.fails(2, ["stats", "--every", "0"]);
}

#[test]
fn what_has_expired_is_told_apart_from_what_is_dead() {
    let at = Workplace::with_namespace();
    // Expired long ago by the clock of the command.
    let clock = ManualClock::new(1_700_000_000_000);
    let store = Store::options().clock(clock).open(at.path("store")).unwrap();
    let namespace = store.open_namespace("N").unwrap();
    let soon = PutOptions::new().ttl(std::time::Duration::from_millis(1));
    namespace.put_with("gone", vec![b'v'; 1000], soon).unwrap();
    namespace.put("overwritten", vec![b'v'; 2000]).unwrap();
    namespace.put("overwritten", "now").unwrap();
    drop(namespace);
    store.close().unwrap();
    // Each way of opening counts the same.
    for way in [Way::IndexFile, Way::Hints, Way::Records] {
        let prepared = way.prepare_directory(&at.path("store"));
        let numbers = at.json(["stats", "--json"]);
        prepared.assert_taken(&told_of_opening(&numbers["recovery"]));
        let (dead, expired) = (
            numbers["dead_bytes"].as_u64().unwrap(),
            numbers["expired_bytes"].as_u64().unwrap(),
        );
        assert!(
            (1000..1100).contains(&expired) && (3000..3200).contains(&dead),
            "{way:?}: {numbers}"
        );
    }
}

/// The recovery report in the statistics.
fn told_of_opening(numbers: &Value) -> RecoveryReport {
    let mut report = RecoveryReport::default();
    report.clean = numbers["clean"].as_bool().unwrap();
    report.index_file_used = numbers["index_file_used"].as_bool().unwrap();
    report.hints_used = numbers["hints_used"].as_u64().unwrap();
    report.hints_rebuilt = numbers["hints_rebuilt"].as_u64().unwrap();
    report.segments = numbers["segments"].as_u64().unwrap();
    report
}

#[test]
fn statistics_are_printed_again_until_ctrl_c() {
    let at = Workplace::with_namespace();
    let mut child = at.spawned(["stats", "--json", "--every", "0.05"]);
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let line: Value = serde_json::from_str(&shown.next().unwrap().unwrap()).unwrap();
        assert_eq!(line["keys"].as_u64(), Some(0));
    }
    interrupt(&child);
    assert!(shown.all(|line| line.is_ok()));
    assert!(child.wait().unwrap().success());
}

#[test]
fn compaction_gives_back_what_is_dead() {
    let at = wasteful(2000, 1000);
    let told = at.text(["compact"]);
    assert!(told.starts_with("Reclaimed ") && told.contains("runs"), "{told}");
    let numbers = at.json(["stats", "--json"]);
    assert_eq!(numbers["dead_bytes"].as_u64(), Some(0));
    let segments = numbers["segments"].as_array().unwrap();
    assert!(segments.iter().any(|segment| segment["rewritten"] == true), "{numbers}");
    assert!(at.text(["stats"]).contains("compaction "));
    assert_eq!(at.done(["key", "get", "-n", "N", "key-00001999"]), [1; 1000]);
}

#[test]
fn ctrl_c_in_the_middle_of_compaction_leaves_a_sound_store() {
    let at = overwritten(200_000, 1000, 2);
    // The later the signal, the more data is in new segments.
    for later_bytes in [0, 3 << 20, 12 << 20] {
        let known = files(&at, ".segment");
        let child = at.spawned(["compact"]);
        wait_until("a segment that compaction writes", || {
            let new = files(&at, ".segment").into_iter().filter(|file| !known.contains(file));
            new.map(|file| bytes_in(&file)).sum::<u64>() > later_bytes
        });
        interrupt(&child);
        stopped(child);
        at.done(["verify"]);
        assert_eq!(at.text(["key", "list", "-n", "N", "--count"]), "200000\n");
    }
    at.done(["compact"]);
    assert_eq!(at.json(["stats", "--json"])["dead_bytes"].as_u64(), Some(0));
}

#[test]
fn damage_sets_the_exit_status_even_if_the_pipe_is_closed() {
    let at = wasteful(2000, 1000);
    let newest = files(&at, ".segment").pop().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    for at in (5000..bytes.len()).step_by(2000) {
        bytes[at] ^= 1;
    }
    std::fs::write(&newest, &bytes).unwrap();
    for arguments in [
        &["verify"][..],
        &["salvage", "saved"],
        &["inspect", newest.to_str().unwrap()],
    ] {
        let mut child = at.spawned(arguments.iter().copied());
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        assert_eq!(output.stderr, b"");
    }
}

#[test]
fn damage_is_listed_and_what_is_sound_is_saved() {
    let at = wasteful(2000, 1000);
    assert!(at.text(["verify"]).starts_with("sound: "));
    assert_eq!(at.json(["verify", "--json"])["sound"], true);

    let newest = files(&at, ".segment").pop().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&newest, &bytes).unwrap();
    let output = at.run(["verify"]);
    assert_eq!(output.status.code(), Some(3));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        told.contains("damaged: checksum mismatch") && told.contains("1 range is damaged"),
        "{told}"
    );
    let output = at.run(["verify", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let range = &report["damaged"][0];
    let (offset, length) = (range["offset"].as_u64().unwrap(), range["length"].as_u64().unwrap());
    assert!((offset..offset + length).contains(&(middle as u64)), "{range}");

    let output = at.run(["salvage", "saved"]);
    assert_eq!(output.status.code(), Some(3));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("lost: ") && told.contains("saved 2,000 keys"), "{told}");
    assert_eq!(
        at.text(["--store", "saved", "key", "list", "-n", "N", "--count"]),
        "2000\n"
    );
    // Not into a directory with files.
    at.fails(2, ["salvage", "saved"]);

    let output = at.run(["inspect", newest.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stdout).unwrap().contains("DAMAGED"));
}

#[test]
fn a_sound_store_is_salvaged_whole() {
    let at = wasteful(100, 10);
    let saved = at.json(["salvage", "saved", "--json"]);
    assert_eq!(
        (saved["complete"].as_bool(), saved["keys"].as_u64()),
        (Some(true), Some(100))
    );
    at.fails(2, ["--store", "nowhere", "salvage", "other"]);
}

#[test]
fn a_checkpoint_is_a_store() {
    let at = wasteful(100, 10);
    let told = at.text(["checkpoint", "copy"]);
    assert!(told.contains("copy") && told.contains("segments"), "{told}");
    assert_eq!(
        at.text(["--store", "copy", "key", "list", "-n", "N", "--count"]),
        "100\n"
    );
    let told = at.fails(2, ["checkpoint", "copy"]);
    assert!(told.contains("empty"), "{told}");
}

#[test]
fn every_kind_of_file_is_shown_part_by_part() {
    let at = Workplace::with_namespace();
    at.done([
        "key",
        "put",
        "-n",
        "N",
        "a key",
        "a value",
        "--metadata",
        "{\"m\":1}",
        "--expiration",
        "4000000000",
    ]);
    at.done(["key", "put", "-n", "N", "deleted", "v"]);
    at.done(["key", "delete", "-n", "N", "deleted"]);
    std::fs::write(
        at.path("pairs.json"),
        r#"[{"key": "b1", "value": "1"}, {"key": "b2", "value": "2"}]"#,
    )
    .unwrap();
    at.done(["bulk", "put", "-n", "N", "pairs.json"]);

    let mut kinds = std::collections::BTreeMap::<String, u64>::new();
    for path in files(&at, ".segment") {
        let path = path.to_str().unwrap();
        let parts = lines(&at.text(["inspect", path, "--json"]));
        // Every byte of the file is in exactly one part.
        let mut end = 0;
        for part in &parts {
            assert_eq!(part["offset"].as_u64(), Some(end), "{part}");
            end += part["length"].as_u64().unwrap();
            *kinds.entry(part["kind"].as_str().unwrap().to_owned()).or_default() += 1;
            if part["fields"]["key"] == "a key" {
                let fields = &part["fields"];
                assert_eq!(fields["value"], "a value");
                assert_eq!(fields["metadata"], "{\"m\":1}");
                assert_eq!(fields["expiry_ms"].as_u64(), Some(4_000_000_000_000));
            }
        }
        assert_eq!(end, std::fs::metadata(path).unwrap().len(), "{path}");
        let text = at.text(["inspect", path]);
        assert_eq!(text.lines().count(), parts.len());
    }
    for kind in ["header", "start", "put", "tombstone", "batch", "seal"] {
        assert!(kinds.contains_key(kind), "{kind} is not in {kinds:?}");
    }
    assert_eq!(kinds["put"], 5, "with that of the namespace");

    for (ending, parts_min) in [(".hint", 2), ("MANIFEST", 2), ("INDEX", 4)] {
        let path = files(&at, ending).pop().unwrap();
        let path = path.to_str().unwrap();
        let parts = lines(&at.text(["inspect", path, "--json"]));
        assert!(parts.len() >= parts_min && parts[0]["kind"] == "header", "{parts:?}");
        let mut bytes = std::fs::read(path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(at.path("damaged"), &bytes).unwrap();
        let output = at.run(["inspect", "damaged"]);
        assert_eq!(output.status.code(), Some(3), "{path}");
    }
    std::fs::write(at.path("notes.txt"), "no file of a store").unwrap();
    at.fails(2, ["inspect", "notes.txt"]);
    at.fails(2, ["inspect", "missing"]);
}
