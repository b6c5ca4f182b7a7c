//! Parsers of requests: paths and parameters, metadata, forms, bulk bodies.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use super::bulk::{self as second, Expiry};
use crate::common::blanks::without_blanks;
use crate::common::fuzzing::json::{self, Wrong};
use crate::server::error::ApiError;
use crate::server::parse::bulk::{self, Kind};
use crate::server::parse::encoding::{Malformed, Query, decode};
use crate::server::parse::form;
use crate::server::parse::rules::{self, Expiration, ExpiryRules};
use embercask::testing::input::Input;

/// The store's time, in all of these targets.
const NOW_MS: u64 = 1_700_000_000_000;
const EXPIRY_RULES: ExpiryRules = ExpiryRules {
    now_ms: NOW_MS,
    ttl_seconds_min: 60,
};

fn is_far_enough(expiration: Expiration) -> bool {
    match expiration {
        Expiration::After(ttl) => ttl.as_secs() >= 60,
        Expiration::At(seconds) => seconds >= NOW_MS / 1000 + 60,
    }
}

fn seconds(expiration: Expiration) -> Expiry {
    match expiration {
        Expiration::After(ttl) => Expiry::After(ttl.as_secs()),
        Expiration::At(seconds) => Expiry::At(seconds),
    }
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
}

/// Paths and queries.
pub fn server_path(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    assert_eq!(decode(&escaped(data), false).as_deref(), Some(data));
    assert_eq!(decode(&escaped(data), true).as_deref(), Some(data));
    if let Some(decoded) = decode(&text, false) {
        // Decoding adds no bytes, and text without escapes is unchanged.
        assert!(decoded.len() <= text.len());
        if !text.contains('%') {
            assert_eq!(decoded, text.as_bytes());
        }
        if rules::check_key(&decoded).is_ok() {
            assert!((1..=512).contains(&decoded.len()) && std::str::from_utf8(&decoded).is_ok());
            assert!(decoded != b"." && decoded != b"..");
        }
    } else {
        assert!(text.contains('%'));
    }
    let query = Query::new(Some(&text));
    for name in ["prefix", "cursor", "expiration", "expiration_ttl", "urlencoded", ""] {
        let found = query.get(name);
        let text = query.text(name);
        match &found {
            Ok(None) => assert_eq!(text, Ok(None)),
            Ok(Some(value)) => match std::str::from_utf8(value) {
                Ok(value) => assert_eq!(text.as_ref().map(|text| text.as_deref()), Ok(Some(value))),
                Err(_) => assert_eq!(text, Err(Malformed)),
            },
            Err(Malformed) => assert_eq!(text, Err(Malformed)),
        }
        if !name.is_empty() && found.is_ok_and(|found| found.is_some()) {
            assert!(query.names().any(|known| known == name));
        }
    }
    // The first of two parameters is found.
    let before = format!("prefix={}&{text}", escaped(data));
    assert_eq!(Query::new(Some(&before)).get("prefix"), Ok(Some(data.to_vec())));
    let (expiration, ttl) = text.split_once('&').unwrap_or((&text, ""));
    // An empty lifetime is no number.
    let ttl = text.contains('&').then_some(ttl);
    if let Ok(expiry) = rules::expiration(Some(expiration), ttl, EXPIRY_RULES) {
        assert!(expiry.is_some_and(is_far_enough));
    }
}

/// The header with metadata.
pub fn server_metadata(data: &[u8]) {
    let parsed = serde_json::from_slice::<serde_json::Value>(data);
    match rules::check_metadata(data) {
        Ok(None) => assert!(matches!(parsed, Ok(serde_json::Value::Null)) && data.len() <= 1024),
        Ok(Some(kept)) => {
            assert!(kept == data && data.len() <= 1024);
            let shown = rules::metadata_json(Some(kept)).expect("it is JSON");
            assert!(!shown.get().contains(['\n', '\r', '\u{7f}']));
            let shown: Result<serde_json::Value, _> = serde_json::from_str(shown.get());
            // JSON that is nested too deep for a `Value` is accepted nevertheless.
            if let (Ok(shown), Ok(parsed)) = (shown, parsed) {
                assert_eq!(shown, parsed);
            }
        }
        Err(error) => assert!(matches!(error.status, 400 | 413) && (data.len() > 1024 || parsed.is_err())),
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(parsed) = serde_json::from_str::<serde_json::Value>(text)
    {
        let bare = without_blanks(text);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&bare).ok(), Some(parsed));
        assert_eq!(without_blanks(&bare), bare);
    }
}

/// Any bytes, as Content-Type and as body.
fn any_form(body: &[u8], boundary: &str) {
    let content_type = String::from_utf8_lossy(body);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(body) {
        headers.insert(CONTENT_TYPE, value);
    }
    let claims = content_type.to_ascii_lowercase().contains("multipart/form-data");
    match form::boundary(&headers) {
        Ok(Some(found)) => {
            assert!(claims && !found.is_empty());
            assert!(content_type.replace('\\', "").contains(&found.replace('\\', "")));
        }
        Ok(None) => assert!(!claims || headers.is_empty()),
        Err(error) => assert_eq!(error.status, 400),
    }
    if let Ok(form) = form::read(&Bytes::copy_from_slice(body), boundary) {
        let metadata = form.metadata.as_ref().map_or(0, Bytes::len);
        // Escapes make members up to six times as long in JSON.
        assert!(form.value.len() + metadata < 6 * body.len());
    }
}

