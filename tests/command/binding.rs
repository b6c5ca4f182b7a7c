//! The server: the binding protocol of workerd, as bytes.

use crate::command::{Workplace, now, wait_until};
use crate::http::{Answer, Connection, PATIENCE, SERVE, Server, request, started};
use serde_json::{Value, json};

/// A server with a namespace N, and requests to it.
struct Bound {
    server: Server,
    _at: Workplace,
}

impl Bound {
    fn new() -> Bound {
        let at = Workplace::with_namespace();
        Bound {
            server: started(&at, &["--durability", "os"]),
            _at: at,
        }
    }

    fn send(&self, method: &str, target: &str, headers: &[(&str, &[u8])], body: &[u8]) -> Answer {
        let mut all: Vec<(&str, &[u8])> = vec![("X-KV-Namespace", b"N")];
        all.extend_from_slice(headers);
        request(&self.server.binding, method, target, &all, body)
    }

    fn put(&self, key: &str, body: &[u8]) {
        let target = format!("/{key}?urlencoded=true");
        assert_eq!(self.send("PUT", &target, &[], body).line(), "200 OK");
    }

    fn get(&self, key: &str) -> Answer {
        self.send("GET", &format!("/{key}?urlencoded=true"), &[], b"")
    }

    /// Status and reason phrase of a refused request.
    fn refused(&self, method: &str, target: &str, headers: &[(&str, &[u8])], body: &[u8]) -> String {
        let answer = self.send(method, target, headers, body);
        assert!(answer.status >= 400, "{method} {target}: {answer:?}");
        assert_eq!(
            String::from_utf8_lossy(&answer.body),
            answer.reason,
            "the body repeats it"
        );
        answer.line()
    }

