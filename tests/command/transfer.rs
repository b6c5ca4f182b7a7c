//! The command line: export and import.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::command::{Workplace, interrupt, stopped, wait_until};
use embercask::{Durability, PutOptions, Store};
use test_support::{StopOnDrop, at_least};

/// A line of one key.
const LINE: &str = "{\"namespace\":\"N\",\"key\":\"k\",\"value\":\"v\"}\n";

type Key = (String, Vec<u8>);
type Content = (Vec<u8>, Option<Vec<u8>>, Option<u64>);

/// The content of a store.
fn content(store: &Store) -> BTreeMap<Key, Content> {
    let mut all = BTreeMap::new();
    for info in store.namespaces().unwrap() {
        for entry in store.open_namespace(&info.name).unwrap().list().with_values() {
            let entry = entry.unwrap();
            let value = entry.value().unwrap();
            let content = (value.to_vec(), value.metadata().map(<[u8]>::to_vec), value.expiry_ms());
            all.insert((info.name.clone(), entry.key().to_vec()), content);
        }
    }
    all
}

fn ids(store: &Store) -> Vec<(String, u128)> {
    store
        .namespaces()
        .unwrap()
        .into_iter()
        .map(|info| (info.name, info.id))
        .collect()
}

/// A store with every kind of data: any bytes, with and without metadata that is JSON, is not, or
/// almost is.
fn filled(keys: u32) -> Workplace {
    let at = Workplace::with_namespace();
    let store = at.store();
    store.namespace("empty").unwrap();
    let other = store.namespace("other: ü\n\"").unwrap();
    let namespace = store.open_namespace("N").unwrap();
    let metadata: [&[u8]; 8] = [
        b"{\"a\": 1.50}",
        b"null",
        b" 1",
        b"[1,\n2]",
        b"\xff",
        b"",
        b"\"text\"",
        b"{\"a\": {}",
    ];
    for n in 0..keys {
        let mut options = PutOptions::new();
        if n % 3 == 0 {
            options = options.metadata(metadata[n as usize / 3 % metadata.len()]);
        }
        if n % 4 == 0 {
            options = options.expires_at_ms(4_000_000_000_001 + u64::from(n));
        }
        let mut key = n.wrapping_mul(2_654_435_761).to_be_bytes().to_vec();
        key.extend_from_slice(b" key");
        let value: Vec<u8> = if n % 2 == 0 {
            format!("text {n} \\ \" \u{1F525} \n").into_bytes()
        } else {
            (0..=255)
                .cycle()
                .skip(n as usize % 256)
                .take(n as usize % 700)
                .collect()
        };
        let to = if n % 5 == 0 { &other } else { &namespace };
        to.put_with(&key, &value, options).unwrap();
    }
    drop((namespace, other));
    store.close().unwrap();
    at
}

fn opened(at: &Workplace, name: &str) -> Store {
    Store::options().create(false).open(at.path(name)).unwrap()
}

