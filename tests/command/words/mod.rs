//! The command line: other names of commands, flags of wrangler, units of time, several keys, a
//! store that is busy for a while.

mod lifetimes;
mod listing;

use std::io::Read;

use serde_json::{Value, json};

use crate::command::{Workplace, ended, now};

#[test]
fn commands_have_other_names_and_those_of_key_stand_alone() {
    let at = Workplace::with_namespace();
    for group in [&["key"][..], &[]] {
        for (put, get, list, delete) in [
            ("put", "get", "list", "delete"),
            ("set", "get", "ls", "rm"),
            ("set", "get", "scan", "del"),
        ] {
            let words = |words: &[&'static str]| [group, words].concat();
            at.done(words(&[put, "-n", "N", "k", "v"]));
            assert_eq!(at.done(words(&[get, "-n", "N", "k"])), b"v");
            assert_eq!(at.text(words(&[list, "-n", "N", "--text"])), "k\n");
            at.done(words(&[delete, "-n", "N", "k"]));
            at.fails(1, words(&[get, "-n", "N", "k"]));
        }
    }
    at.done(["ns", "create", "OTHER"]);
    assert_eq!(at.json(["ns", "ls"]).as_array().unwrap().len(), 2);
    at.done(["ns", "rm", "OTHER", "-y"]);
    at.done(["set", "-n", "N", "k", "v"]);
    at.done(["--quiet", "dump", "all.jsonl"]);
    at.done(["rm", "-n", "N", "k"]);
    at.done(["--quiet", "restore", "all.jsonl"]);
    assert_eq!(at.text(["get", "-n", "N", "k"]), "v");
    assert_eq!(at.json(["info", "--json"])["keys"], 1);
    assert!(at.text(["check"]).starts_with("sound: "));
    at.done(["backup", "copy"]);
    assert_eq!(at.text(["--store", "copy", "get", "-n", "N", "k"]), "v");
}

#[test]
fn a_command_that_is_missing_is_shown_in_the_help_and_a_mistyped_one_is_corrected() {
    let at = Workplace::with_namespace();
    for (words, usage) in [
        (&[][..], "Usage: embercask [OPTIONS] <COMMAND>"),
        (&["--quiet"], "Usage: embercask [OPTIONS] <COMMAND>"),
        (&["key"], "Usage: embercask key [OPTIONS] <COMMAND>"),
        (&["ns"], "Usage: embercask namespace [OPTIONS] <COMMAND>"),
        (&["bulk", "--local"], "Usage: embercask bulk [OPTIONS] <COMMAND>"),
    ] {
        let help = at.text(words.iter().copied());
        assert!(help.contains(usage), "{words:?}: {help}");
        // The same if nothing is set in the environment.
        let mut command = at.command(words.iter().copied());
        let output = command.env_remove("EMBERCASK_STORE").output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{words:?}");
        assert!(String::from_utf8(output.stdout).unwrap().contains(usage), "{words:?}");
    }
    for (words, meant) in [
        (&["kye", "get"][..], "key"),
        (&["nsmaespace"], "namespace"),
        (&["exprot"], "export"),
        (&["lits", "-n", "N"], "list"),
        (&["key", "gte", "-n", "N", "k"], "get"),
        (&["get", "-n", "N", "k", "--txet"], "--text"),
    ] {
        let told = at.fails(2, words.iter().copied());
        assert!(
            told.contains("similar") && told.contains(&format!("'{meant}'")),
            "{words:?}: {told}"
        );
    }
}

#[test]
fn flags_of_wrangler_are_ignored_with_a_note() {
    let at = Workplace::with_namespace();
    for words in [
        ["key", "put", "--binding", "N", "k", "v", "--remote"],
        ["--local", "key", "put", "--binding", "N", "k", "v"],
    ] {
        let output = at.run(words);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        assert!(told.contains("ignored") && told.lines().count() == 1, "{told}");
    }
    assert_eq!(
        at.text(["key", "get", "--binding", "N", "k", "--local", "--quiet"]),
        "v"
    );
    at.fails(2, ["key", "get", "--binding", "N", "k", "--local", "--remote"]);
    let output = at.fed(["shell"], b"get -n N k --remote\n");
    assert!(output.status.success());
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("--remote is ignored")
    );
}

