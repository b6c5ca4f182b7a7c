//! The server: watching a namespace.

use std::net::TcpStream;

use serde_json::{Value, json};

use crate::command::{Workplace, wait_until};
use crate::http::{Connection, NAMESPACES, Server, request, started};

/// Watches by HTTP/1.0, whose responses have no framing of their own; returns after the head.
fn watching(server: &Server, query: &str) -> (u16, Connection<TcpStream>) {
    watching_with(server, "", query)
}

fn watching_with(server: &Server, headers: &str, query: &str) -> (u16, Connection<TcpStream>) {
    let mut connection = Connection::to(&server.rest);
    let head = format!("GET /admin/watch?{query} HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n");
    connection.send(head.as_bytes());
    let status = connection.line();
    let mut is_stream = false;
    loop {
        match &*connection.line() {
            "" => break,
            line => is_stream |= line == "content-type: text/event-stream",
        }
    }
    let status = status.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(is_stream, status == 200);
    (status, connection)
}

/// The next event.
fn event(connection: &mut Connection<TcpStream>) -> (String, Value) {
    loop {
        let line = connection.line();
        if let Some(name) = line.strip_prefix("event: ") {
            let data = connection.line();
            let data = data.strip_prefix("data: ").unwrap();
            return (name.to_owned(), serde_json::from_str(data).unwrap());
        }
        assert!(line.is_empty() || line == ":", "{line:?}");
    }
}

fn begun(server: &Server, query: &str) -> Connection<TcpStream> {
    let (status, mut connection) = watching(server, query);
    assert_eq!(status, 200);
    assert_eq!(event(&mut connection).0, "watching");
    connection
}

#[test]
fn changes_are_told_in_the_order_of_the_log() {
    let at = Workplace::with_namespace();
    at.done(["namespace", "create", "M"]);
    let id = at.id_of("N");
    let server = started(&at, &["--minimum-ttl", "1"]);
    let mut all = begun(&server, &format!("namespace={id}"));
    let mut some = begun(&server, "namespace=N&prefix=%62");
    server.bound("PUT", "a", &[], b"v");
    let other: (&str, &[u8]) = ("X-KV-Namespace", b"M");
    request(&server.binding, "PUT", "/b-of-another", &[other], b"v");
    let soon: &str = "/b?urlencoded=true&expiration_ttl=1";
    let named: (&str, &[u8]) = ("X-KV-Namespace", b"N");
    assert_eq!(request(&server.binding, "PUT", soon, &[named], b"v").status, 200);
    server.bound("DELETE", "a", &[], b"");
    let (name, put) = event(&mut all);
    assert_eq!(
        (&*name, &put["key"], &put["expiration"]),
        ("put", &json!("a"), &Value::Null)
    );
    let (name, soon) = event(&mut all);
    assert_eq!((&*name, &soon["key"]), ("put", &json!("b")));
    assert!(soon["expiration"].is_u64(), "{soon}");
    let (name, deleted) = event(&mut all);
    assert_eq!((&*name, &deleted["key"]), ("delete", &json!("a")));
    assert!(put["sequence"].as_u64() < soon["sequence"].as_u64());
    assert!(soon["sequence"].as_u64() < deleted["sequence"].as_u64());
    // The watcher of a prefix is told of no other key.
    assert_eq!(event(&mut some), ("put".to_owned(), soon.clone()));
    let expired = json!({"key": "b", "sequence": soon["sequence"]});
    for connection in [&mut all, &mut some] {
        assert_eq!(event(connection), ("expire".to_owned(), expired.clone()));
    }
    request(&server.rest, "DELETE", &format!("{NAMESPACES}/{id}"), &[], b"");
    assert_eq!(event(&mut all).0, "dropped");
    assert_eq!(all.until_the_end().trim_ascii(), b"");
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let at = Workplace::with_namespace();
    let server = started(&at, &[]);
    let long = format!("namespace=N&prefix={}", "a".repeat(513));
    for (query, status) in [
        ("", 400),
        ("prefix=a", 400),
        ("namespace=absent", 404),
        ("namespace=N&prefix=%zz", 400),
        (&long, 414),
    ] {
        assert_eq!(watching(&server, query).0, status, "{query}");
    }
    let mut all: Vec<_> = (0..64).map(|_| begun(&server, "namespace=N")).collect();
    let one_too_many = request(&server.rest, "GET", "/admin/watch?namespace=N", &[], b"");
    assert_eq!(one_too_many.status, 503);
    assert_eq!(one_too_many.header("retry-after"), Some(&b"1"[..]));
    assert_eq!(server.metric("watchers"), 64);
    // A client that goes makes room for another.
    all.pop();
    wait_until("a place of a watcher", || server.metric("watchers") == 63);
    assert_eq!(watching(&server, "namespace=N").0, 200);
}

#[test]
fn watching_takes_a_token_that_administers() {
    let at = Workplace::with_namespace();
    let (admin, admin_setting) = at.token("admin", "admin = true");
    let (plain, plain_setting) = at.token("plain", "");
    std::fs::write(at.path("serve.toml"), admin_setting + &plain_setting).unwrap();
    let server = started(&at, &["--config", "serve.toml"]);
    for (token, status) in [(&plain, 403), (&admin, 200)] {
        let headers = format!("Authorization: Bearer {token}\r\n");
        assert_eq!(watching_with(&server, &headers, "namespace=N").0, status);
    }
    assert_eq!(watching(&server, "namespace=N").0, 403);
}

#[test]
fn a_server_with_watchers_stops_and_they_are_told_the_end() {
    let at = Workplace::with_namespace();
    // Far longer than the test waits.
    let mut server = started(&at, &["--stop-seconds", "3600"]);
    let mut watcher = begun(&server, "namespace=N");
    assert_eq!(watcher.line(), "", "the end of the first event");
    server.begin_to_stop();
    assert!(watcher.is_closed(), "it goes on, at least by a comment");
    assert_eq!(server.stopped(), Some(0));
}
