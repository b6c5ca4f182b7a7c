//! The command line: namespaces and single keys.

use std::process::Stdio;

use crate::command::{Workplace, now};
use crate::http::started;
use serde_json::json;

#[test]
fn namespaces_are_created_listed_renamed_and_deleted() {
    let at = Workplace::new();
    let created = at.text(["namespace", "create", "SESSIONS"]);
    at.done(["--quiet", "namespace", "create", "FLAGS"]);
    let listed = at.json(["namespace", "list"]);
    let titles: Vec<_> = listed.as_array().unwrap().iter().map(|info| &info["title"]).collect();
    assert_eq!(titles, ["FLAGS", "SESSIONS"]);
    let id = listed[1]["id"].as_str().unwrap();
    assert!(id.len() == 32 && created.contains(id), "{created}");

    let told = at.fails(1, ["namespace", "create", "FLAGS"]);
    assert!(told.contains("FLAGS"), "{told}");
    at.done(["namespace", "rename", "SESSIONS", "--new-name", "LOGINS"]);
    at.done(["key", "put", "--namespace-id", id, "k", "v"]);
    assert_eq!(at.done(["key", "get", "-n", "LOGINS", "k"]), b"v");
    at.done(["namespace", "rename", "--namespace-id", id, "--new-name", "SESSIONS"]);
    let lines = at.text(["namespace", "list", "--json"]);
    assert!(
        lines
            .lines()
            .any(|line| line.contains("\"SESSIONS\"") && line.contains("\"keys\":1")),
        "{lines}"
    );

    // There is no terminal to ask on.
    let told = at.fails(2, ["namespace", "delete", "SESSIONS"]);
    assert!(told.contains("-y"), "{told}");
    at.done(["namespace", "delete", "SESSIONS", "-y"]);
    at.done(["namespace", "delete", "--binding", "FLAGS", "--skip-confirmation"]);
    assert_eq!(at.json(["namespace", "list"]), json!([]));
    at.fails(1, ["namespace", "delete", "SESSIONS", "-y"]);
}

#[test]
fn a_value_comes_out_as_it_went_in() {
    let at = Workplace::with_namespace();
    let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    std::fs::write(at.path("all.bin"), &all).unwrap();
    let told = at.text(["key", "put", "-n", "N", "from file", "--path", "all.bin"]);
    assert!(told.contains("all.bin") && told.contains("from file"), "{told}");
    assert_eq!(at.done(["key", "get", "-n", "N", "from file"]), all);
    let output = at.fed(["key", "put", "-n", "N", "from input", "--path", "-"], &all);
    assert!(output.status.success());
    assert_eq!(at.done(["key", "get", "--binding", "N", "from input"]), all);
    let told = at.text(["key", "put", "-n", "N", "k", "value one"]);
    assert_eq!(told, "Wrote the value \"value one\" to the key \"k\" of \"N\".\n");
    assert_eq!(at.done(["--quiet", "key", "put", "-n", "N", "empty", ""]), b"");
    assert_eq!(at.done(["key", "get", "-n", "N", "empty"]), b"");
    assert_eq!(at.done(["key", "get", "-n", "N", "k", "--text"]), b"value one\n");
    at.done(["key", "put", "-n", "N", "-1", "-5.5"]);
    assert_eq!(at.done(["key", "get", "-n", "N", "-1"]), b"-5.5");
    for class in ["--sync", "--os", "--buffered"] {
        let value = class.trim_start_matches('-');
        at.done(["key", "put", "-n", "N", "k", value, class]);
        assert_eq!(at.text(["key", "get", "-n", "N", "k"]), value);
    }
}

