//! The server: keys that are no text, which a library or the command line can have stored, in the
//! listings of both faces.

use crate::command::Workplace;
use crate::http::{NAMESPACES, Server, request, started};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// Before, between and behind the others; beside one that a lenient reader would make of it; and a
/// prefix of which one is text.
const NO_TEXT: [&[u8]; 6] = [
    b"\x80",
    b"a\xff",
    b"b/\xc3",
    b"b/\xc3\x28",
    b"\xed\xa0\x80",
    b"\xff\xff",
];
const TEXT: [&str; 6] = ["a", "a\u{fffd}", "b/", "b/\u{fc}", "c", "\u{10ffff}"];

/// A server on a store that holds both, with metadata and expiry; and the id of its namespace.
fn filled() -> (Workplace, Server, String) {
    let at = Workplace::with_namespace();
    let id = at.json(["namespace", "list"])[0]["id"].as_str().unwrap().to_owned();
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

/// The keys of all pages of so many, and how many pages there were. `page` gives that behind a
/// cursor: its keys, and where the next begins.
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

/// Each key that is text comes once, in order, whatever the length of pages; a page of nothing but
/// others is empty, and not the last.
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
            // Those of a prefix that is whole; the other answer's shape is checked where pages are.
            let answer = request(&server.rest, "GET", &target, &[], b"").json();
            let keys = answer["result"].as_array().unwrap().clone();
            let info = &answer["result_info"];
            assert_eq!(info["count"], keys.len(), "what is shown is counted");
            let cursor = info["cursor"].as_str().unwrap();
            (keys, (!cursor.is_empty()).then(|| cursor.to_owned()))
        };
        walked(page, limit)
    });
    // Neither can be asked for; they are there all the same.
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
    // A prefix may be no text, and then begins none that is shown.
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

/// A client can take a cursor apart, put another key into it and compute the checksum again. It
/// sees no more by that than the prefix it was given.
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
        // A version and the checksum of the listing; the key; the checksum of it all.
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
