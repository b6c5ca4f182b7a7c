//! The server: entity tags and conditional requests, in both protocols.

use std::sync::Barrier;

use crate::command::Workplace;
use crate::http::{Answer, Connection, NAMESPACES, Server, started};

/// A protocol, and what its requests need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Face {
    Rest,
    Binding,
}

const FACES: [Face; 2] = [Face::Rest, Face::Binding];

type Headers<'a> = &'a [(&'a str, &'a [u8])];

struct Served {
    server: Server,
    /// The id of the namespace N.
    id: String,
    _at: Workplace,
}

impl Served {
    fn new() -> Served {
        let at = Workplace::with_namespace();
        let id = at.id_of("N");
        Served {
            server: started(&at, &["--durability", "os", "--minimum-ttl", "2"]),
            id,
            _at: at,
        }
    }

    fn connection(&self, face: Face) -> Connection<std::net::TcpStream> {
        Connection::to(match face {
            Face::Rest => &self.server.rest,
            Face::Binding => &self.server.binding,
        })
    }

    /// The path of a key, with a query.
    fn target(&self, face: Face, key: &str) -> String {
        let (key, query) = key.split_once('?').unwrap_or((key, ""));
        match face {
            Face::Rest => format!("{NAMESPACES}/{}/values/{key}?{query}", self.id),
            Face::Binding => format!("/{key}?urlencoded=true&{query}"),
        }
    }

    fn send(&self, face: Face, method: &str, key: &str, headers: Headers<'_>, body: &[u8]) -> Answer {
        self.send_on(&mut self.connection(face), face, (method, key), headers, body)
    }

    fn send_on(
        &self,
        connection: &mut Connection<std::net::TcpStream>,
        face: Face,
        (method, key): (&str, &str),
        headers: Headers<'_>,
        body: &[u8],
    ) -> Answer {
        let namespace: (&str, &[u8]) = ("X-KV-Namespace", b"N");
        let headers = [&[namespace], headers].concat();
        connection.request(method, &self.target(face, key), &headers, body)
    }

    fn status(&self, face: Face, method: &str, key: &str, headers: Headers<'_>) -> u16 {
        self.send(face, method, key, headers, b"new").status
    }
}

fn etag(answer: &Answer) -> Vec<u8> {
    let etag = answer.header("etag").unwrap_or_else(|| panic!("no etag in {answer:?}"));
    assert!(
        etag.len() == 34 && etag.starts_with(b"\"") && etag.ends_with(b"\""),
        "{answer:?}"
    );
    etag.to_vec()
}

fn weak(etag: &[u8]) -> Vec<u8> {
    [b"W/", etag].concat()
}

const ANY: &[u8] = b"*";
const OTHER: &[u8] = b"\"00000000000000000000000000000000\"";

#[test]
fn a_put_is_done_only_if_its_conditions_hold() {
    let at = Served::new();
    for face in FACES {
        let key = &format!("{face:?}");
        let put = |headers: Headers<'_>| at.status(face, "PUT", key, headers);
        assert_eq!(put(&[("If-Match", ANY)]), 412);
        assert_eq!(put(&[("If-Match", OTHER)]), 412);
        assert_eq!(at.status(face, "GET", key, &[]), 404, "refused, and not written");
        let first = at.send(face, "PUT", key, &[("If-None-Match", ANY)], b"first");
        assert_eq!(first.status, 200);
        let first = etag(&first);
        assert_eq!(put(&[("If-None-Match", ANY)]), 412);
        assert_eq!(put(&[("If-None-Match", &first)]), 412);
        assert_eq!(put(&[("If-None-Match", &weak(&first))]), 412, "compared weakly");
        assert_eq!(put(&[("If-Match", OTHER)]), 412);
        assert_eq!(put(&[("If-Match", &weak(&first))]), 412, "compared strongly");
        assert_eq!(put(&[("If-Match", ANY), ("If-None-Match", ANY)]), 412);
        let got = at.send(face, "GET", key, &[], b"");
        assert_eq!((&got.body[..], etag(&got)), (&b"first"[..], first.clone()), "unchanged");
        assert_eq!(
            put(&[("If-Match", &[OTHER, b", ", &first].concat())]),
            200,
            "one of several"
        );
        assert_eq!(put(&[("If-Match", &first)]), 412, "it has changed");
        let second = etag(&at.send(face, "GET", key, &[], b""));
        assert_ne!(first, second);
        assert_eq!(
            put(&[("If-Match", OTHER), ("If-Match", &second)]),
            200,
            "a header twice"
        );
        assert_eq!(put(&[("If-Match", ANY)]), 200);
        assert_eq!(put(&[("If-None-Match", &first)]), 200);
    }
}

