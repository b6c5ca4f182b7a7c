//! The server: listings in both protocols with keys that are not text, which the library or the
//! command line can store.

use crate::command::Workplace;
use crate::http::{NAMESPACES, Server, request, started};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// Before, between and after the text keys; next to the key that lossy decoding would yield; and
/// one with a prefix that is text.
const NO_TEXT: [&[u8]; 6] = [
    b"\x80",
    b"a\xff",
    b"b/\xc3",
    b"b/\xc3\x28",
    b"\xed\xa0\x80",
    b"\xff\xff",
];
const TEXT: [&str; 6] = ["a", "a\u{fffd}", "b/", "b/\u{fc}", "c", "\u{10ffff}"];

/// A server on a store with both kinds of keys, with metadata and expiry; and the namespace's id.
fn filled() -> (Workplace, Server, String) {
    let at = Workplace::with_namespace();
    let id = at.id_of("N");
    let store = at.store();
    let namespace = store.open_namespace("N").unwrap();
    for key in NO_TEXT.into_iter().chain(TEXT.map(str::as_bytes)) {
        let options = embercask::PutOptions::new().metadata("7").expiration(4_000_000_000);
        namespace.put_with(key, "v", options).unwrap();
    }
    drop(namespace);
    store.close().unwrap();
    let server = started(&at, &["--durability", "os"]);
    (at, server, id)
}

/// The keys of all pages of at most `limit` keys, and the number of pages. `page` gets the page at
/// a cursor: its keys, and the next cursor.
fn walked(page: impl Fn(&str) -> (Vec<Value>, Option<String>), limit: usize) -> (Vec<Value>, usize) {
    let (mut keys, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (found, next) = page(&cursor);
        assert!(found.len() <= limit);
        keys.extend(found);
        pages += 1;
        match next {
            Some(next) => cursor = next,
            None => return (keys, pages),
        }
    }
}

fn names(keys: &[Value]) -> Vec<&str> {
    keys.iter().map(|key| key["name"].as_str().unwrap()).collect()
}

/// Each text key is listed once, in order, for any page length; a page of other keys only is empty,
/// and not the last.
fn check(all: impl Fn(usize, &str) -> (Vec<Value>, usize)) {
    let expected = |prefix: &str| {
        TEXT.into_iter()
            .filter(|key| key.starts_with(prefix))
            .collect::<Vec<_>>()
    };
    for limit in [1, 2, 3, 5, 1000] {
        for prefix in ["", "a", "b/", "b/\u{fc}", "d"] {
            let (keys, pages) = all(limit, prefix);
            assert_eq!(names(&keys), expected(prefix), "{prefix:?} in pages of {limit}");
            for key in &keys {
                assert_eq!(key["expiration"], 4_000_000_000_u64, "{key}");
            }
            if (limit, prefix) == (1, "") {
                assert!(pages >= NO_TEXT.len() + TEXT.len(), "{pages} pages of one key or none");
            }
        }
    }
}

#[test]
fn keys_that_are_no_text_are_not_listed_by_the_rest_api_and_hide_no_others() {
    let (_at, server, id) = filled();
    check(|limit, prefix| {
        let page = |cursor: &str| {
            let prefix = prefix.replace('\u{fc}', "%C3%BC");
            let target = format!("{NAMESPACES}/{id}/keys?limit={limit}&prefix={prefix}&cursor={cursor}");
            let answer = request(&server.rest, "GET", &target, &[], b"").json();
            let keys = answer["result"].as_array().unwrap().clone();
            let info = &answer["result_info"];
            assert_eq!(info["count"], keys.len(), "what is shown is counted");
            let cursor = info["cursor"].as_str().unwrap();
            (keys, (!cursor.is_empty()).then(|| cursor.to_owned()))
        };
        walked(page, limit)
    });
    // Keys that are not text cannot be requested, but are still stored.
    let got = |key: &str| {
        request(
            &server.rest,
            "GET",
            &format!("{NAMESPACES}/{id}/values/{key}"),
            &[],
            b"",
        )
        .status
    };
    assert_eq!((got("a%FF"), got("%80"), got("a")), (400, 400, 200));
    assert_eq!(server.metric("store_keys"), 12);
}

#[test]
fn keys_that_are_no_text_are_not_listed_through_a_binding_and_hide_no_others() {
    let (_at, server, _) = filled();
    check(|limit, prefix| {
        let page = |cursor: &str| {
            let prefix = prefix.replace('\u{fc}', "%C3%BC");
            let target = format!("/?key_count_limit={limit}&prefix={prefix}&cursor={cursor}");
            let answer = request(&server.binding, "GET", &target, &[("X-KV-Namespace", b"N")], b"").json();
            let cursor = answer["cursor"].as_str().map(str::to_owned);
            assert_eq!(answer["list_complete"], cursor.is_none(), "{answer}");
            (answer["keys"].as_array().unwrap().clone(), cursor)
        };
        walked(page, limit)
    });
    // A prefix may be other than text; then no listed key has it.
    let answer = request(
        &server.binding,
        "GET",
        "/?prefix=a%FF",
        &[("X-KV-Namespace", b"N")],
        b"",
    )
    .json();
    assert_eq!(answer, serde_json::json!({ "keys": [], "list_complete": true }));
    let statuses = ["a%FF", "%80", "a"].map(|key| server.bound("GET", key, &[], b"").status);
    assert_eq!(statuses, [400, 400, 200]);
}

/// A client can take a cursor apart, replace its key and recompute the checksum. It still sees only
/// keys with its prefix.
#[test]
fn a_cursor_that_was_made_up_leads_out_of_no_prefix() {
    let (_at, server, id) = filled();
    let list = |cursor: &str| {
        let target = format!("{NAMESPACES}/{id}/keys?limit=1&prefix=b/&cursor={cursor}");
        request(&server.rest, "GET", &target, &[], b"")
    };
    let first = list("").json();
    let cursor = URL_SAFE_NO_PAD
        .decode(first["result_info"]["cursor"].as_str().unwrap())
        .unwrap();
    let with_key = |key: &str| {
        // Version and checksum of the listing; key; checksum of everything.
        let content = [&cursor[..5], key.as_bytes()].concat();
        let checksum = crc32fast::hash(&content).to_le_bytes();
        list(&URL_SAFE_NO_PAD.encode([&content[..], &checksum].concat()))
    };
    assert_eq!(with_key("b/").status, 200);
    for outside in ["", "a", "b", "c", "\u{10ffff}"] {
        let answer = with_key(outside);
        assert_eq!(answer.status, 400, "{outside:?}: {}", answer.json());
    }
}
