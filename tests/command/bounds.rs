//! The server: its limits, and the clients that it disconnects.

use std::net::TcpStream;

use crate::command::{Workplace, memory_of, wait_until};
use crate::http::{Connection, NAMESPACES, SERVE, request, started};

#[test]
fn clients_that_keep_it_waiting_are_given_up() {
    let at = Workplace::with_namespace();
    std::fs::write(at.path("large"), vec![b'v'; 25 << 20]).unwrap();
    at.done(["key", "put", "-n", "N", "large", "--path", "large"]);
    let server = started(&at, &["--idle-seconds", "1", "--body-seconds", "5"]);
    // A connection without any data, an incomplete head, and an incomplete body.
    let [mut idle, mut head, mut body] = [
        &b""[..],
        b"GET /k?urlen",
        b"PUT /k?urlencoded=true HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\nContent-Length: 10\r\n\r\n12345",
    ]
    .map(|sent| {
        let mut connection = Connection::to(&server.binding);
        connection.send(sent);
        connection
    });
    assert!(body.is_closed());
    // The others ended before it, as configured: the library's own default is half a minute.
    assert!(!idle.is_silent() && !head.is_silent());
    assert!(idle.is_closed() && head.is_closed());
    // A body that arrives byte by byte.
    let mut connection = Connection::to(&server.binding);
    connection.send(
        b"PUT /k?urlencoded=true HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\nContent-Length: 1000000\r\n\r\n",
    );
    wait_until("the end of a body that comes too slowly", || {
        connection.try_send(b"v").is_err()
    });
    assert_eq!(server.metric("disconnected_total"), 2, "two bodies were given up");
    // A client that requests much and reads nothing.
    let mut connection = Connection::to(&server.binding);
    for _ in 0..4 {
        connection.send(b"GET /large?urlencoded=true HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\n\r\n");
    }
    // The response has begun, so the connection is counted.
    assert_eq!(connection.line(), "HTTP/1.1 200 OK");
    wait_until("the end of all connections but the one that asks", || {
        server.metric("connections") == 1
    });
}

#[test]
fn so_many_connections_and_no_more() {
    let at = Workplace::with_namespace();
    let server = started(&at, &["--max-connections", "2"]);
    let namespace: (&str, &[u8]) = ("X-KV-Namespace", b"N");
    let mut first = Connection::to(&server.binding);
    let mut second = Connection::to(&server.binding);
    for connection in [&mut first, &mut second] {
        assert_eq!(connection.request("GET", "/k", &[namespace], b"").status, 404);
    }
    // The third waits until one of them closes, however many requests are answered meanwhile.
    let mut third = Connection::to(&server.binding);
    third.send(b"GET /k HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\n\r\n");
    for _ in 0..300 {
        assert_eq!(first.request("GET", "/k", &[namespace], b"").status, 404);
        assert!(third.is_silent(), "a third connection was served");
    }
    drop(first);
    assert_eq!(third.answer().status, 404);
    assert_eq!(second.request("GET", "/k", &[namespace], b"").status, 404);
}

/// Whether the body is too long, so that none of it is kept, or only incomplete.
#[test]
fn a_put_whose_body_is_cut_off_leaves_the_value_as_it_was() {
    let at = Workplace::with_namespace();
    let server = started(&at, &[]);
    assert_eq!(server.bound("PUT", "k", &[], b"kept").status, 200);
    let listed = request(&server.rest, "GET", NAMESPACES, &[], b"").json();
    let id = listed["result"][0]["id"].as_str().unwrap().to_owned();
    let value = format!("{NAMESPACES}/{id}/values/k");
    let form = "Content-Type: multipart/form-data; boundary=x\r\n";
    let mut cut_off = 0;
    for length in [10, 25 << 20, 26 << 20] {
        for (address, target, headers) in [
            (&server.binding, "/k", ""),
            (&server.rest, &*value, ""),
            (&server.rest, &*value, form),
        ] {
            let mut connection = Connection::to(address);
            let head = format!(
                "PUT {target} HTTP/1.1\r\nHost: localhost\r\nX-KV-Namespace: N\r\n{headers}Content-Length: \
                 {length}\r\n\r\nv"
            );
            connection.send(head.as_bytes());
            drop(connection);
            cut_off += 1;
            wait_until("the end of the request", || {
                server.metric("disconnected_total") == cut_off
            });
            assert_eq!(
                server.bound("GET", "k", &[], b"").body,
                b"kept",
                "{length} {target} {headers}"
            );
        }
    }
}