#[test]
fn expiry_and_metadata_stand_beside_the_value() {
    let at = Workplace::with_namespace();
    at.done([
        "key",
        "put",
        "-n",
        "N",
        "a",
        "1",
        "--expiration",
        "4000000000",
        "--metadata",
        "{\"b\": [1]}",
    ]);
    at.done(["key", "put", "-n", "N", "b", "2", "--ttl", "3600"]);
    let listed = at.json(["key", "list", "-n", "N"]);
    assert_eq!(
        listed[0],
        json!({"name": "a", "expiration": 4_000_000_000_u64, "metadata": {"b": [1]}})
    );
    let left = listed[1]["expiration"].as_u64().unwrap() - now();
    assert!((3000..=3601).contains(&left), "{left}");
    let shown = at.json(["key", "get", "-n", "N", "a", "--json"]);
    assert_eq!((&shown["value"], &shown["metadata"]), (&json!("1"), &json!({"b": [1]})));
    // Times are told as they were given.
    for (flag, given, expected) in [
        (
            "--expiration",
            "5",
            "the expiration 5 is over: it means 1970-01-01T00:00:05",
        ),
        ("--expiration", "1800000000000", "in milliseconds"),
        ("--ttl", "0", "a lifetime of 0 seconds is too short"),
    ] {
        let told = at.fails(2, ["key", "put", "-n", "N", "any", "1", flag, given]);
        assert!(told.contains(expected), "{told}");
        at.done(["key", "put", "-n", "N", "there", "1"]);
        let told = at.fails(2, ["key", "expire", "-n", "N", "there", flag, given]);
        assert!(told.contains(expected), "{told}");
        at.done(["key", "delete", "-n", "N", "there"]);
    }
    // Any JSON is metadata, byte for byte.
    for metadata in ["[1, 2.50]", "5", "false", "\"\"", "\"text\"", "{\"a\": {}}"] {
        at.done(["key", "put", "-n", "N", "any", "1", "--metadata", metadata]);
        let store = at.store();
        let value = store.open_namespace("N").unwrap().get("any").unwrap().unwrap();
        assert_eq!(value.metadata(), Some(metadata.as_bytes()));
        store.close().unwrap();
    }
    // A put replaces value, metadata and expiry.
    at.done(["key", "put", "-n", "N", "a", "3"]);
    let shown = at.json(["key", "get", "-n", "N", "a", "--json"]);
    assert!(
        shown.get("metadata").is_none() && shown.get("expiration").is_none(),
        "{shown}"
    );
}

#[test]
fn what_is_absent_is_told_by_the_exit_status() {
    let at = Workplace::with_namespace();
    let told = at.fails(1, ["key", "get", "-n", "N", "nobody"]);
    assert_eq!(told, "error: there is no key \"nobody\" in \"N\"\n");
    at.fails(1, ["key", "delete", "-n", "N", "nobody"]);
    at.done(["key", "put", "-n", "N", "k", "v"]);
    at.done(["key", "delete", "-n", "N", "k"]);
    at.fails(1, ["key", "get", "-n", "N", "k"]);
    let told = at.fails(1, ["key", "get", "-n", "NOWHERE", "k"]);
    assert!(told.contains("NOWHERE") && told.contains("hint: "), "{told}");
    let told = at.fails(
        1,
        ["key", "get", "--namespace-id", "00000000000000000000000000000001", "k"],
    );
    assert!(told.contains("00000000000000000000000000000001"), "{told}");
}

#[test]
fn conditions_hold_or_nothing_is_written() {
    let at = Workplace::with_namespace();
    at.done(["key", "put", "-n", "N", "k", "1", "--if-absent"]);
    let told = at.fails(1, ["key", "put", "-n", "N", "k", "2", "--if-absent"]);
    let sequence = at.json(["key", "get", "-n", "N", "k", "--json"])["sequence"].to_string();
    assert!(told.contains(&sequence), "{told}");
    at.done(["key", "put", "-n", "N", "k", "3", "--if-sequence", &sequence]);
    at.fails(1, ["key", "put", "-n", "N", "k", "4", "--if-sequence", &sequence]);
    at.fails(1, ["key", "delete", "-n", "N", "k", "--if-sequence", &sequence]);
    assert_eq!(at.done(["key", "get", "-n", "N", "k"]), b"3");
}

#[test]
fn a_key_is_renamed_with_all_it_has_and_replaces_no_other() {
    let at = Workplace::with_namespace();
    at.done([
        "set",
        "-n",
        "N",
        "a",
        "1",
        "--metadata",
        "{\"m\":1}",
        "--expiration",
        "4000000000",
    ]);
    at.done(["set", "-n", "N", "other", "2"]);
    let told = at.fails(1, ["key", "rename", "-n", "N", "a", "other"]);
    assert!(
        told.contains("already a key \"other\"") && told.contains("--force"),
        "{told}"
    );
    assert_eq!(at.text(["get", "-n", "N", "a", "other", "--text"]), "1\n2\n");
    let told = at.text(["rename", "-n", "N", "a", "b", "--os"]);
    assert_eq!(told, "Renamed the key \"a\" of \"N\" to \"b\".\n");
    let shown = at.json(["get", "-n", "N", "b", "--json"]);
    assert_eq!(
        (&shown["value"], &shown["metadata"], &shown["expiration"]),
        (&json!("1"), &json!({"m": 1}), &json!(4_000_000_000_u64))
    );
    at.fails(1, ["get", "-n", "N", "a"]);
    at.fails(1, ["mv", "-n", "N", "a", "c"]);
    at.done(["mv", "-n", "N", "62", "0x6f74686572", "--key-format", "hex", "--force"]);
    assert_eq!(at.text(["ls", "-n", "N", "--text"]), "other\n");
    assert_eq!(at.text(["get", "-n", "N", "other"]), "1");
    at.fails(2, ["mv", "-n", "N", "other", "other", "--force"]);
    assert_eq!(at.text(["get", "-n", "N", "other"]), "1");
}