/// A body in multipart/form-data: any bytes, or a form with any bytes in its parts.
pub fn server_form(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.u8();
    let length = usize::from(input.u8());
    let boundary = format!("b{}", escaped(input.bytes(length % 16)).replace('%', "x"));
    if how & 1 == 0 {
        any_form(input.rest(), &boundary);
        return;
    }
    let (metadata_length, has_metadata) = (usize::from(input.u8()), how & 2 != 0);
    let metadata = input.bytes(metadata_length);
    let value = input.rest();
    let delimiter = format!("\n--{boundary}");
    let holds = |bytes: &[u8]| {
        bytes
            .windows(delimiter.len())
            .any(|window| window == delimiter.as_bytes())
    };
    // A client chooses a boundary that is in neither.
    let framed = [&b"\r\n"[..], value, b"\r\n", metadata, b"\r\n"].concat();
    if holds(&framed) {
        return;
    }
    let mut body = Vec::new();
    let mut part = |head: &str, content: &[u8]| {
        body.extend_from_slice(format!("--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n").as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    };
    if has_metadata && how & 4 != 0 {
        part("name=\"metadata\"", metadata);
    }
    let of_a_file = "name=\"value\"; filename=\"blob\"\r\nContent-Type: application/octet-stream";
    part(if how & 8 == 0 { "name=\"value\"" } else { of_a_file }, value);
    if how & 16 != 0 {
        part("name=\"another\"", b"ignored");
    }
    if has_metadata && how & 4 == 0 {
        part("name=\"metadata\"", metadata);
    }
    let has_members = how & 32 != 0;
    if has_members {
        part("name=\"metadata[a][]\"", b"1");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let read = form::read(&body.into(), &boundary);
    if has_members {
        assert_eq!(read.expect_err("an object was taken apart").status, 400);
        return;
    }
    let form = read.expect("it is a form");
    assert_eq!(form.value, value);
    assert_eq!(form.metadata.as_deref(), has_metadata.then_some(metadata));
    assert_eq!(form.messages.len(), usize::from(how & 16 != 0));
}

/// Bodies of bulk put, delete and get: accepted or refused, and read, as by a second reader.
pub fn server_bulk(data: &[u8]) {
    let parsed = match json::parse(data) {
        Err(Wrong::TooDeep) => return,
        parsed => parsed.ok(),
    };
    let is_error = |error: &ApiError| matches!(error.status, 400 | 413 | 414);
    let mut puts = Vec::new();
    let read = bulk::puts(data, EXPIRY_RULES, |put| puts.push(put));
    match (read, parsed.as_ref().and_then(second::puts)) {
        (Ok(count), Some(expected)) => {
            assert_eq!(count.0, puts.len());
            let puts: Vec<_> = puts
                .into_iter()
                .map(|put| {
                    assert!(put.expiration.is_none_or(is_far_enough));
                    (put.key, put.value, put.expiration.map(seconds), put.metadata)
                })
                .collect();
            assert_eq!(puts, expected);
        }
        (Err(error), None) => assert!(is_error(&error)),
        (puts, expected) => panic!("{puts:?} is not {expected:?}"),
    }
    let mut names = Vec::new();
    let read = bulk::names(data, |name| names.push(name));
    match (read, parsed.as_ref().and_then(second::names)) {
        (Ok(count), Some(expected)) => assert_eq!((count, names), (expected.len(), expected)),
        (Err(error), None) => assert!(is_error(&error)),
        (names, expected) => panic!("{names:?} is not {expected:?}"),
    }
    match (bulk::get(data), parsed.as_ref().and_then(second::get)) {
        (Ok(get), Some((keys, is_json, with_metadata))) => {
            assert_eq!((get.keys, get.with_metadata), (keys, with_metadata));
            assert_eq!(matches!(get.kind, Kind::Json), is_json);
        }
        (Err(error), None) => assert!(is_error(&error)),
        (get, expected) => panic!("{get:?} is not {expected:?}"),
    }
    // A shown value is JSON.
    let json = |shown: &bulk::Shown<'_>| serde_json::to_string(shown).expect("it can be written");
    let shown = json(&Kind::Text.show(data).expect("any value can be shown as text"));
    let shown = json::parse(shown.as_bytes()).expect("it is JSON");
    assert_eq!(shown.text(), Some(&*String::from_utf8_lossy(data)));
    let shown = Kind::Json.show(data).ok().map(|shown| json(&shown));
    let expected = parsed.and_then(|node| std::str::from_utf8(node.raw).ok());
    assert_eq!(shown.as_deref(), expected);
}