/// Bodies are read to their end before the answer, but only up to 256 MiB.
#[test]
fn a_body_that_is_too_long_to_be_read_is_answered_before_its_end() {
    let at = Workplace::with_namespace();
    let server = started(&at, &[]);
    let chunk = [b"100000\r\n", &vec![b'v'; 1 << 20][..], b"\r\n"].concat();
    let mut connection = Connection::to(&server.binding);
    connection.send(b"PUT /k HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..=256 {
        connection.send(&chunk);
    }
    let answer = connection.answer();
    assert_eq!((answer.status, answer.header("connection")), (413, Some(&b"close"[..])));
    assert!(connection.is_closed());
    assert_eq!(server.bound("GET", "k", &[], b"").status, 404);
}

#[test]
fn what_is_no_request_is_refused() {
    let at = Workplace::with_namespace();
    let server = started(&at, &[]);
    let put = "PUT /k?urlencoded=true HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\n";
    let long = format!("PUT /{} HTTP/1.1\r\nHost: fake-host\r\n\r\n", "a".repeat(200_000));
    let headers = format!("{put}{}\r\n", "X-A: b\r\n".repeat(1000));
    for (sent, status) in [
        ("nonsense\r\n\r\n", 400),
        ("PUT /k HTTP/3\r\n\r\n", 400),
        (&format!("{put}Content-Length: -5\r\n\r\n"), 400),
        (&format!("{put}Content-Length: 99999999999999999999999\r\n\r\n"), 400),
        (
            &format!("{put}Content-Length: 5\r\nContent-Length: 6\r\n\r\nvalue"),
            400,
        ),
        // The head is good. A malformed body gets no answer, since the start of the next request is
        // unknown.
        (&format!("{put}Transfer-Encoding: chunked\r\n\r\nzz\r\n"), 0),
        (&format!("{put}Transfer-Encoding: gzip\r\n\r\nvalue"), 400),
        (
            &format!("{put}CF-KV-Metadata: \"a\0b\"\r\nContent-Length: 1\r\n\r\nv"),
            400,
        ),
        (&long, 431),
        (&headers, 431),
    ] {
        let mut connection = Connection::to(&server.binding);
        // The server may close the connection before it has read everything.
        let _ = connection.try_send(sent.as_bytes());
        // Reads to the end: the server closes the connection.
        let said = String::from_utf8(connection.until_the_end()).unwrap();
        let line = said.lines().next().unwrap_or_default();
        let found = line.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
        assert_eq!(found, status, "{sent:.60}: {said:?}");
        let answers = said.matches("HTTP/1.1 ").count();
        assert_eq!(answers, usize::from(status != 0), "{sent:.60}: {said:?}");
    }
    assert_eq!(server.bound("GET", "k", &[], b"").status, 404);
    assert_eq!(server.bound("PUT", "k", &[], b"v").status, 200);
}

/// Writes that wait at the same time share one sync.
#[test]
fn puts_of_many_clients_share_syncs() {
    let at = Workplace::with_namespace();
    let server = started(&at, &[]);
    let (clients, puts) = (32, 30);
    std::thread::scope(|scope| {
        for client in 0..clients {
            let address = &server.binding;
            scope.spawn(move || {
                let mut connection = Connection::to(address);
                for n in 0..puts {
                    let target = format!("/{client}-{n}?urlencoded=true");
                    let answer = connection.request("PUT", &target, &[("X-KV-Namespace", b"N")], b"v");
                    assert_eq!(answer.status, 200);
                }
            });
        }
    });
    let answered = "requests_total{face=\"binding\",operation=\"put\",status=\"200\"}";
    assert_eq!(server.metric(answered), clients * puts);
    let syncs = server.metric("store_syncs_total");
    println!("{syncs} syncs for {} puts", clients * puts);
    assert!(0 < syncs && syncs < clients * puts, "{syncs}");
    assert_eq!(server.metric("store_keys"), clients * puts);
    let seconds = "request_seconds_count{face=\"binding\",operation=\"put\"}";
    assert_eq!(server.metric(seconds), clients * puts);
}