#[test]
fn listings_go_by_prefix_range_and_direction() {
    let at = Workplace::with_namespace();
    let store = at.store();
    let namespace = store.open_namespace("N").unwrap();
    for n in 0..2500 {
        namespace.put(format!("user-{n:04}"), format!("v{n}")).unwrap();
    }
    namespace.put("other", "x").unwrap();
    drop(namespace);
    store.close().unwrap();
    let list = |more: &[&'static str]| -> Vec<String> {
        let arguments = ["key", "list", "-n", "N", "--text"].iter().chain(more).copied();
        at.text(arguments).lines().map(str::to_owned).collect()
    };
    assert_eq!(list(&[]).len(), 2501);
    assert_eq!(list(&["--prefix", "user-"]).len(), 2500);
    assert_eq!(
        list(&["--prefix", "user-", "--limit", "1200", "--quiet"])
            .last()
            .unwrap(),
        "user-1199"
    );
    assert_eq!(
        list(&["--start", "user-0003", "--end", "user-0005"]),
        ["user-0003", "user-0004"]
    );
    assert_eq!(
        list(&["--start-after", "user-0003", "--end", "user-0005"]),
        ["user-0004"]
    );
    assert_eq!(
        list(&["--reverse", "--limit", "2", "--quiet"]),
        ["user-2499", "user-2498"]
    );
    assert_eq!(list(&["--prefix", "nothing"]), Vec::<String>::new());
    assert_eq!(
        at.text(["key", "list", "-n", "N", "--count", "--prefix", "user-1"]),
        "1000\n"
    );
    assert_eq!(at.json(["key", "list", "-n", "N"]).as_array().unwrap().len(), 2501);
    assert_eq!(at.json(["key", "list", "-n", "N", "--prefix", "nothing"]), json!([]));
    let lines = at.text(["key", "list", "-n", "N", "--json", "--values", "--prefix", "user-0007"]);
    let line: serde_json::Value = serde_json::from_str(&lines).unwrap();
    assert_eq!((&line["name"], &line["value"]), (&json!("user-0007"), &json!("v7")));
}

#[test]
fn keys_and_values_that_are_no_text_are_escaped_or_base64() {
    let at = Workplace::with_namespace();
    at.done([
        "--quiet",
        "key",
        "put",
        "-n",
        "N",
        "a\\x00\\xff\\n",
        "\\xfe\\\\",
        "--key-format",
        "escaped",
        "--value-format",
        "escaped",
    ]);
    let key = b"a\0\xff\n";
    assert_eq!(
        at.store().open_namespace("N").unwrap().get(key).unwrap().as_deref(),
        Some(&b"\xfe\\"[..])
    );
    assert_eq!(
        at.done(["key", "get", "-n", "N", "YQD/Cg==", "--key-format", "base64"]),
        b"\xfe\\"
    );
    assert_eq!(at.text(["key", "list", "-n", "N", "--text"]), "a\\x00\\xff\\n\n");
    let listed = at.json(["key", "list", "-n", "N", "--values"]);
    assert_eq!(listed[0]["name_base64"], "YQD/Cg==");
    assert_eq!(listed[0]["value_base64"], "/lw=");
    let shown = at.text([
        "key",
        "get",
        "-n",
        "N",
        "YQD/Cg==",
        "--key-format",
        "base64",
        "--value-format",
        "escaped",
    ]);
    assert_eq!(shown, "\\xfe\\\\");
    for wrong in ["\\q", "\\x+f"] {
        at.fails(2, ["key", "get", "-n", "N", wrong, "--key-format", "escaped"]);
    }
    let told = at.fails(2, ["key", "get", "-n", "N", "\\q", "--key-format", "escaped"]);
    assert!(told.contains("hint: "), "{told}");
    at.fails(2, ["key", "get", "-n", "N", "?", "--key-format", "base64"]);
}