/// Of four keys, one has a damaged value, and another metadata and a damaged value.
#[test]
fn damaged_keys_are_named_and_the_others_are_exported_listed_and_got() {
    let at = Workplace::with_namespace();
    let store = at.store();
    let namespace = store.open_namespace("N").unwrap();
    for key in ["first", "plain\u{1b}[2J", "rich", "last"] {
        let mut options = PutOptions::new();
        if key == "rich" {
            options = options.metadata("{}");
        }
        namespace.put_with(key, format!("the value of {key}"), options).unwrap();
    }
    drop(namespace);
    store.close().unwrap();
    at.damage(b"the value of plain");
    at.damage(b"the value of rich");
    let named = |errors: &[u8], keys: &[&str]| {
        let errors = String::from_utf8(errors.to_vec()).unwrap();
        let told: Vec<_> = errors.lines().filter(|line| line.starts_with("damaged: ")).collect();
        assert_eq!(told.len(), keys.len(), "{errors}");
        for (line, key) in told.iter().zip(keys) {
            assert!(line.contains(&format!("key {key:?}")), "{errors}");
        }
        assert!(errors.contains("embercask salvage"), "{errors}");
    };

    let output = at.run(["key", "list", "-n", "N", "--text"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout, b"first\nlast\nplain\\x1b[2J\nrich\n");
    named(&output.stderr, &["rich"]);
    assert_eq!(at.text(["key", "list", "-n", "N", "--count"]), "4\n");

    let keys = ["get", "-n", "N", "first", "plain\u{1b}[2J", "no", "rich", "last"];
    let output = at.run(keys);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        output.stdout,
        b"==> first <==\nthe value of first\n==> last <==\nthe value of last\n"
    );
    named(&output.stderr, &["plain\u{1b}[2J", "rich"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no key \"no\""));
    let told = at.fails(3, ["get", "-n", "N", "rich"]);
    assert!(told.starts_with("error: ") && told.contains("key \"rich\""), "{told}");

    let output = at.run(["export", "all"]);
    assert_eq!(output.status.code(), Some(3));
    named(&output.stderr, &["plain\u{1b}[2J", "rich"]);
    let exported = std::fs::read_to_string(at.path("all")).unwrap();
    let lines: Vec<_> = exported.lines().skip(2).collect();
    assert!(
        lines.len() == 3 && lines[0].contains("first") && lines[1].contains("last"),
        "{exported}"
    );
    assert_eq!(lines[2], r#"{"end":true,"lines":3}"#);
    at.done(["--store", "other", "namespace", "create", "N"]);
    assert_eq!(
        at.text(["--store", "other", "import", "all"]),
        "Imported 2 keys.\n",
        "a file that lacks damaged keys is whole"
    );
    assert_eq!(
        at.text(["--store", "other", "key", "list", "-n", "N", "--text"]),
        "first\nlast\n"
    );
    let output = at.run(["export", "pairs", "-n", "N", "--format", "bulk"]);
    assert_eq!(output.status.code(), Some(3));
    let pairs: serde_json::Value = serde_json::from_slice(&std::fs::read(at.path("pairs")).unwrap()).unwrap();
    assert_eq!(pairs.as_array().unwrap().len(), 2);

    std::fs::write(at.path("names"), br#"["first", "rich", "absent", "last"]"#).unwrap();
    let output = at.run(["bulk", "get", "-n", "N", "names"]);
    assert_eq!(output.status.code(), Some(3));
    named(&output.stderr, &["rich"]);
    let got: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = serde_json::json!({ "first": "the value of first", "absent": null, "last": "the value of last" });
    assert_eq!(got, expected);
}

#[test]
fn what_is_exported_comes_back_byte_for_byte() {
    let at = filled(3000);
    let before = content(&at.store());
    assert_eq!(before.len(), 3000);
    for file in ["all.jsonl", "all.jsonl.gz", "all.jsonl.zst"] {
        let output = at.run(["export", file]);
        assert!(output.status.success() && output.stdout.is_empty());
        assert!(!at.path(&format!("{file}.partial")).exists());
        let copy = format!("copy of {file}");
        let output = at.run(["--store", &copy, "import", file]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "Imported 3,000 keys.\n");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.success() && told.contains("the key is not text (UTF-8), beyond"),
            "{told}"
        );
        let copied = opened(&at, &copy);
        assert_eq!(content(&copied), before, "{file}");
        assert_eq!(ids(&copied), ids(&at.store()));
    }
    let plain = std::fs::metadata(at.path("all.jsonl")).unwrap().len();
    let packed = std::fs::metadata(at.path("all.jsonl.zst")).unwrap().len();
    assert!(packed < plain, "{packed} of {plain}");
    assert!(!at.path("all.jsonl.progress").exists());
}

#[test]
fn pipes_will_do() {
    let at = filled(500);
    let lines = at.done(["--quiet", "export", "-"]);
    let output = at.fed(["--store", "copy", "import", "-"], &lines);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(content(&opened(&at, "copy")), content(&at.store()));
}

#[test]
fn settings_of_namespaces_come_back_and_do_not_change_what_is_imported() {
    let hour = Duration::from_secs(3600);
    let at = Workplace::with_namespace();
    let store = at.store();
    let namespace = store.open_namespace("N").unwrap();
    namespace.put("stays", "v").unwrap();
    namespace.set_default_ttl(Some(hour)).unwrap();
    namespace.put("expires", "v").unwrap();
    let expected = content(&store);
    drop(namespace);
    store.close().unwrap();
    at.done(["--quiet", "export", "all.jsonl"]);
    let exported = std::fs::read_to_string(at.path("all.jsonl")).unwrap();
    assert!(exported.contains("\"default_ttl_ms\":3600000}"), "{exported}");
    at.done(["--store", "other", "import", "all.jsonl"]);
    let other = opened(&at, "other");
    assert_eq!(content(&other), expected);
    assert_eq!(other.open_namespace("N").unwrap().default_ttl(), Some(hour));
    // A setting that is there is replaced as keys are, or stays as they do.
    let set = |ttl| other.open_namespace("N").unwrap().set_default_ttl(Some(ttl)).unwrap();
    set(Duration::from_secs(1));
    drop(other.clone().close());
    at.done(["--store", "other", "import", "--if-absent", "all.jsonl"]);
    let default_ttl = |at: &Workplace| opened(at, "other").open_namespace("N").unwrap().default_ttl();
    assert_eq!(default_ttl(&at), Some(Duration::from_secs(1)));
    at.done(["--store", "other", "import", "all.jsonl"]);
    assert_eq!(default_ttl(&at), Some(hour));
    // An export without the setting, as by earlier versions, leaves it alone.
    let earlier = exported.replace(",\"default_ttl_ms\":3600000", "");
    std::fs::write(at.path("earlier.jsonl"), earlier).unwrap();
    at.done(["--store", "other", "import", "earlier.jsonl"]);
    assert_eq!(default_ttl(&at), Some(hour));
    assert_eq!(content(&opened(&at, "other")), expected);
    at.done(["--store", "third", "import", "earlier.jsonl"]);
    assert_eq!(content(&opened(&at, "third")), expected);
    // Into a namespace of another name go keys only.
    at.done(["--store", "third", "import", "all.jsonl", "-n", "M"]);
    assert_eq!(opened(&at, "third").open_namespace("M").unwrap().default_ttl(), None);
}

/// Each batch changes both namespaces, so that an export of one moment has them equal.
#[test]
fn an_export_beside_a_program_that_writes_is_of_one_moment() {
    let at = Workplace::with_namespace();
    let store = Store::options()
        .segment_bytes(64 << 10)
        .waste_ceiling(1.1)
        .durability(Durability::Os)
        .open(at.path("store"))
        .unwrap();
    let (first, second) = (store.namespace("A").unwrap(), store.namespace("B").unwrap());
    for n in 0..3000 {
        first.put(format!("key {n:05}"), "v").unwrap();
    }
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let write = || {
        let number = written.fetch_add(1, Ordering::AcqRel) + 1;
        let mut batch = store.batch();
        batch.put(&first, "number", format!("{number}"));
        batch.put(&first, format!("key {:05}", number % 3000), "v".repeat(100));
        batch.put(&second, "number", format!("{number}")).commit().unwrap();
    };
    write();
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                write();
            }
        });
        for _ in 0..10 {
            let exported = at.text(["--quiet", "export", "-"]);
            let numbers: Vec<_> = exported
                .lines()
                .filter(|line| line.contains("\"key\":\"number\""))
                .collect();
            let value = |line: &str| line.split_once("\"value\":").map(|(_, value)| value.to_owned());
            assert_eq!(numbers.len(), 2, "{numbers:?}");
            assert_eq!(value(numbers[0]), value(numbers[1]));
            assert_eq!(exported.lines().count(), 3000 + 2 + 5);
        }
    });
    at_least(100, written.into_inner(), "batches");
}