/// Memory for bodies is bounded, however many clients send at once.
#[test]
#[cfg(target_os = "linux")]
fn many_large_bodies_at_once_take_no_more_memory_than_allowed() {
    let at = Workplace::with_namespace();
    let server = started(&at, &["--body-memory-mib", "100"]);
    let memory = || memory_of(&server.child, "RssAnon").unwrap();
    let before = memory();
    let taken = || memory().saturating_sub(before);
    let head =
        "PUT /k?urlencoded=true HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\nContent-Length: 26214400\r\n\r\n";
    // Three bodies without their last byte, which fill the memory; then the heads of many more.
    let body = vec![b'v'; 25 << 20];
    let mut clients: Vec<Connection<TcpStream>> = (0..20).map(|_| Connection::to(&server.binding)).collect();
    let (served, waiting) = clients.split_at_mut(3);
    for client in served {
        client.send(head.as_bytes());
        client.send(&body[1..]);
    }
    wait_until("three bodies in memory", || taken() > 72 << 20);
    for client in &mut *waiting {
        client.send(head.as_bytes());
    }
    // They keep sending what the server takes from them, while it answers others.
    for _ in 0..24 {
        for client in &mut *waiting {
            client.send_at_once(&body[..1 << 20]);
        }
        assert_eq!(server.bound("GET", "k", &[], b"").status, 404);
    }
    let most = taken();
    println!("{most} bytes for 20 bodies of 25 MiB");
    assert!((72 << 20..115 << 20).contains(&most), "{most}");
    // Once they are gone, others are served.
    drop(clients);
    assert_eq!(server.bound("PUT", "k", &[], &vec![b'v'; 25 << 20]).status, 200);
}

#[test]
fn a_namespace_takes_no_more_than_the_owner_has_set_for_its_name() {
    let at = Workplace::with_namespace();
    let server = started(&at, &["--max-namespace-mib", "N=1,later=2"]);
    let value = vec![b'v'; 300 << 10];
    let put = |namespace: &[u8], key: &str| {
        let target = format!("/{key}?urlencoded=true");
        request(
            &server.binding,
            "PUT",
            &target,
            &[("X-KV-Namespace", namespace)],
            &value,
        )
        .status
    };
    let put_all = |namespace: &[u8]| {
        (0..8)
            .map(|n| put(namespace, &format!("k{n}")))
            .filter(|s| *s == 200)
            .count()
    };
    assert_eq!(put_all(b"N"), 3);
    let refused = server.bound("PUT", "one", &[], &value);
    assert_eq!(refused.status, 507);
    assert_eq!(refused.body, b"the namespace has reached its limit of space");
    // What is there can be replaced and deleted, and that makes room.
    assert_eq!(server.bound("PUT", "k0", &[], &value).status, 200);
    assert_eq!(server.bound("PUT", "small", &[], b"v").status, 200);
    assert_eq!(server.bound("DELETE", "k0", &[], b"").status, 200);
    assert_eq!(server.bound("PUT", "one", &[], &value).status, 200);
    let bytes = server.metric("namespace_live_bytes{namespace=\"N\"}");
    assert!((900 << 10..1 << 20).contains(&bytes), "{bytes}");
    assert_eq!(server.metric("namespace_max_bytes{namespace=\"N\"}"), 1 << 20);

    // Namespaces without a limit, with one set for a name that comes later, and renamed ones.
    let change = |method: &str, path: &str, title: &str| {
        let body = format!("{{\"title\":\"{title}\"}}");
        let target = format!("{NAMESPACES}{path}");
        let answer = request(&server.rest, method, &target, &[], body.as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["result"]["id"].as_str().unwrap_or_default().to_owned()
    };
    let id = change("POST", "", "later");
    assert_eq!(put_all(b"later"), 6);
    change("PUT", &format!("/{id}"), "free");
    assert_eq!(put_all(b"free"), 8);
    change("PUT", &format!("/{id}"), "later");
    assert_eq!(put(b"later", "another"), 507);
    assert_eq!(put(b"later", "k0"), 200);
}

/// The engine's own limit, and settings that it refuses.
#[test]
fn a_store_takes_no_more_than_the_owner_has_set() {
    let at = Workplace::with_namespace();
    let server = started(&at, &["--max-disk-mib", "24", "--scrub-mib-per-second", "1"]);
    let value = vec![b'v'; 1 << 20];
    let mut answers = (0..24).map(|n| server.bound("PUT", &format!("k{n}"), &[], &value));
    let refused = answers.find(|answer| answer.status != 200).expect("no put is refused");
    assert_eq!(
        (refused.status, &*refused.body),
        (507, &b"the store has reached its limit of space"[..])
    );
    let used = server.metric("store_used_bytes");
    assert!(used <= 24 << 20, "{used}");
    for n in 0..24 {
        assert_eq!(server.bound("DELETE", &format!("k{n}"), &[], b"").status, 200);
    }
    wait_until("room for puts", || {
        server.bound("PUT", "again", &[], &value).status == 200
    });
    drop(server);
    for refused in [
        ["--max-disk-mib", "0"],
        ["--sync-interval-ms", "0"],
        ["--max-namespace-mib", "N"],
        ["--max-namespace-mib", "=5"],
    ] {
        let mut command = at.command(SERVE.iter().chain(&refused).copied());
        let output = command.output().unwrap();
        assert!(!output.status.success(), "{refused:?}");
        assert!(!output.stderr.is_empty(), "{refused:?}");
    }
}
