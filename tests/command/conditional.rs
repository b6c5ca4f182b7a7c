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
        let id = at.json(["namespace", "list"])[0]["id"].as_str().unwrap().to_owned();
        Served {
            server: started(&at, &["--durability", "os"]),
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