#[test]
fn parts_are_exported_and_go_elsewhere() {
    let at = Workplace::with_namespace();
    for key in ["a1", "a2", "b1"] {
        at.done(["key", "put", "-n", "N", key, "v"]);
    }
    at.done(["--quiet", "export", "-n", "N", "--prefix", "a", "part.jsonl"]);
    at.done(["namespace", "create", "M"]);
    at.done(["key", "put", "-n", "M", "a1", "was there"]);
    let told = at.text(["import", "part.jsonl", "-n", "M", "--if-absent"]);
    assert_eq!(told, "Imported 1 keys. 1 were there already.\n");
    assert_eq!(at.text(["key", "list", "-n", "M", "--text"]), "a1\na2\n");
    assert_eq!(at.text(["key", "get", "-n", "M", "a1"]), "was there");
    at.done(["import", "part.jsonl", "-n", "M"]);
    assert_eq!(at.text(["key", "get", "-n", "M", "a1"]), "v");
}

#[test]
fn a_bulk_file_is_one_that_bulk_put_takes() {
    let at = Workplace::with_namespace();
    let store = at.store();
    let namespace = store.open_namespace("N").unwrap();
    namespace.put("text", "v").unwrap();
    namespace.put("bytes", b"\xff\0").unwrap();
    // Pretty-printed, not on one line.
    let options = PutOptions::new()
        .metadata("{\n  \"a\": 1\n}")
        .expires_at_ms(4_000_000_000_000);
    namespace.put_with("all", "v", options).unwrap();
    drop(namespace);
    store.close().unwrap();
    at.done(["--quiet", "export", "-n", "N", "--format", "bulk", "n.json"]);
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(at.path("n.json")).unwrap()).unwrap();
    let expected = serde_json::json!([
        {"key": "all", "value": "v", "expiration": 4_000_000_000_u64, "metadata": {"a": 1}},
        {"key": "bytes", "value": "/wA=", "base64": true},
        {"key": "text", "value": "v"},
    ]);
    assert_eq!(written, expected);
    at.done(["namespace", "create", "M"]);
    at.done(["bulk", "put", "-n", "M", "n.json"]);
    at.done(["import", "-n", "O", "--format", "bulk", "n.json"]);
    let all = content(&at.store());
    for ((namespace, key), content) in &all {
        assert_eq!(all.get(&("N".to_owned(), key.clone())), Some(content), "{namespace}");
    }
    assert_eq!(all.len(), 9);
    // Data that such a file cannot express is an error, not dropped silently.
    at.done([
        "--quiet",
        "key",
        "put",
        "-n",
        "N",
        "/w==",
        "v",
        "--key-format",
        "base64",
    ]);
    let told = at.fails(2, ["--quiet", "export", "-n", "N", "--format", "bulk", "m.json"]);
    assert!(
        told.contains("--format lines") && !at.path("m.json.partial").exists(),
        "{told}"
    );
    at.done(["key", "delete", "-n", "N", "/w==", "--key-format", "base64"]);
    for metadata in ["null", " 1"] {
        let store = at.store();
        let options = PutOptions::new().metadata(metadata);
        store.open_namespace("N").unwrap().put_with("k", "v", options).unwrap();
        store.close().unwrap();
        at.fails(2, ["--quiet", "export", "-n", "N", "--format", "bulk", "m.json"]);
    }
    at.fails(2, ["export", "--format", "bulk", "m.json"]);
}

