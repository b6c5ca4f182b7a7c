//! The command line: the files of `wrangler kv bulk`.

#[path = "common/command.rs"]
#[allow(dead_code, reason = "each program that includes this file uses its own part of it")]
mod command;

use command::Workplace;
use serde_json::json;

/// As wrangler's documentation and its schema have it.
const PAIRS: &str = r#"[
  {"key": "plain", "value": "text with \"quotes\" and ü"},
  {"key": "until", "value": "1", "expiration": 4000000000},
  {"key": "lives", "value": "2", "expiration_ttl": 3600, "metadata": {"a": {"b": [1, 2.50]}}},
  {"key": "bytes", "value": "AAH/", "base64": true}
]"#;

#[test]
fn a_file_of_wrangler_is_put() {
    let at = Workplace::with_namespace();
    std::fs::write(at.path("pairs.json"), PAIRS).unwrap();
    assert_eq!(
        at.text(["bulk", "put", "-n", "N", "pairs.json"]),
        "Success! Wrote 4 keys.\n"
    );
    let store = at.store();
    let namespace = store.open_namespace("N").unwrap();
    assert_eq!(
        namespace.get_text("plain").unwrap().unwrap(),
        "text with \"quotes\" and ü"
    );
    assert_eq!(namespace.get("bytes").unwrap().as_deref(), Some(&[0, 1, 255][..]));
    assert_eq!(
        namespace.get("until").unwrap().unwrap().expiry_ms(),
        Some(4_000_000_000_000)
    );
    let lives = namespace.get("lives").unwrap().unwrap();
    assert!(lives.expiry_ms().is_some());
    // Byte for byte: no number is read and written again.
    assert_eq!(lives.metadata(), Some(&br#"{"a": {"b": [1, 2.50]}}"#[..]));
}

#[test]
fn standard_input_is_a_file_too_and_unknown_properties_are_told() {
    let at = Workplace::with_namespace();
    let output = at.fed(
        ["bulk", "put", "-n", "N", "-"],
        br#"[{"key": "k", "value": "v", "colour": "red"}]"#,
    );
    assert!(output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("colour") && told.contains("pair 1"), "{told}");
    assert_eq!(at.done(["key", "get", "-n", "N", "k"]), b"v");
}

#[test]
fn values_come_as_an_object_and_null_is_absent() {
    let at = Workplace::with_namespace();
    std::fs::write(at.path("pairs.json"), PAIRS).unwrap();
    at.done(["bulk", "put", "-n", "N", "pairs.json"]);
    std::fs::write(at.path("keys.json"), r#"["plain", {"name": "bytes"}, "nobody"]"#).unwrap();
    let values = at.json(["bulk", "get", "-n", "N", "keys.json"]);
    let expected = json!({"plain": "text with \"quotes\" and ü", "bytes": {"base64": "AAH/"}, "nobody": null});
    assert_eq!(values, expected);
    std::fs::write(at.path("none.json"), "[]").unwrap();
    assert_eq!(at.json(["bulk", "get", "-n", "N", "none.json"]), json!({}));
}

#[test]
fn a_listing_is_a_file_of_keys_to_get_and_to_delete() {
    let at = Workplace::with_namespace();
    let pairs: Vec<_> = (0..2500)
        .map(|n| json!({"key": format!("k{n:04}"), "value": n.to_string()}))
        .collect();
    std::fs::write(at.path("pairs.json"), serde_json::to_vec(&pairs).unwrap()).unwrap();
    assert_eq!(
        at.text(["bulk", "put", "-n", "N", "pairs.json", "--os"]),
        "Success! Wrote 2500 keys.\n"
    );
    std::fs::write(at.path("listed.json"), at.done(["key", "list", "-n", "N"])).unwrap();
    let values = at.json(["bulk", "get", "-n", "N", "listed.json"]);
    assert_eq!(values.as_object().unwrap().len(), 2500);
    assert_eq!(values["k2499"], "2499");
    let told = at.fails(2, ["bulk", "delete", "-n", "N", "listed.json"]);
    assert!(told.contains("--force"), "{told}");
    assert_eq!(
        at.text(["bulk", "delete", "-n", "N", "listed.json", "-f"]),
        "Success! Deleted 2500 keys.\n"
    );
    assert_eq!(at.text(["key", "list", "-n", "N", "--count"]), "0\n");
}

#[test]
fn a_file_that_is_wrong_is_told_by_place() {
    let at = Workplace::with_namespace();
    for (content, expected) in [
        ("", "line 1"),
        ("{}", "a JSON array"),
        (r#"[{"key": "k"}]"#, "value"),
        (r#"[{"key": "k", "value": 1}]"#, "column"),
        (r#"[{"key": "k", "value": "?", "base64": true}]"#, "base64"),
        (r#"[{"key": "k", "value": "v"}"#, "EOF"),
        (r#"[] more"#, "trailing"),
    ] {
        std::fs::write(at.path("wrong.json"), content).unwrap();
        let told = at.fails(2, ["bulk", "put", "-n", "N", "wrong.json"]);
        assert!(told.contains(expected), "{content}: {told}");
    }
    at.fails(2, ["bulk", "put", "-n", "N", "missing.json"]);
    at.fails(1, ["bulk", "put", "-n", "NOWHERE", "wrong.json"]);
}
