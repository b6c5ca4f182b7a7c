//! The server: what it requires of the head of any request, as bytes, and its answers to HEAD and
//! to methods that a path does not have.

use crate::command::Workplace;
use crate::http::{Answer, Connection, NAMESPACES, Server, request, started};

struct Served {
    server: Server,
    /// The path of the namespace N in the REST API.
    namespace: String,
    _at: Workplace,
}

impl Served {
    /// With a key `k`.
    fn new() -> Served {
        let at = Workplace::with_namespace();
        let id = at.id_of("N");
        let served = Served {
            server: started(&at, &["--durability", "os"]),
            namespace: format!("{NAMESPACES}/{id}"),
            _at: at,
        };
        let put = served.server.bound("PUT", "k", &[("CF-KV-Metadata", b"7")], b"before");
        assert_eq!(put.status, 200);
        served
    }

    /// Both listeners, with the path of the key there and what else a request needs.
    fn faces(&self) -> [(&str, String, &'static str); 2] {
        let value = format!("{}/values/k", self.namespace);
        [
            (&self.server.rest, value, ""),
            (
                &self.server.binding,
                "/k?urlencoded=true".to_owned(),
                "X-KV-Namespace: N\r\n",
            ),
        ]
    }

    fn value(&self) -> Vec<u8> {
        self.server.bound("GET", "k", &[], b"").body
    }
}

/// The response to a request sent as it is.
fn said(address: &str, request: &str) -> (Answer, Connection<std::net::TcpStream>) {
    let mut connection = Connection::to(address);
    connection.send(request.as_bytes());
    (connection.answer(), connection)
}

#[test]
fn a_request_names_one_host_and_no_other_in_its_line() {
    let at = Served::new();
    for (address, path, more) in at.faces() {
        let put = |line: &str, hosts: &str| {
            let request = format!("{line}\r\n{hosts}{more}Content-Length: 1\r\n\r\nv");
            let (answer, mut connection) = said(address, &request);
            // The body was read: the connection is of further use.
            connection.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n").as_bytes());
            assert_eq!(connection.answer().body, b"before", "{line} {hosts}");
            (answer.status, String::from_utf8(answer.body).unwrap())
        };
        let line = format!("PUT {path} HTTP/1.1");
        for (line, hosts, word) in [
            (
                line.clone(),
                "Host: localhost\r\nHost: localhost\r\n",
                "more than one Host",
            ),
            (
                line.clone(),
                "Host: localhost\r\nhost: elsewhere.example\r\n",
                "more than one Host",
            ),
            (line.clone(), "", "no Host header"),
            (line.clone(), "Host: \r\n", "is not a host"),
            (line.clone(), "Host: local host\r\n", "is not a host"),
            (line.clone(), "Host: user@localhost\r\n", "is not a host"),
            (
                format!("PUT http://elsewhere.example{path} HTTP/1.1"),
                "Host: localhost\r\n",
                "for another host",
            ),
            (
                format!("PUT http://localhost:1{path} HTTP/1.1"),
                "Host: localhost\r\n",
                "for another host",
            ),
            (format!("PUT http://localhost{path} HTTP/1.1"), "", "no Host header"),
        ] {
            let (status, told) = put(&line, hosts);
            assert!(status == 400 && told.contains(word), "{line} {hosts}: {status} {told}");
        }
        let (status, told) = put(
            &format!("PUT http://elsewhere.example{path} HTTP/1.1"),
            "Host: elsewhere.example\r\n",
        );
        assert!(status == 403 && told.contains("is not this machine"), "{status} {told}");
        let line = format!("GET http://LOCALHOST:80{path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
        assert_eq!(said(address, &line).0.body, b"before");
        let line = format!("GET {path} HTTP/1.0\r\n{more}\r\n");
        assert_eq!(said(address, &line).0.body, b"before");
    }
}

#[test]
fn bodies_in_codings_are_refused_and_not_stored() {
    let at = Served::new();
    for (address, path, more) in at.faces() {
        let line = format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\n{more}");
        for (headers, status, word) in [
            ("Content-Encoding: gzip\r\n", 415, "Content-Encoding gzip"),
            ("Content-Encoding: identity, br\r\n", 415, "Content-Encoding br"),
            (
                "Content-Encoding: identity\r\nContent-Encoding: deflate\r\n",
                415,
                "Content-Encoding deflate",
            ),
            ("Content-Range: bytes 0-0/2\r\n", 400, "Content-Range"),
        ] {
            let (answer, mut connection) = said(address, &format!("{line}{headers}Content-Length: 1\r\n\r\nv"));
            let told = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(answer.status == status && told.contains(word), "{headers}: {answer:?}");
            let accepted = answer.header("accept-encoding");
            assert_eq!(accepted.is_some(), status == 415, "{headers}");
            connection.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n").as_bytes());
            assert_eq!(connection.answer().body, b"before", "{headers}");
        }
        for (codings, status) in [
            ("Transfer-Encoding: gzip, chunked\r\n", 501),
            ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501),
            ("Transfer-Encoding: nonsense, chunked\r\n", 501),
            ("Transfer-Encoding: chunked, chunked\r\n", 400),
            // Without `chunked` in the end it is unknown where the body ends.
            ("Transfer-Encoding: identity\r\n", 400),
            ("Transfer-Encoding: gzip\r\n", 400),
            ("Transfer-Encoding: chunked, gzip\r\n", 400),
        ] {
            let mut connection = Connection::to(address);
            connection.send(format!("{line}{codings}\r\n1\r\nv\r\n0\r\n\r\n").as_bytes());
            let told = connection.line();
            assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{codings}: {told}");
            assert_eq!(at.value(), b"before", "{codings}");
        }
        let identity = format!("{line}Content-Encoding: identity\r\nContent-Length: 6\r\n\r\nbefore");
        assert_eq!(said(address, &identity).0.status, 200);
    }
    // Of two lengths the chunks count, and the connection ends: what follows could be a request
    // that a proxy has not seen.
    for lengths in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
    ] {
        let (address, path, more) = &at.faces()[1];
        let line = format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\n{more}{lengths}\r\n");
        let (answer, mut connection) = said(address, &format!("{line}5\r\nchunk\r\n0\r\n\r\n"));
        assert_eq!(answer.status, 200);
        assert!(connection.is_closed(), "{lengths}");
        assert_eq!(at.value(), b"chunk");
    }
}

