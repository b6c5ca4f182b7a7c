//! The command line: listings that are limited, that go on at a cursor, and that follow a pattern.

use crate::command::Workplace;

/// A store with these keys in its namespace N.
fn filled(keys: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Workplace {
    let at = Workplace::with_namespace();
    let store = at.store();
    let namespace = store.open_namespace("N").unwrap();
    let mut batch = store.batch();
    for key in keys {
        batch.put(&namespace, key, "v");
    }
    batch.commit().unwrap();
    drop((batch, namespace));
    store.close().unwrap();
    at
}

/// What a listing with these flags prints, and the cursor that it tells.
fn listed(at: &Workplace, flags: &[&str]) -> (Vec<String>, Option<String>) {
    let output = at.run(["ls", "-n", "N", "--text"].iter().chain(flags).copied());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    let cursor = told.strip_prefix("cursor: ").map(|cursor| cursor.trim_end().to_owned());
    assert!(cursor.is_some() || told.is_empty(), "{told}");
    let said = String::from_utf8(output.stdout).unwrap();
    (said.lines().map(str::to_owned).collect(), cursor)
}

/// The keys of all pages with this limit.
fn turned(at: &Workplace, flags: &[&str], limit: usize) -> Vec<String> {
    let limit_text = limit.to_string();
    let flags = [flags, &["--limit", &limit_text]].concat();
    let (mut all, mut cursor) = listed(at, &flags);
    while let Some(here) = cursor {
        let (page, next) = listed(at, &[&flags[..], &["--cursor", &here]].concat());
        assert!(page.len() == limit || next.is_none(), "{} of {limit}", page.len());
        all.extend(page);
        cursor = next;
    }
    all
}

#[test]
fn a_limited_listing_goes_on_at_its_cursor() {
    let at = filled((0..2500).map(|n| format!("user-{n:04}")));
    for flags in [&[][..], &["--reverse"], &["--prefix", "user-1", "--end", "user-15"]] {
        let (whole, cursor) = listed(&at, flags);
        assert_eq!(cursor, None);
        for limit in [700, 1500, 2500] {
            assert_eq!(turned(&at, flags, limit), whole, "{flags:?} {limit}");
        }
    }
    let (_, cursor) = listed(&at, &["--limit", "2"]);
    let cursor = cursor.unwrap();
    // In every format; and not with --quiet.
    let array = at.json(["ls", "-n", "N", "--cursor", &cursor, "--limit", "1", "--quiet"]);
    assert_eq!(array, serde_json::json!([{"name": "user-0002"}]));
    // It belongs to its listing.
    for other in [&["--reverse"][..], &["--prefix", "u"], &["--count"]] {
        at.fails(
            2,
            ["ls", "-n", "N", "--cursor", &cursor, "--quiet"]
                .iter()
                .chain(other)
                .copied(),
        );
    }
    let output = at.run(["ls", "-n", "N", "--cursor", "nonsense"]);
    assert_eq!(output.status.code(), Some(2));
    // The empty cursor is that of the first page.
    assert_eq!(listed(&at, &["--cursor", "", "--limit", "1"]).0, ["user-0000"]);
}

#[test]
fn a_pattern_selects_keys_on_all_pages() {
    let keys: Vec<String> = (0..2500).map(|n| format!("user-{n:04}")).collect();
    let at = filled(keys.iter().cloned().chain(["a*b".to_owned(), "\u{fc}".to_owned()]));
    for (pattern, is_meant) in [
        ("user-*00", &(|key: &str| key.ends_with("00")) as &dyn Fn(&str) -> bool),
        ("*-?[1-3]0[!5]", &|key| {
            let digits = key.as_bytes();
            (b'1'..=b'3').contains(&digits[6]) && digits[7] == b'0' && digits[8] != b'5'
        }),
        ("*", &|_| true),
        ("user-2499", &|key| key == "user-2499"),
        ("user", &|_| false),
    ] {
        let mut expected: Vec<String> = keys.iter().filter(|key| is_meant(key)).cloned().collect();
        let flags = ["--pattern", pattern, "--prefix", "user-"];
        assert_eq!(listed(&at, &flags).0, expected, "{pattern}");
        let count = at.text(["ls", "-n", "N", "--count"].iter().chain(&flags).copied());
        assert_eq!(count.trim(), expected.len().to_string(), "{pattern}");
        if expected.len() < 100 {
            assert_eq!(turned(&at, &flags, 7), expected, "{pattern}");
        }
        expected.reverse();
        let reversed = [&flags[..], &["--reverse"]].concat();
        assert_eq!(turned(&at, &reversed, 700), expected, "{pattern}");
    }
    assert_eq!(listed(&at, &["--pattern", "a\\*?"]).0, ["a*b"]);
    assert_eq!(listed(&at, &["--pattern", "?"]).0, ["\u{fc}"]);
    // A prefix that the pattern contradicts.
    assert_eq!(listed(&at, &["--pattern", "user-*", "--prefix", "a"]).0, [""; 0]);
    assert_eq!(listed(&at, &["--pattern", "*b", "--prefix", "a"]).0, ["a*b"]);
    for wrong in ["[a", "a\\", "[z-a]"] {
        let told = at.fails(2, ["ls", "-n", "N", "--pattern", wrong]);
        assert!(told.contains("pattern"), "{told}");
    }
}

#[test]
fn keys_of_a_listing_are_given_and_printed_in_hexadecimal() {
    let at = filled([&b"a\x00"[..], b"a\xff", b"b\n"]);
    let hex = ["--key-format", "hex"];
    assert_eq!(listed(&at, &hex).0, ["6100", "61ff", "620a"]);
    for (flags, expected) in [
        (&["--prefix", "61"][..], &["6100", "61ff"][..]),
        (&["--start", "61ff"], &["61ff", "620a"]),
        (&["--start-after", "0x6100", "--end", "620A"], &["61ff"]),
    ] {
        assert_eq!(listed(&at, &[&hex, flags].concat()).0, expected, "{flags:?}");
    }
    assert_eq!(listed(&at, &["--key-format", "base64"]).0, ["YQA=", "Yf8=", "Ygo="]);
    // Never as they are: a key could look like two.
    for format in [&["--key-format", "raw"][..], &["--key-format", "escaped"], &[]] {
        assert_eq!(listed(&at, format).0, ["a\\x00", "a\\xff", "b\\n"], "{format:?}");
    }
    // JSON has fields of its own for keys that are not text.
    let array = at.json(["ls", "-n", "N", "--key-format", "hex", "--prefix", "61ff"]);
    assert_eq!(array, serde_json::json!([{"name_base64": "Yf8="}]));
}