#[test]
fn wrong_input_is_told_in_a_line_and_changes_nothing() {
    let at = Workplace::new();
    // A command that only reads does not create a store.
    let told = at.fails(2, ["key", "list", "-n", "N"]);
    assert!(told.contains("EMBERCASK_STORE") && told.lines().count() == 2, "{told}");
    assert!(!at.path("store").exists() || std::fs::read_dir(at.path("store")).unwrap().next().is_none());
    at.done(["namespace", "create", "N"]);
    let mut nameless = at.command(["key", "list", "-n", "N"]);
    let output = nameless.env_remove("EMBERCASK_STORE").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--store"));
    for wrong in [
        &["key", "put", "-n", "N", "k", "v", "--metadata", "{"][..],
        &["key", "put", "-n", "N", "k", "v", "--metadata", "plain"],
        &["key", "put", "-n", "N", "k", "v", "--metadata", ""],
        &["key", "put", "-n", "N", "k", "v", "--metadata", "null"],
        &["key", "put", "-n", "N", "k", "v", "--ttl", "0"],
        &["key", "put", "-n", "N", "k", "v", "--expiration", "1"],
        &["key", "put", "-n", "N", "", "v"],
        &[
            "key",
            "put",
            "-n",
            "N",
            "k",
            "v",
            "--ttl",
            "60",
            "--expiration",
            "4000000000",
        ],
        &["key", "put", "-n", "N", "k", "v", "--sync", "--os"],
        &["key", "put", "-n", "N", "k", "--path", "missing"],
        &["key", "put", "-n", "N", "k"],
        &["key", "put", "k", "v"],
        &["key", "get", "-n", "N", "--namespace-id", "0", "k"],
        &["key", "get", "--namespace-id", "0", "k"],
        &["key", "list", "-n", "N", "--count", "--json"],
        &["keys", "list"],
    ] {
        at.fails(2, wrong.iter().copied());
    }
    assert_eq!(at.json(["key", "list", "-n", "N"]), json!([]));
}

#[test]
fn a_store_in_use_is_left_alone_and_its_holder_named() {
    let at = Workplace::with_namespace();
    let store = at.store();
    let told = at.fails(4, ["key", "put", "-n", "N", "key", "value"]);
    assert!(told.contains(&std::process::id().to_string()), "{told}");
    store.close().unwrap();
    at.done(["key", "put", "-n", "N", "key", "value"]);
}