#[test]
fn head_is_answered_wherever_get_is_with_the_same_head_and_no_body() {
    let at = Served::new();
    let empty = at.server.bound("PUT", "empty", &[], b"");
    assert_eq!(empty.status, 200);
    let of_rest = |path: &str| (&at.server.rest[..], format!("{}{path}", at.namespace));
    let targets = [
        (&at.server.rest[..], "/healthz".to_owned()),
        (&at.server.rest, "/readyz".to_owned()),
        (&at.server.rest, NAMESPACES.to_owned()),
        (&at.server.rest, "/client/v4/user".to_owned()),
        (&at.server.rest, "/client/v4/nothing".to_owned()),
        (&at.server.rest, "/".to_owned()),
        of_rest(""),
        of_rest("/keys"),
        of_rest("/values/k"),
        of_rest("/values/empty"),
        of_rest("/values/missing"),
        of_rest("/metadata/k"),
        (&at.server.binding, "/k?urlencoded=true".to_owned()),
        (&at.server.binding, "/empty?urlencoded=true".to_owned()),
        (&at.server.binding, "/missing?urlencoded=true".to_owned()),
        (&at.server.binding, "/".to_owned()),
    ];
    for (address, target) in targets {
        let mut connection = Connection::to(address);
        let mut ask = |method: &str| {
            let mut answer = connection.request(method, &target, &[("X-KV-Namespace", b"N")], b"");
            answer.headers.retain(|(name, _)| name != "date");
            answer.headers.sort();
            answer
        };
        let (head, get, again) = (ask("HEAD"), ask("GET"), ask("HEAD"));
        assert!(head.body.is_empty(), "{target}");
        assert_eq!((head.line(), &head.headers), (get.line(), &get.headers), "{target}");
        assert_eq!(again.headers, get.headers, "{target}");
        let length = get.body.len().to_string();
        assert_eq!(head.header("content-length"), Some(length.as_bytes()), "{target}");
    }
    let metrics = request(&at.server.rest, "HEAD", "/metrics", &[], b"");
    assert!(
        metrics.status == 200 && metrics.header("content-length") > Some(b"1"),
        "{metrics:?}"
    );
}

#[test]
fn a_method_that_a_path_does_not_have_is_told_those_that_it_has() {
    let at = Served::new();
    let rest = &at.server.rest[..];
    let of_rest = |path: &str| (rest, format!("{}{path}", at.namespace));
    for ((address, target), allowed) in [
        ((rest, "/healthz".to_owned()), "GET, HEAD"),
        ((rest, "/readyz".to_owned()), "GET, HEAD"),
        ((rest, "/metrics".to_owned()), "GET, HEAD"),
        ((rest, "/client/v4/user".to_owned()), "GET, HEAD"),
        ((rest, NAMESPACES.to_owned()), "GET, HEAD, POST"),
        (of_rest(""), "GET, HEAD, PUT, DELETE"),
        (of_rest("/values/k"), "GET, HEAD, PUT, DELETE"),
        (of_rest("/keys"), "GET, HEAD"),
        (of_rest("/bulk"), "PUT, DELETE"),
        (of_rest("/bulk/get"), "POST"),
        (
            (&at.server.binding, "/k?urlencoded=true".to_owned()),
            "GET, HEAD, PUT, DELETE",
        ),
        (
            (&at.server.binding, "/bulk/get".to_owned()),
            "GET, HEAD, PUT, DELETE, POST",
        ),
        ((&at.server.binding, "/".to_owned()), "GET, HEAD"),
    ] {
        for method in ["PATCH", "OPTIONS", "NONSENSE"] {
            let answer = request(address, method, &target, &[("X-KV-Namespace", b"N")], b"v");
            assert_eq!(answer.status, 405, "{method} {target}");
            let found = answer.header("allow").map(String::from_utf8_lossy);
            assert_eq!(found.as_deref(), Some(allowed), "{method} {target}");
        }
    }
    assert_eq!(request(rest, "HEAD", &of_rest("/bulk/get").1, &[], b"").status, 405);
}
