//! The command line: export and import.

#[path = "common/command.rs"]
#[allow(dead_code, reason = "each program that includes this file uses its own part of it")]
mod command;

use std::collections::BTreeMap;

use command::Workplace;
use embercask::{PutOptions, Store};

type Key = (String, Vec<u8>);
type Content = (Vec<u8>, Option<Vec<u8>>, Option<u64>);

/// Everything a store shows.
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

/// A store of whatever can be stored: any bytes, with and without metadata that are JSON, are not, or look as if they were.
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
        let told = at.text(["--store", &copy, "import", file]);
        assert_eq!(told, "Imported 3,000 keys.\n");
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
    let options = PutOptions::new().metadata("{\"a\":1}").expires_at_ms(4_000_000_000_000);
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
    // What such a file cannot say is not left out in silence.
    at.done(["key", "put", "-n", "N", "/w==", "v", "--key-format", "base64"]);
    let told = at.fails(2, ["--quiet", "export", "-n", "N", "--format", "bulk", "m.json"]);
    assert!(told.contains("--format lines"), "{told}");
    at.fails(2, ["export", "--format", "bulk", "m.json"]);
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
            at.done(["--quiet", "export", "--resume", file]);
            assert!(!partial.exists());
            let copy = format!("{file} from {part}");
            at.done(["--quiet", "--store", &copy, "import", file]);
            assert_eq!(content(&opened(&at, &copy)), content(&at.store()), "{copy}");
        }
    }
    // Without anything to go on with it begins anew; what is no export is not written behind.
    at.done(["--quiet", "export", "--resume", "new.jsonl"]);
    std::fs::write(at.path("notes.jsonl.partial"), "something else\n").unwrap();
    at.fails(2, ["--quiet", "export", "--resume", "notes.jsonl"]);
    assert_eq!(
        std::fs::read(at.path("notes.jsonl.partial")).unwrap(),
        b"something else\n"
    );
}

#[test]
fn an_import_goes_on_where_it_was_stopped() {
    let at = filled(1000);
    at.done(["--quiet", "export", "all.jsonl"]);
    std::fs::write(at.path("all.jsonl.progress"), r#"{"done": 600}"#).unwrap();
    let output = at.run(["--store", "rest", "import", "--resume", "all.jsonl"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("600"));
    let rest = content(&opened(&at, "rest"));
    // Two of the lines before, at the least, were those of namespaces.
    assert!((400..=403).contains(&rest.len()), "{}", rest.len());
    let all = content(&at.store());
    assert!(rest.iter().all(|(key, content)| all.get(key) == Some(content)));
    assert!(!at.path("all.jsonl.progress").exists());
    at.fails(2, ["import", "--resume", "-"]);
    std::fs::write(at.path("all.jsonl.progress"), "nonsense").unwrap();
    at.fails(2, ["import", "--resume", "all.jsonl"]);
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
    ] {
        let content = format!("{{\"namespace\": \"N\", \"key\": \"a\", \"value\": \"b\"}}\n{line}\n");
        std::fs::write(at.path("wrong.jsonl"), content).unwrap();
        let told = at.fails(2, ["import", "wrong.jsonl"]);
        assert!(told.contains("line 2") && told.contains(expected), "{line}: {told}");
    }
    // What has expired is counted and left out.
    std::fs::write(
        at.path("old.jsonl"),
        "{\"namespace\": \"N\", \"key\": \"a\", \"value\": \"b\", \"expiration_ms\": 5}\n",
    )
    .unwrap();
    assert_eq!(at.text(["import", "old.jsonl"]), "Imported 0 keys. 1 had expired.\n");
    at.fails(2, ["import", "missing.jsonl"]);
}
