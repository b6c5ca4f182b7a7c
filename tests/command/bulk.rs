//! The command line: the files of `wrangler kv bulk`.

use std::io::Write;

use crate::command::{Workplace, ended, interrupt, stopped, wait_until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// As in wrangler's documentation and schema.
const PAIRS: &str = r#"[
  {"key": "plain", "value": "text with \"quotes\" and ü"},
  {"key": "until", "value": "1", "expiration": 4000000000},
  {"key": "lives", "value": "2", "expiration_ttl": 3600, "metadata": {"a": {"b": [1, 2.50]}}},
  {"key": "bytes", "value": "AAH/", "base64": true}
]"#;

/// A line of an export.
const LINE: &str = "{\"namespace\":\"N\",\"key\":\"k\",\"value\":\"v\"}\n";

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
    // Byte for byte: numbers are not parsed and reformatted.
    assert_eq!(lives.metadata(), Some(&br#"{"a": {"b": [1, 2.50]}}"#[..]));
}

/// Files as editors, shells and encoders write them.
#[test]
fn files_of_other_tools_are_read() {
    let at = Workplace::with_namespace();
    let bytes: Vec<u8> = (0..=255).collect();
    let base64 = base64_in_lines(&bytes, "\\r\\n");
    let for_urls = base64.replace("\\r\\n", "").replace('+', "-").replace('/', "_");
    let unpadded = for_urls.trim_end_matches('=');
    let pairs = format!(
        "\u{feff}[\r\n  {{\"key\": \"wrapped\", \"value\": \"{base64}\", \"base64\": true}},\r\n  \
         {{\"key\": \"unpadded\", \"value\": \"{unpadded}\", \"base64\": true}}\r\n]\r\n"
    );
    std::fs::write(at.path("pairs.json"), &pairs).unwrap();
    at.done(["--quiet", "bulk", "put", "-n", "N", "pairs.json"]);
    for key in ["wrapped", "unpadded"] {
        assert_eq!(at.done(["key", "get", "-n", "N", key]), bytes, "{key}");
    }
    let names = "\u{feff}[\"wrapped\",\r\n\"unpadded\"]\r\n";
    std::fs::write(at.path("names.json"), names).unwrap();
    at.done(["--quiet", "bulk", "delete", "-n", "N", "names.json", "--force"]);
    let output = at.fed(["bulk", "put", "-n", "N", "-"], pairs.as_bytes());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(at.text(["key", "list", "-n", "N", "--count"]), "2\n");

    let wide: Vec<u16> = pairs.encode_utf16().collect();
    let little: Vec<u8> = wide.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let big: Vec<u8> = wide.iter().flat_map(|unit| unit.to_be_bytes()).collect();
    for (content, name) in [
        (&little[..], "UTF-16"),
        (&little[2..], "UTF-16"),
        (&big[..], "UTF-16"),
        (&big[2..], "UTF-16"),
        (b"\xfd7zXZ\0\0\x04", "xz"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\x04\x22\x4d\x18\x64", "lz4"),
        (b"PK\x03\x04\x14\0", "zip"),
        (b"SQLite format 3\0\x10", "--miniflare"),
    ] {
        std::fs::write(at.path("wrong.json"), content).unwrap();
        let told = at.fails(2, ["bulk", "put", "-n", "N", "wrong.json"]);
        assert!(
            told.contains(name) && told.contains("wrong.json") && told.contains("hint: "),
            "{told}"
        );
        let output = at.fed(["bulk", "put", "-n", "N", "-"], content);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && told.contains(name), "{told}");
    }
}

/// Base64 of 76 characters a line, as `base64` and MIME write it.
fn base64_in_lines(bytes: &[u8], end: &str) -> String {
    let text = STANDARD.encode(bytes);
    let lines = text
        .as_bytes()
        .chunks(76)
        .map(|line| std::str::from_utf8(line).unwrap());
    lines.map(|line| format!("{line}{end}")).collect()
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

/// However many pairs have them, and however many there are.
#[test]
fn unknown_properties_are_told_in_a_few_lines() {
    let at = Workplace::with_namespace();
    let pairs: Vec<_> = (0..25_000)
        .map(|n| match n % 5000 {
            0 => json!({"key": format!("k{n}"), "value": "v", "ttl": 60, format!("p{n}"): null}),
            _ => json!({"key": format!("k{n}"), "value": "v", "ttl": 60}),
        })
        .collect();
    std::fs::write(at.path("pairs.json"), serde_json::to_vec(&pairs).unwrap()).unwrap();
    let puts = ["bulk", "put", "-n", "N", "--os", "pairs.json"];
    let imports = ["import", "-n", "N", "--os", "--format", "bulk", "pairs.json"];
    for arguments in [&puts[..], &imports[..]] {
        let output = at.run(arguments.iter().copied());
        assert!(output.status.success(), "{output:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(told.lines().count(), 6, "{told}");
        assert!(
            told.contains("pair 1, line 1, key \"k0\": the unknown property \"ttl\" is ignored (and 24,999 more)"),
            "{told}"
        );
        assert!(told.contains("1 more remark of another kind"), "{told}");
    }
    // They are told of a file that is wrong, too.
    let wrong = br#"[{"key": "k", "value": "v", "ttl": 60}, {"key": "k", "value": null}]"#;
    let told = String::from_utf8(at.fed(["bulk", "put", "-n", "N", "-"], wrong).stderr).unwrap();
    assert!(told.contains("\"ttl\" is ignored") && told.contains("pair 2"), "{told}");
}

#[test]
fn values_and_metadata_of_any_json_are_kept_as_they_stand() {
    let at = Workplace::with_namespace();
    let values = [
        "{\"a\": [1, 2.50, \"\\u00e9]\"],\n  \"b\": {}}",
        "[ ]",
        "-0.10e5",
        "true",
        "false",
    ];
    let pairs: Vec<String> = values
        .iter()
        .enumerate()
        .map(|(n, json)| format!("{{\"metadata\" :{json} , \"value\":  {json} ,\"key\": \"k{n}\"}}"))
        .collect();
    std::fs::write(at.path("pairs.json"), format!("[{}]", pairs.join(",\n"))).unwrap();
    at.done(["--quiet", "bulk", "put", "-n", "N", "pairs.json"]);
    at.done(["--quiet", "import", "-n", "M", "--format", "bulk", "pairs.json"]);
    let store = at.store();
    for namespace in ["N", "M"] {
        let namespace = store.open_namespace(namespace).unwrap();
        for (n, json) in values.iter().enumerate() {
            let value = namespace.get(format!("k{n}")).unwrap().unwrap();
            assert_eq!(value.as_bytes(), json.as_bytes());
            assert_eq!(value.metadata(), Some(json.as_bytes()));
        }
    }
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
        (
            "[\n{\"key\": \"k\", \"value\": null}]",
            "line 2, key \"k\": the value is null",
        ),
        (r#"[{"key": "k", "value": [1], "base64": true}]"#, "not a string"),
        (r#"[{"key": "k", "value": "\ud83d"}]"#, "half a character"),
        (
            r#"[{"key": "k", "value": "v", "expiration": "soon"}]"#,
            "a whole number of seconds",
        ),
        (
            r#"[{"key": "k", "value": "v", "expiration": 1800000000000}]"#,
            "milliseconds",
        ),
        (r#"[{"key": "k", "value": "?", "base64": true}]"#, "base64"),
        (
            r#"[{"key": "k", "value": "v"}"#,
            "wrong.json, line 1, after item 1: the file ends before",
        ),
        (
            "[{\"key\": \"k\", \"value\": \"v\"},\n]",
            "wrong.json, line 2, after item 1: an item is missing",
        ),
        (r#"[] more"#, "wrong.json, line 1: there is more after the end"),
        ("[\n\n{\"key\": \"k\" \"value\"}]", "pair 1, line 3"),
        (
            r#"[{"key": "a", "value": "v"}, {"key": "k", "value": "?", "base64": true}]"#,
            "pair 2, line 1, key \"k\"",
        ),
        (
            r#"[{"key": "a", "value": "v"}, {"key": "", "value": "v"}]"#,
            "the first 1 are done",
        ),
        (
            r#"[{"key": "a", "value": "v", "expiration": 5}]"#,
            "pair 1, line 1, key \"a\": the expiration 5 is over: it means 1970-01-01T00:00:05",
        ),
        (
            r#"[{"key": "a", "value": "v", "expiration_ttl": 0}]"#,
            "pair 1, line 1, key \"a\": a lifetime of 0 seconds",
        ),
    ] {
        std::fs::write(at.path("wrong.json"), content).unwrap();
        let told = at.fails(2, ["bulk", "put", "-n", "N", "wrong.json"]);
        assert!(
            told.contains(expected) && told.contains("wrong.json"),
            "{content}: {told}"
        );
    }
    at.fails(2, ["bulk", "put", "-n", "N", "missing.json"]);
    std::fs::write(at.path("wrong.json"), r#"["a", 1]"#).unwrap();
    let told = at.fails(2, ["bulk", "get", "-n", "N", "wrong.json"]);
    assert!(
        told.contains("key 2, line 1: ") && told.contains("a key, which is a string"),
        "{told}"
    );
    at.fails(1, ["bulk", "put", "-n", "NOWHERE", "wrong.json"]);
}

#[test]
fn a_file_of_another_command_is_told_so() {
    let at = Workplace::with_namespace();
    let pairs = " [\n{\"key\": \"k\", \"value\": \"v\", \"base64\": null}\n]";
    for (content, arguments, expected) in [
        (LINE, &["bulk", "put", "-n", "N", "file"][..], "`embercask import`"),
        (LINE, &["bulk", "get", "-n", "N", "file"], "`embercask import`"),
        (pairs, &["import", "file"], "--format bulk"),
        ("", &["bulk", "put", "-n", "N", "file"], "there is nothing"),
    ] {
        std::fs::write(at.path("file"), content).unwrap();
        let told = at.fails(2, arguments.iter().copied());
        assert!(told.contains(expected) && told.contains("hint: "), "{told}");
    }
    std::fs::write(at.path("file"), pairs).unwrap();
    at.done(["bulk", "put", "-n", "N", "file"]);
}

/// No name of a type of Rust, no text as Rust quotes it, and not the whole of a long one.
#[test]
fn errors_are_in_the_words_of_json() {
    let at = Workplace::with_namespace();
    let long = "x".repeat(1 << 20);
    let pair = |property: &str| format!("[{{\"key\": \"k\", \"value\": \"v\", {property}}}]");
    let line = |property: &str| LINE.replace("}", &format!(", {property}}}"));
    let (put, import) = (["bulk", "put", "-n", "N", "file"], ["import", "file"]);
    for (content, arguments, expected) in [
        (
            format!("[\"{long}\"]"),
            &put[..],
            "a string instead of a pair, which is an object",
        ),
        ("[[\"k\", \"v\"]]".to_owned(), &put, "an array instead of a pair"),
        (
            "[{\"value\": \"v\"}]".to_owned(),
            &put,
            "the property \"key\" is missing",
        ),
        (pair("\"key\": \"l\""), &put, "the property \"key\" is there twice"),
        (
            pair("\"expiration\": \"\\u001b, expected\""),
            &put,
            "a string instead of a whole number of seconds",
        ),
        (
            pair("\"expiration\": 4e9"),
            &put,
            "a number with a fraction or exponent instead of a whole",
        ),
        (
            pair("\"expiration\": -1"),
            &put,
            "`-1` instead of a whole number of seconds",
        ),
        (
            pair("\"expiration\": 4000000000000000000"),
            &put,
            "looks like milliseconds or less",
        ),
        (
            pair("\"expiration_ttl\": 4000000000000"),
            &put,
            "looks like milliseconds or a time",
        ),
        (
            pair(&format!("\"base64\": \"{long}\"")),
            &put,
            "a string instead of a boolean",
        ),
        (
            line("\"expiration_ms\": \"soon\""),
            &import,
            "a string instead of a whole number;",
        ),
        (
            line("\"expiration_ms\": -1"),
            &import,
            "`-1` instead of a whole number;",
        ),
        (line(&format!("\"{long}\": 1")), &import, "...\" is not known"),
        (
            "{\n\"namespace\": \"N\"\n}".to_owned(),
            &import,
            "the JSON ends in the middle",
        ),
        (
            "{\"export\": \"1\"}".to_owned(),
            &import,
            "a string instead of a whole number",
        ),
    ] {
        std::fs::write(at.path("file"), content).unwrap();
        let told = at.fails(2, arguments.iter().copied());
        assert!(told.contains(expected) && told.contains("file, "), "{told}");
        assert!(told.len() < 500 && told.ends_with('\n'), "{told}");
    }
    for (content, expected) in [
        (
            "\"key\":\"k\",\"value\":\"\\ud83d\"",
            "file, line 1, key \"k\": the value has",
        ),
        (
            "\"key\":\"k\",\"value_base64\":\"?\"",
            "file, line 1, key \"k\": the value: this is not base64",
        ),
        (
            "\"key\":\"k\",\"value\":5",
            "file, line 1, key \"k\": the value is not a JSON string",
        ),
    ] {
        std::fs::write(at.path("file"), format!("{{\"namespace\":\"N\",{content}}}\n")).unwrap();
        let told = at.fails(2, import);
        assert!(
            told.contains(expected) && told.contains("; nothing was imported"),
            "{told}"
        );
    }
}

#[test]
fn keys_that_are_no_text_are_deleted_by_their_listing() {
    let at = Workplace::with_namespace();
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
    at.done(["key", "put", "-n", "N", "text", "v"]);
    std::fs::write(at.path("listed.json"), at.done(["key", "list", "-n", "N"])).unwrap();
    let output = at.run(["bulk", "get", "-n", "N", "listed.json"]);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("\\xff") && told.contains("hint: "), "{told}");
    at.done(["bulk", "delete", "-n", "N", "listed.json", "--force"]);
    assert_eq!(at.text(["key", "list", "-n", "N", "--count"]), "0\n");
}

#[test]
fn a_bulk_put_that_waits_is_stopped() {
    let at = Workplace::with_namespace();
    let mut child = at.spawned(["bulk", "put", "-n", "N", "-", "--os"]);
    let mut stdin = child.stdin.take().unwrap();
    let pairs: Vec<_> = (0..4500)
        .map(|n| format!("{{\"key\": \"key-{n:04}\", \"value\": \"v\"}}"))
        .collect();
    write!(stdin, "[{}", pairs.join(",")).unwrap();
    wait_until("four batches", || {
        let segments = std::fs::read_dir(at.path("store")).unwrap();
        let mut segments = segments.map(|entry| std::fs::read(entry.unwrap().path()).unwrap_or_default());
        segments.any(|bytes| bytes.windows(8).any(|bytes| bytes == b"key-3999"))
    });
    interrupt(&child);
    let told = stopped(child);
    assert!(told.contains("the first 4,000 are done"), "{told}");
    assert_eq!(at.text(["key", "list", "-n", "N", "--count"]), "4000\n");
}

#[test]
fn a_signal_during_a_read_from_a_pipe_ends_the_command() {
    let at = Workplace::with_namespace();
    // No signal is expected while a value is read from a pipe, so the first one ends the process.
    let mut child = at.spawned(["key", "put", "-n", "N", "k", "--path", "-"]);
    let mut stdin = child.stdin.take().unwrap();
    // More than a pipe holds: once all of it is written, the command is reading.
    stdin.write_all(&vec![b'v'; 4 << 20]).unwrap();
    interrupt(&child);
    let output = ended(child);
    // Ended by the handler with the documented status, not by the signal, which a shell would also
    // report as 130.
    assert_eq!(output.status.code(), Some(130), "{:?}", output.status);
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b""[..], &b""[..]));
    drop(stdin);
    at.fails(1, ["key", "get", "-n", "N", "k"]);
}
