//! The command line: what is known of a key beside its value and how it is changed without writing
//! the value again; and following changes.

use std::io::Read;

use serde_json::json;

use crate::command::{Workplace, ended, interrupt, now};

#[test]
fn whether_keys_are_there_is_told_in_words_and_by_the_status() {
    let at = Workplace::with_namespace();
    at.done(["set", "-n", "N", "a", "1"]);
    at.done(["set", "-n", "N", "b\n", ""]);
    assert_eq!(at.text(["exists", "-n", "N", "a"]), "true\n");
    assert_eq!(
        at.text(["key", "exists", "-n", "N", "61", "620a", "--key-format", "hex"]),
        "true\ntrue\n"
    );
    let output = at.run(["exists", "-n", "N", "a", "no", "b\n"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "true\nfalse\ntrue\n");
    assert_eq!(output.stderr, b"");
    assert_eq!(at.text(["exists", "-n", "N", "a", "--quiet"]), "");
    assert_eq!(at.fails(1, ["exists", "-n", "N", "no", "--quiet"]), "");
    assert!(at.fails(1, ["exists", "-n", "NO", "a"]).contains("NO"));
}

#[test]
fn an_expiry_is_shown_and_changed_and_all_else_stays() {
    let at = Workplace::with_namespace();
    at.done(["set", "-n", "N", "k", "value", "--metadata", "{\"m\":1}"]);
    let shown = || at.json(["get", "-n", "N", "k", "--json"]);
    assert_eq!(at.text(["ttl", "-n", "N", "k"]), "none\n");
    let told = at.text(["expire", "-n", "N", "k", "--ttl", "10d"]);
    assert!(told.contains("expires in 864000 s"), "{told}");
    let left: u64 = at.text(["ttl", "-n", "N", "k"]).trim().parse().unwrap();
    // The machine may be slow, but not by an hour.
    assert!((860_400..=864_000).contains(&left), "{left}");
    let (value, expiration) = (shown()["value"].clone(), shown()["expiration"].as_u64().unwrap());
    assert_eq!((value, shown()["metadata"].clone()), (json!("value"), json!({"m": 1})));
    assert!((expiration - now()).abs_diff(864_000) < 3600, "{expiration}");

    let told = at.text(["key", "expire", "-n", "N", "k", "--expiration", "4000000000"]);
    assert!(told.contains("2096-10-02"), "{told}");
    assert_eq!(shown()["expiration"], 4_000_000_000_u64);
    at.done(["expire", "-n", "N", "6b", "--key-format", "hex", "--never"]);
    assert_eq!(at.text(["ttl", "-n", "N", "k"]), "none\n");
    assert_eq!(
        (&shown()["value"], &shown()["metadata"]),
        (&json!("value"), &json!({"m": 1}))
    );

    for wrong in [
        &["expire", "-n", "N", "k"][..],
        &["expire", "-n", "N", "k", "--never", "--ttl", "60"],
        &["expire", "-n", "N", "k", "--ttl", "0"],
        &["expire", "-n", "N", "k", "--expiration", "1"],
        &["expire", "-n", "N", "k", "--expiration", "4000000000000"],
        &["ttl", "-n", "N"],
    ] {
        at.fails(2, wrong.iter().copied());
    }
    assert_eq!(at.text(["ttl", "-n", "N", "k"]), "none\n");
    at.fails(1, ["expire", "-n", "N", "no", "--ttl", "60"]);
    assert!(at.fails(1, ["ttl", "-n", "N", "no"]).contains("no key \"no\""));
}

#[test]
fn watching_ends_with_ctrl_c_and_says_why_it_cannot_begin() {
    let at = Workplace::with_namespace();
    let mut child = at.spawned(["watch", "-n", "N", "--prefix", "a", "--key-format", "raw"]);
    let mut first = [0];
    // It watches once it says so.
    child.stderr.as_mut().unwrap().read_exact(&mut first).unwrap();
    // No other process can write then.
    let told = at.fails(4, ["set", "-n", "N", "k", "v"]);
    assert!(told.contains(&child.id().to_string()), "{told}");
    interrupt(&child);
    let output = ended(child);
    assert!(
        output.status.success() && output.stdout.is_empty(),
        "{:?}",
        output.status
    );

    let store = at.store();
    let told = at.fails(4, ["key", "watch", "-n", "N", "--json", "--values", "--count", "1"]);
    assert!(told.contains("only that process") && told.contains("--url"), "{told}");
    store.close().unwrap();
    at.fails(1, ["watch", "-n", "NO"]);
    at.fails(2, ["watch", "-n", "N", "--values"]);
    assert!(at.run(["watch", "-n", "N", "--count", "0"]).status.success());
}