#[test]
fn a_delete_is_done_only_if_its_conditions_hold() {
    let at = Served::new();
    for face in FACES {
        let key = &format!("{face:?}");
        let delete = |headers: Headers<'_>| at.status(face, "DELETE", key, headers);
        assert_eq!(delete(&[("If-Match", ANY)]), 412);
        assert_eq!(delete(&[("If-Match", OTHER)]), 412);
        assert_eq!(delete(&[("If-None-Match", ANY)]), 200, "absent, as was asked");
        let put = etag(&at.send(face, "PUT", key, &[], b"v"));
        assert_eq!(delete(&[("If-None-Match", ANY)]), 412);
        assert_eq!(delete(&[("If-Match", OTHER)]), 412);
        assert_eq!(delete(&[("If-Match", &weak(&put))]), 412);
        assert_eq!(at.status(face, "GET", key, &[]), 200, "still there");
        assert_eq!(delete(&[("If-Match", &put)]), 200);
        assert_eq!(at.status(face, "GET", key, &[]), 404);
        at.send(face, "PUT", key, &[], b"v");
        assert_eq!(delete(&[("If-Match", ANY)]), 200);
        assert_eq!(at.status(face, "GET", key, &[]), 404);
    }
}

#[test]
fn a_read_says_that_nothing_has_changed_or_that_something_has() {
    let at = Served::new();
    for face in FACES {
        let key = &format!("{face:?}");
        let put = etag(&at.send(face, "PUT", key, &[], b"v"));
        let get = |headers: Headers<'_>| at.send(face, "GET", key, headers, b"");
        for unchanged in [&put[..], &weak(&put), ANY, &[OTHER, b",", &put].concat()] {
            let answer = get(&[("If-None-Match", unchanged)]);
            assert_eq!((answer.status, etag(&answer)), (304, put.clone()));
        }
        assert_eq!(get(&[("If-None-Match", OTHER)]).body, b"v");
        assert_eq!(get(&[("If-Match", &put)]).body, b"v");
        assert_eq!(get(&[("If-Match", ANY)]).body, b"v");
        assert_eq!(get(&[("If-Match", OTHER)]).status, 412);
        assert_eq!(get(&[("If-Match", &weak(&put))]).status, 412);
        assert_eq!(get(&[("If-Match", OTHER), ("If-None-Match", &put)]).status, 412);
        // Conditions on what is absent change nothing.
        for condition in ["If-Match", "If-None-Match"] {
            assert_eq!(at.status(face, "GET", "absent", &[(condition, ANY)]), 404);
        }
    }
}

#[test]
fn an_error_has_the_usual_form_and_a_malformed_condition_is_one() {
    let at = Served::new();
    at.send(Face::Rest, "PUT", "k", &[], b"v");
    let answer = at.send(Face::Rest, "PUT", "k", &[("If-None-Match", ANY)], b"v");
    let (status, code, message) = answer.error();
    assert_eq!((status, code), (412, 10412));
    assert!(message.starts_with("Precondition Failed: the key exists"), "{message}");
    let answer = at.send(Face::Binding, "PUT", "k", &[("If-None-Match", ANY)], b"v");
    assert_eq!(answer.line(), format!("412 {message}"));
    for face in FACES {
        for method in ["GET", "PUT", "DELETE"] {
            for condition in ["If-Match", "If-None-Match"] {
                for malformed in [&b"etag"[..], b"", b"\"a", b"*, \"a\""] {
                    let answer = at.send(face, method, "k", &[(condition, malformed)], b"new");
                    assert_eq!(answer.status, 400, "{method} {condition} {malformed:?}");
                }
            }
        }
    }
    assert_eq!(at.send(Face::Rest, "GET", "k", &[], b"").body, b"v");
    // What would be done to more than one value without looking at the condition is not done.
    let namespace = format!("{NAMESPACES}/{}", at.id);
    let any: Headers<'_> = &[("If-None-Match", ANY)];
    for (method, path) in [
        ("PUT", "/bulk"),
        ("DELETE", "/bulk"),
        ("POST", "/bulk/delete"),
        ("DELETE", ""),
    ] {
        let mut connection = at.connection(Face::Rest);
        let answer = connection.request(method, &format!("{namespace}{path}"), any, b"[]");
        assert_eq!(answer.error().0, 400, "{method} {path}");
    }
}