#[test]
fn lengths_of_time_have_units() {
    let at = Workplace::with_namespace();
    let now = now();
    for (ttl, seconds) in [
        ("5000000", 5_000_000),
        ("90d", 7_776_000),
        ("100000m", 6_000_000),
        ("1w1h", 608_400),
    ] {
        at.done(["put", "-n", "N", "k", "v", "--ttl", ttl]);
        let left = at.json(["list", "-n", "N"])[0]["expiration"].as_u64().unwrap() - now;
        // The machine may be slow, but not by a quarter of an hour.
        assert!((seconds..seconds + 900).contains(&left), "{ttl}: {left}");
    }
    for wrong in ["1y", "h", "1.5", "-1", "soon", ""] {
        let told = at.fails(2, ["put", "-n", "N", "k", "v", &format!("--ttl={wrong}")]);
        assert!(
            told.contains("s, m, h, d, w") || told.contains("whole seconds"),
            "{told}"
        );
    }
    let told = at.fails(2, ["put", "-n", "N", "k", "v", "--expiration", "1795689695332"]);
    assert!(told.contains("1795689695 seconds"), "{told}");
    for wrong in [&["stats", "--every", "1y"][..], &["bench", "--seconds", "2 days"]] {
        let told = at.fails(2, wrong.iter().copied());
        assert!(told.contains("s, m, h, d, w"), "{told}");
    }
}

#[test]
fn several_keys_are_printed_and_deleted_and_those_that_are_absent_are_told() {
    let at = Workplace::with_namespace();
    for (key, value) in [("a", "1"), ("b", "2\n"), ("c\n", "3")] {
        at.done(["put", "-n", "N", key, value]);
    }
    assert_eq!(
        at.text(["get", "-n", "N", "b", "a", "c\n"]),
        "==> b <==\n2\n\n==> a <==\n1\n==> c\\n <==\n3\n"
    );
    assert_eq!(at.text(["get", "-n", "N", "a", "a", "--text"]), "1\n1\n");
    let output = at.run(["get", "-n", "N", "a", "no", "c\n", "never", "--json"]);
    let (said, told) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let values: Vec<_> = lines.iter().map(|line| (&line["name"], &line["value"])).collect();
    assert_eq!(values, [(&json!("a"), &json!("1")), (&json!("c\n"), &json!("3"))]);
    assert_eq!(
        told,
        "error: there is no key \"no\" in \"N\"\nerror: there is no key \"never\" in \"N\"\n"
    );
    assert_eq!(output.status.code(), Some(1));
    at.fails(2, ["rm", "-n", "N", "a", "b", "--if-sequence", "1"]);
    let output = at.run(["rm", "-n", "N", "a", "no", "b"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "Deleted the key \"a\" of \"N\".\nDeleted the key \"b\" of \"N\".\n"
    );
    assert_eq!(at.text(["ls", "-n", "N", "--text"]), "c\\n\n");
    at.fails(2, ["get", "-n", "N"]);
    at.fails(2, ["rm", "-n", "N"]);
}

#[test]
fn keys_and_values_are_given_in_hexadecimal() {
    let at = Workplace::with_namespace();
    at.done([
        "put",
        "--quiet",
        "-n",
        "N",
        "6B00ff",
        "0x0a",
        "--key-format",
        "hex",
        "--value-format",
        "hex",
    ]);
    let store = at.store();
    let value = store.open_namespace("N").unwrap().get(b"k\0\xff").unwrap();
    assert_eq!(value.as_deref(), Some(&b"\n"[..]));
    store.close().unwrap();
    let shown = at.text([
        "get",
        "-n",
        "N",
        "6b00ff",
        "--key-format",
        "hex",
        "--value-format",
        "hex",
    ]);
    assert_eq!(shown, "0a");
    for wrong in ["6", "6g", "+6"] {
        let told = at.fails(2, ["get", "-n", "N", wrong, "--key-format", "hex"]);
        assert!(told.contains("two digits"), "{told}");
    }
    at.done(["rm", "-n", "N", "6b00ff", "--key-format", "hex"]);
}

#[test]
fn a_command_waits_for_a_busy_store_if_told_to() {
    let at = Workplace::with_namespace();
    let store = at.store();
    let holder = std::process::id().to_string();
    let told = at.fails(4, ["put", "-n", "N", "k", "v"]);
    assert!(told.contains(&holder) && told.contains("--wait"), "{told}");
    let told = at.fails(4, ["put", "-n", "N", "k", "v", "--wait", "50ms"]);
    assert!(
        told.contains("Waiting for at most 50ms") && told.contains(&holder),
        "{told}"
    );
    let mut waiting = at.spawned(["put", "-n", "N", "k", "v", "--wait", "10m"]);
    let mut told = waiting.stderr.take().unwrap();
    let mut first = [0];
    // It has seen that the store is in use.
    told.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"W");
    store.close().unwrap();
    assert!(ended(waiting).status.success());
    assert_eq!(at.text(["get", "-n", "N", "k"]), "v");
    // Also from the environment, and for salvage, which opens no store.
    let store = at.store();
    let mut command = at.command(["salvage", "saved"]);
    let piped = std::process::Stdio::piped;
    let mut waiting = command
        .env("EMBERCASK_WAIT", "10m")
        .stdout(piped())
        .stderr(piped())
        .spawn()
        .unwrap();
    waiting.stderr.take().unwrap().read_exact(&mut first).unwrap();
    store.close().unwrap();
    assert!(ended(waiting).status.success());
    assert!(at.path("saved/MANIFEST").exists());
    at.fails(2, ["stats", "--wait", "soon"]);
}