    fn list(&self, query: &str) -> Value {
        let answer = self.send("GET", &format!("/?{query}"), &[], b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    fn get_many(&self, body: &Value) -> Answer {
        let body = serde_json::to_vec(body).unwrap();
        self.send("POST", "/bulk/get", &[("Content-Type", b"application/json")], &body)
    }
}

#[test]
fn a_value_comes_back_as_it_was_put() {
    let at = Bound::new();
    let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for (key, value) in [("text", &b"logged-in"[..]), ("empty", b""), ("bytes", &all)] {
        at.put(key, value);
        let answer = at.get(key);
        assert_eq!((answer.status, &answer.body[..]), (200, value), "{key}");
        assert_eq!(answer.header("cf-kv-metadata"), None);
        assert_eq!(answer.header("cf-expiration"), None);
        assert_eq!(answer.header("content-encoding"), None);
    }
    let answer = at.get("missing");
    assert_eq!(answer.line(), "404 Not Found");
    for _ in 0..2 {
        let answer = at.send("DELETE", "/text?urlencoded=true", &[], b"");
        assert_eq!((answer.line().as_str(), answer.body.len()), ("200 OK", 0));
    }
    assert_eq!(at.get("text").status, 404);
}

#[test]
fn a_key_is_one_raw_segment_that_is_decoded_once() {
    let at = Bound::new();
    // The path that workerd sends for GET and PUT, that for DELETE, and the key.
    for (written, deleted, key) in [
        ("a%2Fb", "a%2Fb", "a/b"),
        ("..%2F..%2Fetc", "..%2F..%2Fetc", "../../etc"),
        ("...", "...", "..."),
        ("%252F", "%252F", "%2F"),
        ("a+b", "a%2Bb", "a+b"),
        ("a%20b", "a%20b", "a b"),
        ("%00%01%7F", "%00%01%7F", "\0\u{1}\u{7f}"),
        (
            "[x]^|~!$&'()*+,-.:;=@_",
            "%5Bx%5D%5E%7C%7E!%24%26'()*%2B%2C-.%3A%3B%3D%40_",
            "[x]^|~!$&'()*+,-.:;=@_",
        ),
        ("%F0%9F%94%A5", "%f0%9f%94%a5", "\u{1f525}"),
        ("%3Fa%3Db%26c", "%3Fa%3Db%26c", "?a=b&c"),
        ("bulk", "bulk", "bulk"),
        ("client%2Fv4", "client%2Fv4", "client/v4"),
    ] {
        at.put(written, key.as_bytes());
        let listed = at.list("");
        assert_eq!(listed["keys"], json!([{ "name": key }]), "{written}");
        assert_eq!(at.get(written).body, key.as_bytes());
        let answer = at.send("DELETE", &format!("/{deleted}?urlencoded=true"), &[], b"");
        assert_eq!(answer.status, 200);
        assert_eq!(at.get(written).status, 404, "{written}");
    }
    // Without the parameter the path is the key, verbatim.
    at.send("PUT", "/a%2Fb/c", &[], b"v");
    assert_eq!(at.list("")["keys"], json!([{ "name": "a%2Fb/c" }]));
    assert_eq!(at.send("GET", "/a%2Fb/c?urlencoded=false", &[], b"").body, b"v");
    assert_eq!(at.send("GET", "/a%252Fb%2Fc?urlencoded=TRUE", &[], b"").body, b"v");
}

#[test]
fn keys_that_are_none_are_refused() {
    let at = Bound::new();
    let longest = "a".repeat(512);
    at.put(&longest, b"v");
    let escaped = "%C3%BC".repeat(256);
    at.put(&escaped, b"v");
    for method in ["GET", "PUT", "DELETE"] {
        let refused = |key: &str| at.refused(method, &format!("/{key}?urlencoded=true"), &[], b"");
        let too_long = "414 UTF-8 encoded length of 513 exceeds key length limit of 512.";
        assert_eq!(refused(&format!("{longest}a")), too_long);
        assert_eq!(refused(&format!("{escaped}a")), too_long);
        for wrong in ["%ED%A0%80", "%zz", "a%", "%FF"] {
            assert_eq!(refused(wrong), "400 Could not URL-decode key name", "{wrong}");
        }
        for (path, key) in [("%2E", "."), ("%2E%2E", "..")] {
            let expected = format!("400 Illegal key name \"{key}\". Please use a different name.");
            assert_eq!(refused(path), expected);
        }
    }
    assert_eq!(
        at.refused("PUT", "/?urlencoded=true", &[], b"v"),
        "400 Key names must not be empty"
    );
    assert_eq!(
        at.refused("PATCH", "/a?urlencoded=true", &[], b"v"),
        "405 Method Not Allowed"
    );
    assert_eq!(at.refused("POST", "/a", &[], b"v"), "405 Method Not Allowed");
}

#[test]
fn expiry_has_rules_and_is_shown() {
    let at = Bound::new();
    let put = |query: &str| at.send("PUT", &format!("/k?urlencoded=true&{query}"), &[], b"v");
    let expiry = || -> Option<u64> {
        let answer = at.get("k");
        answer
            .header("cf-expiration")
            .map(|value| std::str::from_utf8(value).unwrap().parse().unwrap())
    };
    assert_eq!(put("expiration_ttl=60").status, 200);
    // Stored to the millisecond, shown rounded up.
    assert!((now() + 55..=now() + 61).contains(&expiry().unwrap()));
    assert_eq!(put("expiration=4000000000").status, 200);
    assert_eq!(expiry(), Some(4_000_000_000));
    assert_eq!(
        at.list("")["keys"],
        json!([{ "name": "k", "expiration": 4_000_000_000_u64 }])
    );
    // The lifetime wins over the expiration, whether that is valid or not.
    assert_eq!(put("expiration=5&expiration_ttl=1000").status, 200);
    assert!((now() + 940..=now() + 1001).contains(&expiry().unwrap()));
    // A put replaces everything.
    assert_eq!(put("").status, 200);
    assert_eq!(expiry(), None);
    let refused = |query: &str| at.refused("PUT", &format!("/k?urlencoded=true&{query}"), &[], b"v");
    for ttl in ["0", "-1", "x", ""] {
        assert_eq!(
            refused(&format!("expiration=4000000000&expiration_ttl={ttl}")),
            format!("400 Invalid expiration_ttl of {ttl}. Please specify integer greater than 0.")
        );
    }
    assert_eq!(
        refused("expiration_ttl=59"),
        "400 Invalid expiration_ttl of 59. Expiration TTL must be at least 60."
    );
    assert_eq!(
        refused("expiration=1000"),
        "400 Invalid expiration of 1000. Please specify integer greater than the current number of seconds since the UNIX epoch."
    );
    assert_eq!(
        refused("expiration=1795689696000"),
        "400 Invalid expiration of 1795689696000. This looks like milliseconds. Please specify seconds since the UNIX epoch."
    );
    assert_eq!(
        refused("expiration_ttl=1795689696000"),
        "400 Invalid expiration_ttl of 1795689696000. This looks like milliseconds, or like a time. Please specify seconds from now."
    );
    let soon = now() + 50;
    assert_eq!(
        refused(&format!("expiration={soon}")),
        format!("400 Invalid expiration of {soon}. Expiration times must be at least 60 seconds in the future.")
    );
}

#[test]
fn metadata_are_raw_utf_8_in_a_header() {
    let at = Bound::new();
    let put = |metadata: &[u8]| at.send("PUT", "/k?urlencoded=true", &[("CF-KV-Metadata", metadata)], b"v");
    for metadata in [
        "{\"name\":\"Zo\u{eb} \u{1f525}\"}",
        "false",
        "0",
        "\"\"",
        "{}",
        "[1,2.50]",
        "\"text\"",
    ] {
        assert_eq!(put(metadata.as_bytes()).status, 200, "{metadata}");
        assert_eq!(at.get("k").header("cf-kv-metadata"), Some(metadata.as_bytes()));
        // In a listing it is JSON in a string; in a bulk get it is JSON.
        assert_eq!(at.list("")["keys"], json!([{ "name": "k", "metadata": metadata }]));
        let many = at.get_many(&json!({ "keys": ["k"], "withMetadata": true })).json();
        let parsed: Value = serde_json::from_str(metadata).unwrap();
        assert_eq!(many, json!({ "k": { "value": "v", "metadata": parsed } }));
    }
    let longest = format!("\"{}\"", "\u{fc}".repeat(511));
    assert_eq!(longest.len(), 1024);
    assert_eq!(put(longest.as_bytes()).status, 200);
    assert_eq!(at.get("k").header("cf-kv-metadata"), Some(longest.as_bytes()));
    let refused = |metadata: &str| {
        at.refused(
            "PUT",
            "/k?urlencoded=true",
            &[("cf-kv-metadata", metadata.as_bytes())],
            b"v",
        )
    };
    assert_eq!(
        refused(&format!("\"{}a\"", "\u{fc}".repeat(511))),
        "413 Metadata length of 1025 exceeds limit of 1024."
    );
    assert_eq!(refused("{"), "400 metadata must be valid json");
    at.put("k", b"without");
    assert_eq!(at.get("k").header("cf-kv-metadata"), None);
}

#[test]
fn bodies_are_read_to_their_end_before_an_error() {
    let at = Bound::new();
    let largest = vec![b'v'; 25 << 20];
    at.put("largest", &largest);
    assert!(at.get("largest").body == largest);
    // On one connection, which stays usable: the whole body is read.
    let mut connection = Connection::to(&at.server.binding);
    let namespace: (&str, &[u8]) = ("X-KV-Namespace", b"N");
    let too_large = vec![b'v'; (25 << 20) + 1];
    let answer = connection.request("PUT", "/k?urlencoded=true", &[namespace], &too_large);
    assert_eq!(answer.line(), "413 Value length of 26214401 exceeds limit of 26214400.");
    let answer = connection.request("PUT", "/k?urlencoded=true&expiration_ttl=1", &[namespace], &largest);
    assert_eq!(answer.status, 400);
    // Chunked, so of unknown length.
    connection
        .send(b"PUT /k?urlencoded=true HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = vec![b'c'; 1 << 20];
    for _ in 0..26 {
        connection.send(format!("{:x}\r\n", chunk.len()).as_bytes());
        connection.send(&chunk);
        connection.send(b"\r\n");
    }
    connection.send(b"0\r\n\r\n");
    let answer = connection.answer();
    assert_eq!(answer.line(), "413 Value length of 27262976 exceeds limit of 26214400.");
    connection.send(b"PUT /k?urlencoded=true HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    assert_eq!(connection.answer().status, 200);
    assert_eq!(
        connection.request("GET", "/k?urlencoded=true", &[namespace], b"").body,
        b"abcde"
    );
    assert_eq!(at.list("prefix=k")["keys"].as_array().unwrap().len(), 1);
}

#[test]
fn a_body_that_is_cut_off_writes_nothing() {
    let at = Bound::new();
    at.put("k", b"before");
    let mut connection = Connection::to(&at.server.binding);
    connection.send(
        b"PUT /k?urlencoded=true HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\nContent-Length: 10\r\n\r\nhalf",
    );
    drop(connection);
    let mut connection = Connection::to(&at.server.binding);
    connection.send(b"PUT /k?urlencoded=true HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nnonsense");
    drop(connection);
    let answered = "requests_total{face=\"binding\",operation=\"put\",status=\"200\"}";
    wait_until("the end of both, in one way or the other", || {
        at.server.metric("disconnected_total") + at.server.metric(answered) == 3
    });
    assert_eq!(at.get("k").body, b"before");
    assert_eq!(at.server.metric(answered), 1, "the one before them");
}

#[test]
fn listings_have_pages() {
    let at = Bound::new();
    for n in 0..30 {
        at.put(&format!("user-{n:02}"), b"v");
    }
    at.put("%C3%BC", b"v");
    at.put("a%00b", b"v");
    assert_eq!(at.list("prefix=a%00")["keys"], json!([{ "name": "a\u{0}b" }]));
    let first = at.list("key_count_limit=20&prefix=user-");
    assert_eq!(first["keys"].as_array().unwrap().len(), 20);
    assert_eq!(first["list_complete"], false);
    let cursor = first["cursor"].as_str().unwrap();
    assert!(
        cursor
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)),
        "{cursor}"
    );
    // A cursor can be used twice, and with another limit.
    for limit in [5, 1000] {
        let next = at.list(&format!("key_count_limit={limit}&prefix=user-&cursor={cursor}"));
        assert_eq!(next["keys"][0]["name"], "user-20");
        assert_eq!(next["list_complete"], limit == 1000);
        assert_eq!(next.get("cursor").is_some(), limit == 5);
    }
    // The last key of a page may be deleted.
    at.send("DELETE", "/user-19?urlencoded=true", &[], b"");
    let next = at.list(&format!("prefix=user-&cursor={cursor}"));
    assert_eq!(next["keys"][0]["name"], "user-20");
    // Empty parameters mean none.
    assert_eq!(at.list("prefix=&cursor=")["keys"].as_array().unwrap().len(), 31);
    assert_eq!(at.list("prefix=nothing"), json!({ "keys": [], "list_complete": true }));
    assert_eq!(at.list("prefix=%C3%BC")["keys"], json!([{ "name": "\u{fc}" }]));
    let refused = |query: &str| at.refused("GET", &format!("/?{query}"), &[], b"");
    assert_eq!(
        refused("key_count_limit=1001"),
        "400 Invalid key_count_limit of 1001. Please specify an integer less than 1000."
    );
    assert_eq!(
        refused("key_count_limit=0"),
        "400 Invalid key_count_limit of 0. Please specify an integer greater than 0."
    );
    assert!(refused("key_count_limit=").starts_with("400 Invalid key_count_limit"));
    let long = "p".repeat(513);
    assert_eq!(
        refused(&format!("prefix={long}")),
        "414 UTF-8 encoded length of 513 exceeds key length limit of 512."
    );
    assert!(refused("cursor=nonsense").starts_with("400 "));
}

#[test]
fn many_keys_are_got_at_once() {
    let at = Bound::new();
    at.put("text", "gr\u{fc}n".as_bytes());
    at.put("json", b"{\"a\": [1, 2.50]}");
    at.put("bytes", b"a\xffb");
    let body = |body: &Value| {
        let answer = at.get_many(body);
        assert_eq!(answer.status, 200, "{answer:?}");
        String::from_utf8(answer.body).unwrap()
    };
    // In the order of the request, without duplicates.
    assert_eq!(
        body(&json!({ "keys": ["text", "missing", "bytes", "text"] })),
        "{\"text\":\"gr\u{fc}n\",\"missing\":null,\"bytes\":\"a\u{fffd}b\"}"
    );
    assert_eq!(
        body(&json!({ "keys": ["json"], "type": "json", "cacheTtl": "60" })),
        "{\"json\":{\"a\": [1, 2.50]}}"
    );
    assert_eq!(
        body(&json!({ "keys": ["json", "missing"], "type": "text", "withMetadata": true })),
        "{\"json\":{\"value\":\"{\\\"a\\\": [1, 2.50]}\",\"metadata\":null},\"missing\":null}"
    );
    let refused = |body: &Value| at.get_many(body).line();
    let keys: Vec<String> = (0..101).map(|n| n.to_string()).collect();
    assert_eq!(
        refused(&json!({ "keys": keys })),
        "400 You can request a maximum of 100 keys"
    );
    assert_eq!(
        refused(&json!({ "keys": [] })),
        "400 You must request a minimum of 1 key"
    );
    assert_eq!(
        refused(&json!({ "keys": ["a"], "type": "stream" })),
        "400 \"stream\" is not a valid type. Use \"json\" or \"text\""
    );
    assert_eq!(
        refused(&json!({ "keys": ["text"], "type": "json" })),
        "400 At least one of the requested keys corresponds to a non-json value"
    );
    assert_eq!(refused(&json!({ "keys": [""] })), "400 Key names must not be empty");
    // A reason phrase is ASCII, one line, and bounded.
    assert_eq!(
        refused(&json!({ "keys": ["a"], "type": "\u{fc}\r\n" })),
        "400 \"?  \" is not a valid type. Use \"json\" or \"text\""
    );
    let long = refused(&json!({ "keys": ["a"], "type": "x".repeat(5000) }));
    assert_eq!(long.len(), "400 ".len() + 512);
    assert_eq!(
        refused(&json!({ "keys": ["a"], "cacheTtl": "10" })),
        "400 Invalid cache_ttl of 10. Cache TTL must be at least 30."
    );
    let large = vec![b'v'; 13 << 20];
    at.put("large1", &large);
    at.put("large2", &large);
    assert_eq!(
        refused(&json!({ "keys": ["large1", "large2"] })),
        "413 Total size of request exceeds the limit of 25MB"
    );
    for wrong in [
        &b"nonsense"[..],
        b"{}",
        b"{\"keys\": [1]}",
        b"{\"keys\": [\"\\ud800\"]}",
    ] {
        assert_eq!(at.send("POST", "/bulk/get", &[], wrong).status, 400);
    }
}

#[test]
fn cache_ttl_is_checked_before_the_key_is_looked_up() {
    let at = Bound::new();
    let refused = |ttl: &str| at.refused("GET", &format!("/missing?urlencoded=true&cache_ttl={ttl}"), &[], b"");
    assert_eq!(
        refused("29"),
        "400 Invalid cache_ttl of 29. Cache TTL must be at least 30."
    );
    assert_eq!(refused(""), "400 Invalid cache_ttl of . Cache TTL must be at least 30.");
    assert_eq!(
        at.send("GET", "/missing?urlencoded=true&cache_ttl=30", &[], b"").status,
        404
    );
}

#[test]
fn heads_may_be_as_long_as_workerd_makes_them() {
    let at = Bound::new();
    let key = "%F0%9F%94%A5".repeat(128);
    let target = format!("/{key}?urlencoded=true");
    let copy = format!("https://fake-host{target}");
    let metadata = format!("\"{}\"", "m".repeat(1022));
    let padding = "p".repeat(10_000);
    let headers: [(&str, &[u8]); 3] = [
        ("CF-KV-FLPROD-405", copy.as_bytes()),
        ("CF-KV-Metadata", metadata.as_bytes()),
        ("X-Padding", padding.as_bytes()),
    ];
    assert_eq!(at.send("PUT", &target, &headers, b"v").status, 200);
    assert_eq!(at.get(&key).body, b"v");
}

#[test]
fn a_request_says_by_a_header_which_namespace_it_is_for() {
    let at = Workplace::with_namespace();
    at.done(["namespace", "create", "M"]);
    at.done(["key", "put", "-n", "M", "k", "of M"]);
    let id = at.id_of("M");
    let socket = at.path("socket");
    let fixed = format!("N=unix:{}", socket.display());
    let arguments = SERVE
        .iter()
        .copied()
        .chain(["--binding-for", &fixed, "--binding-for", "NEW=127.0.0.1:0"]);
    let mut server = Server::start(at.command(arguments), 2);
    let get = |headers: &[(&str, &[u8])]| request(&server.binding, "GET", "/k?urlencoded=true", headers, b"");
    assert_eq!(get(&[("X-KV-Namespace", b"M")]).body, b"of M");
    assert_eq!(get(&[("x-kv-namespace", id.as_bytes())]).body, b"of M");
    assert_eq!(get(&[("X-KV-Namespace", b"N")]).status, 404);
    // Not 404, which would mean an absent key.
    assert_eq!(
        get(&[]).line(),
        "400 The header X-KV-Namespace does not name a namespace"
    );
    assert_eq!(
        get(&[("X-KV-Namespace", b"NOBODY")]).line(),
        "400 There is no such namespace"
    );

    let stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut connection = Connection::on(stream);
    assert_eq!(
        connection.request("PUT", "/k?urlencoded=true", &[], b"of N").status,
        200
    );
    // The header is ignored there.
    let answer = connection.request("GET", "/k?urlencoded=true", &[("X-KV-Namespace", b"M")], b"");
    assert_eq!(answer.body, b"of N");
    let new = server
        .others
        .iter()
        .find(|line| line.contains("namespace NEW"))
        .unwrap();
    let address = new.split("://").nth(1).unwrap().split(',').next().unwrap().to_owned();
    assert_eq!(
        request(&address, "PUT", "/k?urlencoded=true", &[], b"of NEW").status,
        200
    );
    drop(connection);
    assert_eq!(server.stop(), Some(0));
    assert!(!socket.exists());
    assert_eq!(at.text(["key", "get", "-n", "NEW", "k"]), "of NEW");
    assert_eq!(at.text(["key", "get", "-n", "N", "k"]), "of N");
}