#[test]
fn a_tag_is_of_value_metadata_and_expiry_and_the_same_wherever_it_is_told() {
    let at = Served::new();
    let mut seen = Vec::new();
    for (query, metadata, value) in [
        ("", None, &b"v"[..]),
        ("", None, b"w"),
        ("", Some(&b"{}"[..]), b"v"),
        ("expiration=4000000000", None, b"v"),
        ("expiration=4000000001", None, b"v"),
        ("expiration_ttl=1000", Some(b"1"), b"v"),
    ] {
        let key = format!("k?{query}");
        let metadata: Vec<(&str, &[u8])> = metadata.map(|json| ("CF-KV-Metadata", json)).into_iter().collect();
        let put = etag(&at.send(Face::Binding, "PUT", &key, &metadata, value));
        assert!(!seen.contains(&put), "{query} {metadata:?}");
        for face in FACES {
            assert_eq!(etag(&at.send(face, "GET", "k", &[], b"")), put);
        }
        seen.push(put);
    }
    // The same content has the same tag, whichever key and sequence it has.
    let again = at.send(Face::Rest, "PUT", "another", &[], b"v");
    assert_eq!(etag(&again), seen[0]);
}

#[test]
fn a_long_value_has_a_tag_if_that_is_asked_for() {
    let at = Served::new();
    for (length, is_told) in [(1 << 20, true), ((1 << 20) + 1, false)] {
        let value = vec![b'v'; length];
        for face in FACES {
            let put = at.send(face, "PUT", "long", &[], &value);
            let got = at.send(face, "GET", "long", &[], b"");
            assert_eq!((put.status, got.body.len()), (200, length));
            assert_eq!(
                (put.header("etag").is_some(), got.header("etag").is_some()),
                (is_told, is_told)
            );
            let put = etag(&at.send(face, "PUT", "long", &[("If-Match", ANY)], &value));
            assert_eq!(
                etag(&at.send(face, "GET", "long", &[("If-None-Match", OTHER)], b"")),
                put
            );
            assert_eq!(at.status(face, "GET", "long", &[("If-None-Match", &put)]), 304);
            let head = at.send(face, "HEAD", "long", &[("Range", b"bytes=0-0")], b"");
            assert_eq!((head.status, etag(&head)), (200, put.clone()));
            assert_eq!(head.header("content-length"), Some(length.to_string().as_bytes()));
            assert_eq!(at.status(face, "HEAD", "long", &[("If-None-Match", &put)]), 304);
            assert_eq!(at.status(face, "HEAD", "long", &[("If-Match", OTHER)]), 412);
            assert_eq!(at.status(face, "DELETE", "long", &[("If-Match", &put)]), 200);
        }
    }
}

/// The condition is judged in one step with the put: a judgement before it would lose increments.
#[test]
fn increments_by_conditional_puts_add_up() {
    const THREADS: u64 = 4;
    const INCREMENTS: u64 = 50;
    let at = Served::new();
    at.send(Face::Rest, "PUT", "counter", &[], b"0");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let at = &at;
            scope.spawn(move || {
                let face = FACES[(thread % 2) as usize];
                let mut connection = at.connection(face);
                for _ in 0..INCREMENTS {
                    loop {
                        let got = at.send_on(&mut connection, face, ("GET", "counter"), &[], b"");
                        let number: u64 = std::str::from_utf8(&got.body).unwrap().parse().unwrap();
                        let condition = etag(&got);
                        let put = at.send_on(
                            &mut connection,
                            face,
                            ("PUT", "counter"),
                            &[("If-Match", &condition)],
                            (number + 1).to_string().as_bytes(),
                        );
                        match put.status {
                            200 => break,
                            status => assert_eq!(status, 412),
                        }
                    }
                }
            });
        }
    });
    let sum = at.send(Face::Rest, "GET", "counter", &[], b"").body;
    assert_eq!(String::from_utf8(sum).unwrap(), (THREADS * INCREMENTS).to_string());
}