/// Resumes an export; returns the number of keys written by this run.
fn resumed(at: &Workplace, file: &str) -> u64 {
    let output = at.run(["export", "--resume", file]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    let number = told
        .strip_prefix("Exported ")
        .and_then(|rest| rest.strip_suffix(" keys.\n"));
    number
        .unwrap_or_else(|| panic!("{told}"))
        .replace(',', "")
        .parse()
        .unwrap()
}

#[test]
fn an_export_goes_on_where_it_was_cut_off() {
    let at = filled(2000);
    for file in ["all.jsonl", "all.jsonl.gz", "all.jsonl.zst"] {
        at.done(["--quiet", "export", file]);
        let whole = std::fs::read(at.path(file)).unwrap();
        let partial = at.path(&format!("{file}.partial"));
        for part in [0, 1, 50, whole.len() / 3, whole.len() - 1, whole.len()] {
            std::fs::write(&partial, &whole[..part]).unwrap();
            std::fs::remove_file(at.path(file)).unwrap();
            let keys = resumed(&at, file);
            let kept = if file == "all.jsonl" {
                // All whole lines except those without a key: the first, three namespaces, the
                // last.
                let kept = &whole[..part];
                let lines: Vec<&[u8]> = kept.split_inclusive(|byte| *byte == b'\n').collect();
                let is_key = |line: &&&[u8]| {
                    line.ends_with(b"\n") && line.windows(5).any(|bytes| bytes == b"\"key\"" || bytes == b"\"key_")
                };
                lines.iter().filter(is_key).count()
            } else if part == whole.len() {
                2000
            } else {
                // The file has only one frame, and an incomplete frame is written again.
                0
            };
            assert_eq!(keys, 2000 - kept as u64, "{file} from {part} of {}", whole.len());
            assert!(!partial.exists());
            let copy = format!("{file} from {part}");
            at.done(["--quiet", "--store", &copy, "import", file]);
            assert_eq!(content(&opened(&at, &copy)), content(&at.store()), "{copy}");
        }
    }
    for path in ["-", "/dev/null"] {
        at.fails(2, ["--quiet", "export", "--resume", path]);
    }
    for directory in [".", "store", "new/"] {
        at.fails(2, ["--quiet", "export", directory]);
    }
    // With nothing to resume, starts over; does not append to a file that is not an export.
    at.done(["--quiet", "export", "--resume", "new.jsonl"]);
    std::fs::write(at.path("notes.jsonl.partial"), "something else\n").unwrap();
    at.fails(2, ["--quiet", "export", "--resume", "notes.jsonl"]);
    assert_eq!(
        std::fs::read(at.path("notes.jsonl.partial")).unwrap(),
        b"something else\n"
    );
}

/// Sends part of an export through a pipe that stays open, and Ctrl-C once the store has some of
/// it.
fn import_stopped(at: &Workplace, store: &str, part: &[u8]) -> String {
    let mut child = at.spawned([
        "--quiet",
        "--store",
        store,
        "import",
        "-",
        "--progress-file",
        "kept",
        "--os",
    ]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(part).unwrap();
    let is_written = |path: &std::path::Path| {
        let is_segment = path.extension().is_some_and(|suffix| suffix == "segment");
        is_segment && std::fs::read(path).is_ok_and(|bytes| bytes.iter().rposition(|byte| *byte != 0) > Some(10_000))
    };
    wait_until("a batch", || {
        let files = std::fs::read_dir(at.path(store)).into_iter().flatten();
        files.filter_map(Result::ok).any(|file| is_written(&file.path()))
    });
    interrupt(&child);
    let told = stopped(child);
    drop(stdin);
    told
}

/// A compressed file has a frame for every 8 MiB; only the last is cut off.
#[test]
fn a_large_export_goes_on_between_its_parts() {
    let at = Workplace::with_namespace();
    let store = at.store();
    let namespace = store.open_namespace("N").unwrap();
    for n in 0..1200_u32 {
        let value: Vec<u8> = (0..20_000_u32).map(|i| (i.wrapping_mul(n + 1) >> 7) as u8).collect();
        namespace.put(n.to_be_bytes(), value).unwrap();
    }
    drop(namespace);
    store.close().unwrap();
    for file in ["all.jsonl.gz", "all.jsonl.zst", "all.jsonl"] {
        at.done(["--quiet", "export", file]);
        let whole = std::fs::read(at.path(file)).unwrap();
        for part in [whole.len() / 2, whole.len() - 100] {
            let mut left = whole[..part].to_vec();
            if file == "all.jsonl" {
                // Zeros, as a power cut may leave them.
                left[part / 2..part / 2 + 4096].fill(0);
            }
            std::fs::write(at.path(&format!("{file}.partial")), left).unwrap();
            let keys = resumed(&at, file);
            // A plain file is kept up to the zeros, a compressed one without the frame that was cut
            // off; a frame is about a quarter.
            let is_half = part == whole.len() / 2;
            let most = match file {
                "all.jsonl" => 1200 - 1200 * (part / 2) / whole.len() + 10,
                _ if is_half => 1000,
                _ => 400,
            };
            assert!(
                (1..=most as u64).contains(&keys),
                "{file} from {part} of {}: {keys}",
                whole.len()
            );
            let copy = format!("{file} from {part}");
            at.done(["--quiet", "--store", &copy, "import", file]);
            assert!(content(&opened(&at, &copy)) == content(&at.store()), "{copy}");
        }
    }
}

#[test]
fn an_import_that_waits_is_stopped_and_goes_on() {
    let at = filled(5000);
    at.done(["--quiet", "export", "all.jsonl"]);
    let lines = std::fs::read(at.path("all.jsonl")).unwrap();
    let part = &lines[..lines.len() * 2 / 3];
    let told = import_stopped(&at, "copy", part);
    assert!(told.contains("--resume continues"), "{told}");
    let first = opened(&at, "copy");
    let had = content(&first).len();
    assert!(
        (1000..5000).contains(&had) && told.contains("lines are in the store"),
        "{had} {told}"
    );
    first.close().unwrap();

    // The note is refused for another store, namespace, format or input.
    let resume = ["import", "all.jsonl", "--resume", "--progress-file", "kept"];
    let of = |more: &[&'static str]| resume.iter().chain(more).copied().collect::<Vec<_>>();
    at.fails(2, of(&["--store", "other"]));
    at.fails(2, of(&["--store", "copy", "-n", "N"]));
    at.fails(2, of(&["--store", "copy", "--if-absent"]));
    at.fails(2, of(&["--store", "copy", "-n", "N", "--format", "bulk"]));
    let mut changed = lines.clone();
    let at_fourth = lines
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .nth(3)
        .unwrap()
        .0;
    changed.insert(at_fourth, b' ');
    std::fs::write(at.path("changed.jsonl"), &changed).unwrap();
    let told = at.fails(
        2,
        [
            "--store",
            "copy",
            "import",
            "changed.jsonl",
            "--resume",
            "--progress-file",
            "kept",
        ],
    );
    assert!(told.contains("does not begin with what was imported"), "{told}");
    let output = at.fed(
        ["--store", "copy", "import", "-", "--resume", "--progress-file", "kept"],
        &lines[..1000],
    );
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(content(&opened(&at, "copy")).len(), had);

    let output = at.run(of(&["--store", "copy"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(!told.contains("Imported 5,000") && told.contains("keys"), "{told}");
    assert_eq!(content(&opened(&at, "copy")), content(&at.store()));
    assert_eq!(ids(&opened(&at, "copy")), ids(&at.store()));
    assert!(!at.path("kept").exists());
}

#[test]
fn an_older_copy_of_a_store_is_not_gone_on_with() {
    let at = filled(5000);
    at.done(["--quiet", "export", "all.jsonl"]);
    let lines = std::fs::read(at.path("all.jsonl")).unwrap();
    at.done(["--store", "copy", "namespace", "create", "A"]);
    std::fs::create_dir(at.path("older")).unwrap();
    for entry in std::fs::read_dir(at.path("copy")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), at.path("older").join(entry.file_name())).unwrap();
    }
    import_stopped(&at, "copy", &lines[..lines.len() / 2]);
    let told = at.fails(
        2,
        [
            "--store",
            "older",
            "import",
            "all.jsonl",
            "--resume",
            "--progress-file",
            "kept",
        ],
    );
    assert!(told.contains("newer copy"), "{told}");
    // An import from the beginning removes the old note.
    at.done([
        "--quiet",
        "--store",
        "older",
        "import",
        "all.jsonl",
        "--progress-file",
        "kept",
    ]);
    assert!(!at.path("kept").exists());
}

#[test]
fn an_import_is_good_without_a_note_of_how_far_it_has_come() {
    let at = filled(100);
    at.done(["--quiet", "export", "all.jsonl"]);
    // The name of the note is taken by a directory.
    std::fs::create_dir_all(at.path("all.jsonl.progress/in the way")).unwrap();
    let output = at.run(["--store", "copy", "import", "all.jsonl"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.contains("all.jsonl.progress"), "{told}");
    assert_eq!(content(&opened(&at, "copy")), content(&at.store()));
    // A progress file that the user named must be writable.
    at.fails(
        5,
        [
            "--store",
            "b",
            "import",
            "all.jsonl",
            "--progress-file",
            "all.jsonl.progress",
        ],
    );
    at.fails(
        2,
        ["--store", "b", "import", "all.jsonl", "--progress-file", "missing/file"],
    );
    at.fails(2, ["import", "--resume", "-"]);
    std::fs::write(at.path("nonsense"), "nonsense").unwrap();
    at.fails(2, ["import", "--resume", "all.jsonl", "--progress-file", "nonsense"]);
    let output = at.run([
        "--store",
        "c",
        "import",
        "--resume",
        "all.jsonl",
        "--progress-file",
        "new",
    ]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.contains("at the beginning"), "{told}");
}

#[test]
fn an_export_that_was_cut_off_is_imported_but_told() {
    let at = filled(500);
    at.done(["--quiet", "export", "all.jsonl"]);
    let whole = String::from_utf8(std::fs::read(at.path("all.jsonl")).unwrap()).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    assert!(lines[0].starts_with("{\"export\":1,\"store\":\""), "{}", lines[0]);
    let end = format!("{{\"end\":true,\"lines\":{}}}", lines.len() - 2);
    assert_eq!(lines[lines.len() - 1], end);
    let import = |name: &str, lines: &[&str]| {
        std::fs::write(at.path(name), lines.join("\n") + "\n").unwrap();
        let store = format!("store of {name}");
        let output = at.run(["--store", &store, "import", name]);
        let keys = content(&opened(&at, &store)).len();
        (output.status.code(), String::from_utf8(output.stderr).unwrap(), keys)
    };
    let (status, told, keys) = import("cut", &lines[..lines.len() - 10]);
    assert!(
        told.contains("cut off") && told.contains("lines are in the store"),
        "{told}"
    );
    assert_eq!((status, keys), (Some(2), 491));
    // With the rest of the file, the import resumes.
    std::fs::write(at.path("cut"), &whole).unwrap();
    at.done(["--quiet", "--store", "store of cut", "import", "cut", "--resume"]);
    assert_eq!(content(&opened(&at, "store of cut")), content(&at.store()));

    let mut gap = lines.clone();
    gap.drain(100..105);
    let (status, told, keys) = import("gap", &gap);
    assert!(told.contains("lines, but "), "{told}");
    assert_eq!((status, keys), (Some(2), 495));
    // Lines without a header; two exports in one file; an export inside an unfinished one.
    assert_eq!(import("part", &lines[200..300]).0, Some(0));
    assert_eq!(import("twice", &[&lines[..], &lines[..]].concat()).0, Some(0));
    assert_eq!(import("torn", &[&lines[..50], &lines[..]].concat()).0, Some(2));
    let (status, told, _) = import("newer", &["{\"export\":2,\"colour\":\"red\"}"]);
    assert_eq!(status, Some(2), "{told}");
}

#[test]
fn a_compressed_file_that_is_cut_off_is_wrong_input() {
    let at = filled(500);
    for file in ["all.jsonl.gz", "all.jsonl.zst"] {
        at.done(["--quiet", "export", file]);
        let whole = std::fs::read(at.path(file)).unwrap();
        let cut = format!("cut {file}");
        std::fs::write(at.path(&cut), &whole[..whole.len() / 2]).unwrap();
        let told = at.fails(2, ["--store", "copy", "import", &cut]);
        assert!(told.contains("cannot read"), "{told}");
        std::fs::write(at.path(&cut), "none at all").unwrap();
        at.fails(2, ["--store", "copy", "import", &cut]);
    }
}

#[test]
fn a_name_does_not_promise_another_compression() {
    let at = filled(50);
    for name in [
        "all.xz",
        "all.jsonl.bz2",
        "all.LZ4",
        "all.br",
        "all.zip",
        "all.7z",
        "all.Z",
        "all.tar.gz.tgz",
    ] {
        let told = at.fails(2, ["--quiet", "export", name]);
        assert!(told.contains(name) && told.contains(".zst"), "{told}");
        let told = at.fails(2, ["--quiet", "export", "-n", "N", "--resume", name]);
        assert!(told.contains(name), "{told}");
        assert!(!at.path(name).exists() && !at.path(&format!("{name}.partial")).exists());
    }
    // The content decides how a file is read, from a pipe too.
    at.done(["--quiet", "export", "all.jsonl.ZST"]);
    at.done(["--quiet", "export", "all.jsonl.gz"]);
    std::fs::rename(at.path("all.jsonl.ZST"), at.path("renamed.xz")).unwrap();
    at.done(["--quiet", "--store", "copy", "import", "renamed.xz"]);
    assert_eq!(content(&opened(&at, "copy")), content(&at.store()));
    let packed = std::fs::read(at.path("all.jsonl.gz")).unwrap();
    let output = at.fed(["--store", "another", "import", "-"], &packed);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(content(&opened(&at, "another")), content(&at.store()));
    // With a mark in front, and with the line ends of Windows.
    at.done(["--quiet", "export", "all.jsonl"]);
    let text = std::fs::read_to_string(at.path("all.jsonl")).unwrap();
    std::fs::write(
        at.path("edited.jsonl"),
        format!("\u{feff}{}", text.replace('\n', "\r\n")),
    )
    .unwrap();
    at.done(["--quiet", "--store", "edited", "import", "edited.jsonl"]);
    assert_eq!(content(&opened(&at, "edited")), content(&at.store()));
    std::fs::write(at.path("wrong.jsonl"), b"\xfd7zXZ\0more").unwrap();
    let told = at.fails(2, ["--store", "none", "import", "wrong.jsonl"]);
    assert!(told.contains("compressed with xz"), "{told}");
    assert!(
        !at.path("none").exists(),
        "a store was created for a file that cannot be read"
    );
}

/// A link to the program's own output stands for `/dev/stdout`.
#[cfg(unix)]
#[test]
fn an_export_through_a_link_leaves_the_link_and_writes_where_it_leads() {
    let at = Workplace::with_namespace();
    at.done(["key", "put", "-n", "N", "k", "v"]);
    let expected = at.text(["--quiet", "export", "-"]);
    std::fs::create_dir(at.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere/all", at.path("all.jsonl")).unwrap();
    std::os::unix::fs::symlink("all.jsonl", at.path("again.jsonl")).unwrap();
    for (link, target) in [("all.jsonl", "elsewhere/all"), ("again.jsonl", "all.jsonl")] {
        at.done(["--quiet", "export", link]);
        assert_eq!(std::fs::read_link(at.path(link)).unwrap().to_str(), Some(target));
        assert_eq!(std::fs::read_to_string(at.path("elsewhere/all")).unwrap(), expected);
        std::fs::rename(at.path("elsewhere/all"), at.path("elsewhere/all.partial")).unwrap();
        at.done(["--quiet", "export", "--resume", link]);
        assert_eq!(std::fs::read_to_string(at.path("elsewhere/all")).unwrap(), expected);
        std::fs::remove_file(at.path("elsewhere/all")).unwrap();
    }
    // The name of the link, not of the file, chooses the compression.
    std::os::unix::fs::symlink("elsewhere/all", at.path("all.jsonl.gz")).unwrap();
    at.done(["--quiet", "export", "all.jsonl.gz"]);
    assert!(
        std::fs::read(at.path("elsewhere/all"))
            .unwrap()
            .starts_with(b"\x1f\x8b")
    );

    std::os::unix::fs::symlink("/dev/fd/1", at.path("output")).unwrap();
    std::fs::write(at.path("written"), "before\n").unwrap();
    let written = std::fs::OpenOptions::new()
        .append(true)
        .open(at.path("written"))
        .unwrap();
    let mut command = at.command(["--quiet", "export", "output"]);
    assert!(command.stdout(written).status().unwrap().success());
    assert_eq!(
        std::fs::read_to_string(at.path("written")).unwrap(),
        format!("before\n{expected}")
    );
    assert!(std::fs::read_link(at.path("output")).is_ok() && !at.path("output.partial").exists());
    at.fails(2, ["--quiet", "export", "--resume", "output"]);
}

#[cfg(unix)]
#[test]
fn an_import_from_an_open_file_leaves_no_note_beside_it() {
    let at = Workplace::with_namespace();
    std::fs::write(at.path("lines"), format!("{LINE}wrong\n")).unwrap();
    std::os::unix::fs::symlink("/dev/fd/0", at.path("input")).unwrap();
    let mut command = at.command(["import", "input"]);
    let lines = std::fs::File::open(at.path("lines")).unwrap();
    let output = command.stdin(lines).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("input, line 2: expected value") && !told.contains("--resume"),
        "{told}"
    );
    assert!(!at.path("input.progress").exists());
    assert_eq!(at.text(["key", "get", "-n", "N", "k"]), "v");
}

/// Browsers unpack what a server sends compressed, and keep the name.
#[test]
fn a_file_that_is_not_compressed_is_read_whatever_its_name() {
    let at = Workplace::with_namespace();
    for name in ["a.gz", "a.jsonl.zst", "a.zip", "a.xz"] {
        for mark in ["", "\u{feff}", "\r\n"] {
            std::fs::write(at.path(name), format!("{mark}{LINE}")).unwrap();
            assert_eq!(at.text(["import", name]), "Imported 1 keys.\n", "{name}");
        }
        std::fs::write(at.path(name), "").unwrap();
        at.fails(2, ["import", name]);
    }
}

/// What the server cannot serve is told, or refused if the user wants it so.
#[test]
fn pairs_beyond_the_limits_of_workers_kv_are_told_or_refused() {
    let at = Workplace::with_namespace();
    let (long, large) = ("k".repeat(513), "v".repeat((25 << 20) + 1));
    let metadata = format!("\"{}\"", "m".repeat(1023));
    for (key, value, metadata, why) in [
        (&*long, "v", "1", "the key is longer than 512 bytes"),
        (".", "v", "1", "which no URL can name"),
        ("..", "v", "1", "which no URL can name"),
        ("k", &large, "1", "the value is larger than 25 MiB"),
        ("k", "v", &metadata, "the metadata is longer than 1024 bytes"),
    ] {
        let pair = format!("[{{\"key\":\"{key}\",\"value\":\"{value}\",\"metadata\":{metadata}}}]");
        let line = format!("{{\"namespace\":\"N\",{}\n", pair.trim_matches(['[', ']', '{']));
        std::fs::write(at.path("pairs"), pair).unwrap();
        std::fs::write(at.path("lines"), line).unwrap();
        std::fs::write(at.path("value"), value).unwrap();
        for arguments in [
            &["bulk", "put", "-n", "N", "pairs"][..],
            &["import", "-n", "N", "--format", "bulk", "pairs"],
            &["import", "lines"],
            &["key", "put", "-n", "N", key, "--path", "value", "--metadata", metadata],
        ] {
            let strict = arguments.iter().copied().chain(["--workers-kv-limits"]);
            let told = at.fails(2, strict);
            assert!(told.contains(why) && told.contains("hint: "), "{told}");
            assert_eq!(at.text(["key", "list", "-n", "N", "--count"]), "0\n", "{arguments:?}");
            let output = at.run(arguments.iter().copied());
            let told = String::from_utf8(output.stderr).unwrap();
            assert!(
                output.status.success() && told.contains(why) && told.lines().count() == 1,
                "{told}"
            );
            assert_eq!(at.text(["key", "list", "-n", "N", "--count"]), "1\n", "{arguments:?}");
            at.done(["--quiet", "key", "delete", "-n", "N", key]);
        }
    }
    // Many are told in one line.
    let lines: String = (0..3000)
        .map(|n| format!("{{\"namespace\":\"N\",\"key\":\"{long}{n}\",\"value\":\"v\"}}\n"))
        .collect();
    std::fs::write(at.path("lines"), lines).unwrap();
    let told = String::from_utf8(at.run(["import", "lines"]).stderr).unwrap();
    assert!(told.contains("(and 2,999 more)") && told.lines().count() == 1, "{told}");
}

#[test]
fn only_the_same_export_is_gone_on_with() {
    let at = filled(500);
    at.done(["--quiet", "export", "-n", "N", "part.jsonl"]);
    let partial = at.path("all.jsonl.partial");
    std::fs::rename(at.path("part.jsonl"), &partial).unwrap();
    let before = std::fs::read(&partial).unwrap();
    at.done(["--store", "other", "namespace", "create", "N"]);
    for arguments in [
        &["export", "--resume", "all.jsonl"][..],
        &["export", "--resume", "all.jsonl", "-n", "N", "--prefix", "a"],
        &["--store", "other", "export", "--resume", "all.jsonl", "-n", "N"],
    ] {
        let told = at.fails(2, arguments.iter().copied());
        assert!(told.contains("not an export of the same"), "{told}");
        assert_eq!(std::fs::read(&partial).unwrap(), before);
    }
    at.done(["--quiet", "export", "--resume", "all.jsonl", "-n", "N"]);
    assert_eq!(std::fs::read(at.path("all.jsonl")).unwrap(), before);
}

#[test]
fn what_is_no_file_is_written_to_as_it_is() {
    let at = filled(500);
    at.done(["--quiet", "export", "/dev/null"]);
    assert!(!std::path::Path::new("/dev/null.partial").exists());
    let pipe = at.path("pipe.jsonl");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let child = at.spawned(["--quiet", "--store", "copy", "import", "pipe.jsonl"]);
    at.done(["--quiet", "export", "pipe.jsonl"]);
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(content(&opened(&at, "copy")), content(&at.store()));
}

#[test]
fn a_line_that_is_wrong_is_told_by_its_number() {
    let at = Workplace::with_namespace();
    for (line, expected) in [
        ("nonsense", "line 2"),
        (r#"{"namespace": "N", "key": "k"}"#, "no value"),
        (r#"{"namespace": "N", "value": "v"}"#, "no key"),
        (r#"{"key": "k", "value": "v"}"#, "namespace"),
        (r#"{"namespace": "N", "key": "k", "value": "v", "colour": 1}"#, "colour"),
        (
            r#"{"namespace": "N", "key": "k", "key_base64": "aw==", "value": "v"}"#,
            "key_base64",
        ),
        (r#"{"namespace": "N", "key_base64": "?", "value": "v"}"#, "base64"),
        (r#"{"namespace": "N", "key": "k", "value": 5}"#, "line 2, key \"k\": "),
        (
            r#"{"namespace": "N", "key": "k", "value_base64": "?"}"#,
            "key \"k\": the value: this is not base64",
        ),
        (
            r#"{"namespace": "N", "key_base64": "/w==", "value": "\ud83d"}"#,
            "key \"\\xff\"",
        ),
    ] {
        let content = format!("{{\"namespace\": \"N\", \"key\": \"a\", \"value\": \"b\"}}\n{line}\n");
        std::fs::write(at.path("wrong.jsonl"), content).unwrap();
        let told = at.fails(2, ["import", "wrong.jsonl"]);
        assert!(
            told.contains("wrong.jsonl, line 2") && told.contains(expected),
            "{line}: {told}"
        );
        assert!(!told.contains("at line 1"), "{told}");
    }
    // Expired keys are counted and skipped.
    std::fs::write(
        at.path("old.jsonl"),
        "{\"namespace\": \"N\", \"key\": \"a\", \"value\": \"b\", \"expiration_ms\": 5}\n",
    )
    .unwrap();
    assert_eq!(at.text(["import", "old.jsonl"]), "Imported 0 keys. 1 had expired.\n");
    at.fails(2, ["import", "missing.jsonl"]);
}