#[test]
fn commands_that_only_read_work_beside_a_program_that_has_the_store_open_and_change_nothing() {
    let at = Workplace::with_namespace();
    let store = at.store();
    let namespace = store.open_namespace("N").unwrap();
    namespace.put("key", "value").unwrap();
    let id = format!("{:032x}", namespace.id());
    let files = || {
        let entries = std::fs::read_dir(at.path("store")).unwrap();
        let mut files: Vec<_> = (entries.map(|entry| entry.unwrap().path()))
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    assert_eq!(at.text(["key", "get", "-n", "N", "key"]), "value");
    assert_eq!(at.text(["key", "get", "--namespace-id", &id, "key"]), "value");
    assert_eq!(at.text(["key", "list", "-n", "N", "--text"]), "key\n");
    assert_eq!(at.json(["namespace", "list"])[0]["id"], id);
    std::fs::write(at.path("keys.json"), r#"["key"]"#).unwrap();
    let keys = at.path("keys.json").display().to_string();
    assert_eq!(at.json(["bulk", "get", "-n", "N", &keys]), json!({"key": "value"}));
    let exported = at.text(["export", "-", "--quiet"]);
    assert!(exported.contains("value"), "{exported}");
    let numbers = at.json(["stats", "--json"]);
    assert_eq!((&numbers["read_only"], &numbers["keys"]), (&json!(true), &json!(1)));
    assert!(at.text(["stats"]).contains("in use, or not closed properly last time"));
    assert!(at.text(["verify"]).starts_with("sound: "));
    let verified = at.json(["verify", "--json"]);
    assert_eq!((&verified["sound"], &verified["discarded"]), (&json!(true), &json!([])));
    assert_eq!(files(), before);
    store.close().unwrap();
    assert!(at.text(["stats"]).contains("closed properly last time, indexes read"));
}

#[test]
fn commands_that_only_read_work_beside_a_server_that_holds_the_store() {
    let at = Workplace::with_namespace();
    let mut server = started(&at, &["--durability", "os"]);
    // Each command sees what the server has acknowledged before it.
    for number in 1..=3_u64 {
        let key = format!("key{number}");
        let value = format!("value {number}");
        assert_eq!(server.bound("PUT", &key, &[], value.as_bytes()).status, 200);
        assert_eq!(at.text(["key", "get", "-n", "N", &key]), value);
        let keys: String = (1..=number).map(|number| format!("key{number}\n")).collect();
        assert_eq!(at.text(["key", "list", "-n", "N", "--text"]), keys);
        let stats = at.json(["stats", "--json"]);
        assert_eq!((&stats["read_only"], &stats["keys"]), (&json!(true), &json!(number)));
        let exported = at.text(["export", "-", "--quiet"]);
        assert!(exported.contains(&key), "{exported}");
        let verified = at.json(["verify", "--json"]);
        assert_eq!((&verified["sound"], &verified["discarded"]), (&json!(true), &json!([])));
        assert!(at.text(["inspect", "store/MANIFEST"]).contains("header"));
    }
    // It has the store all the time, and goes on.
    let told = at.fails(4, ["key", "put", "-n", "N", "key4", "value"]);
    assert!(told.contains(&server.child.id().to_string()), "{told}");
    assert_eq!(server.bound("GET", "key3", &[], b"").body, b"value 3");
    assert_eq!(server.bound("PUT", "key4", &[], b"value 4").status, 200);
    assert_eq!(server.stop(), Some(0));
    assert_eq!(at.text(["key", "list", "-n", "N", "--count"]).trim(), "4");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let at = Workplace::with_namespace();
    let store = at.store();
    let namespace = store.open_namespace("N").unwrap();
    for n in 0..20_000 {
        namespace.put(format!("a key that fills the pipe {n:08}"), "").unwrap();
    }
    drop(namespace);
    store.close().unwrap();
    let mut command = at.command(["key", "list", "-n", "N"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    assert_eq!(output.stderr, b"");
}

#[test]
fn colours_are_for_terminals_only() {
    let at = Workplace::with_namespace();
    assert!(!at.text(["stats"]).contains('\u{1b}'));
    assert!(!at.fails(1, ["key", "get", "-n", "N", "nobody"]).contains('\u{1b}'));
    let forced = at.command(["stats"]).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(forced.stdout.contains(&0x1b));
    let without = at.command(["stats"]).env("NO_COLOR", "1").output().unwrap();
    assert!(!without.stdout.contains(&0x1b));
}

#[test]
fn names_and_values_cannot_command_the_terminal() {
    let at = Workplace::new();
    let name = "a\u{1b}]0;owned\u{7}\nerror: b";
    let mut said = at.text(["namespace", "create", name]);
    said += &at.text([
        "key",
        "put",
        "-n",
        name,
        "k\u{9b}",
        "v\u{202e}",
        "--metadata",
        "{\"m\": \"\u{9b}\"}",
    ]);
    said += &at.fails(1, ["key", "get", "-n", name, "nobody"]);
    said += &at.fails(1, ["namespace", "create", name]);
    said += &at.fails(1, ["key", "get", "-n", "\u{1b}[2J", "nobody"]);
    for arguments in [
        &["key", "list", "-n", name][..],
        &["key", "list", "-n", name, "--json", "--values"],
        &["key", "list", "-n", name, "--text"],
        &["key", "get", "-n", name, "k\u{9b}", "--json"],
        &["namespace", "list"],
        &["namespace", "list", "--json"],
    ] {
        said += &at.text(arguments.iter().copied());
    }
    for character in ['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}'] {
        assert!(!said.contains(character), "{character:?} in {said:?}");
    }
    assert!(!said.lines().any(|line| line.starts_with("error: b")), "{said}");
    let listed = at.json(["key", "list", "-n", name]);
    assert_eq!(listed, json!([{"name": "k\u{9b}", "metadata": {"m": "\u{9b}"}}]));
}

/// Metadata may have several lines; in a listing it has one.
#[test]
fn metadata_in_several_lines_come_as_one() {
    let at = Workplace::with_namespace();
    at.done([
        "key",
        "put",
        "-n",
        "N",
        "k",
        "v",
        "--metadata",
        "{\n  \"a b\": [1,\t2.50]\n}",
    ]);
    let expected = "{\"name\":\"k\",\"metadata\":{\"a b\":[1,2.50]}}\n";
    assert_eq!(at.text(["key", "list", "-n", "N", "--json"]), expected);
    assert_eq!(
        at.json(["key", "get", "-n", "N", "k", "--json"])["metadata"],
        json!({"a b": [1, 2.5]})
    );
}