#[test]
fn of_many_that_create_a_key_one_does() {
    const THREADS: usize = 8;
    let at = Served::new();
    for round in 0..10 {
        let (key, together) = (format!("lock{round}"), Barrier::new(THREADS));
        let won: Vec<bool> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (at, key, together) = (&at, &key, &together);
                    scope.spawn(move || {
                        let face = FACES[thread % 2];
                        let mut connection = at.connection(face);
                        together.wait();
                        let name = thread.to_string();
                        let any: Headers<'_> = &[("If-None-Match", ANY)];
                        let put = at.send_on(&mut connection, face, ("PUT", key), any, name.as_bytes());
                        put.status == 200
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winner = won.iter().position(|won| *won).unwrap();
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
        let got = at.send(Face::Rest, "GET", &key, &[], b"");
        assert_eq!(got.body, winner.to_string().as_bytes());
    }
}

#[test]
fn a_part_of_a_value_is_got_by_its_range() {
    let at = Served::new();
    let value: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    for face in FACES {
        let small = etag(&at.send(face, "PUT", "small", &[], b"0123456789"));
        at.send(face, "PUT", "large", &[], &value);
        at.send(face, "PUT", "empty", &[], b"");
        let get = |key: &str, headers: Headers<'_>| {
            let answer = at.send(face, "GET", key, headers, b"");
            let range = answer
                .header("content-range")
                .map(|range| String::from_utf8(range.to_vec()).unwrap());
            (answer.status, range, answer.body)
        };
        let part = |range: &str, body: &[u8]| (206, Some(range.to_owned()), body.to_vec());
        let whole = (200, None, b"0123456789".to_vec());
        assert_eq!(get("small", &[("Range", b"bytes=2-4")]), part("bytes 2-4/10", b"234"));
        assert_eq!(get("small", &[("Range", b"bytes=8-")]), part("bytes 8-9/10", b"89"));
        assert_eq!(get("small", &[("Range", b"bytes=-3")]), part("bytes 7-9/10", b"789"));
        assert_eq!(
            get("small", &[("Range", b"bytes=0-99")]),
            part("bytes 0-9/10", b"0123456789")
        );
        let far = get("large", &[("Range", b"bytes=2000001-2000003")]);
        assert_eq!(
            far,
            part("bytes 2000001-2000003/3000000", &value[2_000_001..=2_000_003])
        );
        for ignored in [&b"bytes=0-1,3-4"[..], b"lines=0-1", b"bytes=4-2", b"nonsense"] {
            assert_eq!(get("small", &[("Range", ignored)]), whole, "{ignored:?}");
        }
        for behind in [
            ("small", &b"bytes=10-"[..], "10"),
            ("empty", b"bytes=1-1", "0"),
            ("small", b"bytes=-0", "10"),
        ] {
            let (key, range, length) = behind;
            let (status, range, _) = get(key, &[("Range", range)]);
            assert_eq!((status, range), (416, Some(format!("bytes */{length}"))));
        }
        // Only of the content that the client knows.
        let both = |condition: &[u8]| get("small", &[("Range", b"bytes=0-0"), ("If-Range", condition)]);
        assert_eq!(both(&small), part("bytes 0-0/10", b"0"));
        for other in [OTHER, &weak(&small), b"Sun, 06 Nov 1994 08:49:37 GMT", b""] {
            assert_eq!(both(other), whole);
        }
        let conditional = get("small", &[("Range", b"bytes=0-0"), ("If-Match", &small)]);
        assert_eq!(conditional, part("bytes 0-0/10", b"0"));
        assert_eq!(
            get("small", &[("Range", b"bytes=0-0"), ("If-None-Match", &small)]).0,
            304
        );
        let put = at.send(face, "PUT", "small", &[("Content-Range", b"bytes 0-0/10")], b"x");
        assert_eq!(put.status, 400, "a part would replace the whole");
        assert_eq!(get("small", &[]), whole);
        // Metadata and expiry are beside a part as beside the whole.
        at.send(
            Face::Binding,
            "PUT",
            "more?expiration_ttl=100",
            &[("CF-KV-Metadata", b"1")],
            b"abc",
        );
        let answer = at.send(face, "GET", "more", &[("Range", b"bytes=1-1")], b"");
        let expiration = if face == Face::Rest {
            "expiration"
        } else {
            "cf-expiration"
        };
        assert!(
            answer.status == 206 && answer.header(expiration).is_some(),
            "{answer:?}"
        );
        assert_eq!(answer.header("accept-ranges"), Some(&b"bytes"[..]));
    }
}

#[test]
fn the_shortest_lifetime_is_that_of_the_setting_and_every_refusal_names_it() {
    let at = Served::new();
    let bulk = |ttl: u32| {
        let body = format!("[{{\"key\": \"b\", \"value\": \"v\", \"expiration_ttl\": {ttl}}}]");
        let path = format!("{NAMESPACES}/{}/bulk", at.id);
        at.connection(Face::Rest).request("PUT", &path, &[], body.as_bytes())
    };
    let told = "Expiration TTL must be at least 2.";
    for face in FACES {
        let put = |query: &str| at.send(face, "PUT", &format!("k?{query}"), &[], b"v");
        assert_eq!(put("expiration_ttl=2").status, 200);
        let refused = put("expiration_ttl=1");
        assert_eq!(refused.status, 400);
        assert!(String::from_utf8_lossy(&refused.body).contains(told), "{refused:?}");
        let refused = put("expiration=1");
        assert_eq!(refused.status, 400);
    }
    assert_eq!(bulk(2).status, 200);
    let (status, _, message) = bulk(1).error();
    assert!(status == 400 && message.contains(told), "{message}");
}

#[test]
fn a_namespace_tells_what_it_holds_and_has_a_default_lifetime() {
    let at = Served::new();
    let ask = |method: &str, path: &str, body: &[u8]| {
        let target = format!("{NAMESPACES}/{}/{path}", at.id);
        at.connection(Face::Rest).request(method, &target, &[], body)
    };
    let result = |answer: Answer| {
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["result"].clone()
    };
    for key in ["a1", "a2", "b"] {
        at.send(Face::Binding, "PUT", key, &[], b"v");
    }
    let stats = result(ask("GET", "statistics", b""));
    assert_eq!((&stats["title"], &stats["id"]), (&"N".into(), &at.id.clone().into()));
    assert_eq!(
        (&stats["keys"], &stats["max_bytes"]),
        (&3.into(), &serde_json::Value::Null)
    );
    let bytes = stats["live_bytes"].as_u64().unwrap();
    at.send(Face::Binding, "PUT", "b", &[], &[b'v'; 1001]);
    let grown = result(ask("GET", "statistics", b""))["live_bytes"].as_u64().unwrap();
    assert!((bytes + 990..bytes + 1010).contains(&grown), "{bytes} {grown}");
    let count = |query: &str| result(ask("GET", &format!("count{query}"), b""))["count"].clone();
    assert_eq!(
        (count(""), count("?prefix=a"), count("?prefix=c")),
        (3.into(), 2.into(), 0.into())
    );

    let ttl = |answer: Answer| result(answer)["default_ttl"].clone();
    assert_eq!(ttl(ask("GET", "default_ttl", b"")), serde_json::Value::Null);
    assert_eq!(ttl(ask("PUT", "default_ttl", b"{\"default_ttl\": 3600}")), 3600);
    assert_eq!(ttl(ask("GET", "default_ttl", b"")), 3600);
    for face in FACES {
        let put = at.send(face, "PUT", "lives", &[], b"v");
        let got = at.send(Face::Binding, "GET", "lives", &[], b"");
        assert!(got.header("cf-expiration").is_some(), "{got:?}");
        assert_eq!(etag(&put), etag(&got), "the tag is of the expiry that was computed");
    }
    for wrong in [
        "",
        "{}",
        "[3600]",
        "{\"default_ttl\": \"3600\"}",
        "{\"default_ttl\": 1}",
        "{\"default_ttl\": 0.5}",
    ] {
        assert_eq!(ask("PUT", "default_ttl", wrong.as_bytes()).error().0, 400, "{wrong}");
    }
    assert_eq!(ttl(ask("GET", "default_ttl", b"")), 3600);
    assert_eq!(ttl(ask("DELETE", "default_ttl", b"")), serde_json::Value::Null);
    at.send(Face::Rest, "PUT", "stays", &[], b"v");
    let stays = at.send(Face::Binding, "GET", "stays", &[], b"");
    assert_eq!((stays.status, stays.header("cf-expiration")), (200, None));
    assert_eq!(ask("GET", "statistics", b"").status, 200);
}
