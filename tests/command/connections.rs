//! The server: the connections of each listener, and the heads that come over them.

use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::command::{Workplace, wait_until};
use crate::http::{Connection, NAMESPACES, SERVE, Server, request, started};

/// Time limits that end nothing within a test.
const PATIENT: [&str; 2] = ["--idle-seconds", "100000"];

/// A connection that has a place as long as it lives.
fn served(address: &str, target: &str, status: u16) -> Connection<TcpStream> {
    let mut connection = Connection::to(address);
    let answer = connection.request("GET", target, &[("X-KV-Namespace", b"N")], b"");
    assert_eq!(answer.status, status);
    connection
}

#[test]
fn each_listener_has_its_own_connections_and_health_is_always_told() {
    let at = Workplace::with_namespace();
    let server = started(&at, &[&PATIENT[..], &["--max-connections", "2"]].concat());
    let mut held: Vec<_> = (0..2).map(|_| served(&server.rest, NAMESPACES, 200)).collect();
    // The others go on.
    assert_eq!(server.bound("PUT", "k", &[], b"v").status, 200);
    let is_healthy = || {
        for (target, body) in [("/healthz", &b"ok\n"[..]), ("/readyz", b"ready\n")] {
            let answer = request(&server.rest, "GET", target, &[], b"");
            assert_eq!((answer.status, &answer.body[..]), (200, body));
        }
    };
    is_healthy();
    // Whatever else is asked for is answered, once its body has been read, and the connection ends.
    for (method, target) in [
        ("GET", NAMESPACES),
        ("GET", "/metrics"),
        ("PUT", "/healthz/k"),
        ("PUT", NAMESPACES),
    ] {
        let mut connection = Connection::to(&server.rest);
        let body = vec![b'v'; if method == "PUT" { 4 << 20 } else { 0 }];
        let answer = connection.request(method, target, &[], &body);
        assert_eq!(answer.status, 503, "{method} {target}: {answer:?}");
        assert_eq!(answer.header("retry-after"), Some(&b"1"[..]));
        assert!(connection.is_closed(), "{method} {target}");
    }
    // Those that ask nothing make way.
    let mut silent: Vec<_> = (0..100).map(|_| Connection::to(&server.rest)).collect();
    for connection in &mut silent {
        // The first ones may be closed already.
        let _ = connection.try_send(b"GET /healthz HT");
    }
    is_healthy();
    assert!(silent[0].is_closed());
    // A place that becomes free is taken, also by a connection that came when there was none.
    drop(silent);
    let mut beyond = served(&server.rest, "/healthz", 200);
    drop(held.pop());
    wait_until("a place", || {
        let answer = beyond.request("GET", NAMESPACES, &[], b"");
        if answer.status == 503 {
            beyond = served(&server.rest, "/healthz", 200);
        }
        answer.status == 200
    });
    assert_eq!(held[0].request("GET", NAMESPACES, &[], b"").status, 200);
}

#[test]
fn a_head_has_its_time_and_a_connection_may_be_idle_for_longer() {
    let at = Workplace::with_namespace();
    let server = started(&at, &PATIENT);
    let mut idle = served(&server.binding, "/k", 404);
    let mut silent = Connection::to(&server.binding);
    let mut half = Connection::to(&server.binding);
    half.send(b"GET /k?urlen");
    let mut second = served(&server.binding, "/k", 404);
    second.send(b"GET /k HTTP/1.1\r\nHost: fake-host\r\nX-KV-Name");
    let mut slow = Connection::to(&server.rest);
    slow.send(b"GET / HTTP/1.1\r\nX-A: ");
    for (connection, what) in [(&mut silent, "silent"), (&mut half, "half"), (&mut second, "second")] {
        // Meanwhile another head comes byte by byte, and must not live longer for that.
        let _ = slow.try_send(b"a");
        assert!(connection.is_closed(), "{what}");
    }
    wait_until("the end of a head that comes byte by byte", || {
        slow.try_send(b"a").is_err()
    });
    assert!(idle.is_silent());
    let again = idle.request("GET", "/k", &[("X-KV-Namespace", b"N")], b"");
    assert_eq!(again.status, 404);
}

#[test]
fn a_head_that_is_too_long_is_refused_also_if_it_comes_at_once() {
    let at = Workplace::with_namespace();
    let server = started(&at, &[]);
    let get = |target: &str, headers: &[usize]| {
        let headers: String = headers
            .iter()
            .map(|length| format!("X-A: {}\r\n", "b".repeat(*length)))
            .collect();
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nX-KV-Namespace: N\r\n{headers}\r\n")
    };
    for (address, target, status) in [(&server.binding, "/k", 404), (&server.rest, "/healthz", 200)] {
        let long = format!("{target}?a={}", "b".repeat(70_000));
        let small = get(target, &[]);
        for sent in [
            get(target, &[100_000]),
            get(target, &[10_000; 10]),
            get(target, &[66_000]),
            get(&long, &[]),
            get(&format!("{target}?{}", "a".repeat(40_000)), &[30_000]),
            // Its bytes come with those of another request.
            small.clone() + &get(target, &[10_000; 10]),
            small.clone() + &get(target, &[70_000]),
        ] {
            let mut connection = Connection::to(address);
            // The server may close the connection before it has read everything.
            let _ = connection.try_send(sent.as_bytes());
            let said = String::from_utf8(connection.until_the_end()).unwrap();
            assert_eq!(
                said.matches("HTTP/1.1 431 ").count(),
                1,
                "{} bytes: {said:?}",
                sent.len()
            );
            let answers = if sent.starts_with(&small) { 2 } else { 1 };
            assert_eq!(
                said.matches("HTTP/1.1 ").count(),
                answers,
                "{} bytes: {said:?}",
                sent.len()
            );
        }
        // What is within the limit is served, in the same connection.
        let mut connection = Connection::to(address);
        for _ in 0..2 {
            connection.send(get(target, &[10_000; 6]).as_bytes());
            assert_eq!(connection.answer().status, status);
        }
    }
}

/// The system would reset a connection that is closed before everything was read, and the client
/// would lose the answer.
#[test]
fn a_client_that_is_still_sending_gets_its_answer() {
    let at = Workplace::with_namespace();
    let server = started(&at, &PATIENT);
    let more = vec![b'a'; 1 << 20];
    let head = "HTTP/1.1\r\nHost: localhost\r\nX-KV-Namespace: N\r\n";
    let long = format!("{head}Content-Length: {}\r\n\r\n", 300 << 20);
    for (address, sent, status) in [
        (&server.binding, format!("PUT /k {long}"), 413),
        (&server.binding, format!("GET /k {long}"), 404),
        (&server.rest, format!("GET /healthz {long}"), 200),
        (&server.rest, format!("PUT {NAMESPACES} {long}"), 405),
        (&server.rest, format!("GET /healthz {head}X-A: "), 431),
        (&server.binding, format!("{head}\r\n"), 400),
    ] {
        let mut connection = Connection::to(address);
        connection.send(sent.as_bytes());
        connection.send(&more);
        let line = connection.line();
        assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{sent:?}: {line}");
        // What the server has sent is all, but it reads on.
        let rest = String::from_utf8(connection.until_the_end()).unwrap();
        assert!(rest.contains("connection: close\r\n"), "{sent:?}: {rest}");
        for _ in 0..3 {
            connection.send(&more);
        }
    }
}

#[test]
fn a_client_that_sends_on_after_its_answer_is_given_up() {
    let at = Workplace::with_namespace();
    let server = started(&at, &["--idle-seconds", "1"]);
    let head = "PUT /k HTTP/1.1\r\nHost: localhost\r\nX-KV-Namespace: N\r\nContent-Length: 300000000\r\n\r\n";
    let mut connection = Connection::to(&server.binding);
    connection.send(head.as_bytes());
    assert_eq!(connection.answer().status, 413);
    // One more that sends nothing, and does not close its side either.
    let mut silent = Connection::to(&server.binding);
    silent.send(head.as_bytes());
    assert_eq!(silent.answer().status, 413);
    wait_until("the end of a connection whose client sends on", || {
        connection.try_send(b"v").is_err()
    });
    wait_until("the end of all connections but the one that asks", || {
        server.metric("connections") == 1
    });
}

/// `serve` in a shell that sets limits first.
fn limited(at: &Workplace, limits: &str, more: &[&str]) -> Command {
    let command = at.command(SERVE.iter().chain(more).copied());
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("{limits}; exec \"$0\" \"$@\""))
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    shell.current_dir(command.get_current_dir().unwrap());
    shell
}

#[test]
#[cfg(target_os = "linux")]
fn it_has_as_many_descriptors_as_it_may_have_and_keeps_some_for_the_store() {
    let at = Workplace::with_namespace();
    let server = Server::start(limited(&at, "ulimit -Sn 128 && ulimit -Hn 700", &[]), 0);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .unwrap();
    let numbers: Vec<_> = line.split_whitespace().take(2).collect();
    assert_eq!(numbers, ["700", "700"]);
    // More connections than it has descriptors for: the store still opens what it needs.
    let mut first = served(&server.binding, "/k", 404);
    let clients: Vec<_> = (0..400).map(|_| TcpStream::connect(&server.binding)).collect();
    let others: Vec<_> = (0..400).map(|_| TcpStream::connect(&server.rest)).collect();
    assert_eq!(request(&server.rest, "GET", "/healthz", &[], b"").status, 200);
    for n in 0..8 {
        let target = format!("/{n}?urlencoded=true");
        let answer = first.request("PUT", &target, &[("X-KV-Namespace", b"N")], &vec![b'v'; 10 << 20]);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    drop((clients, others, server));

    let mut command = limited(&at, "ulimit -n 700", &["--max-connections", "5000"]);
    command.stderr(Stdio::piped());
    let mut server = Server::start(command, 0);
    assert_eq!(server.bound("GET", "k", &[], b"").status, 404);
    assert_eq!(server.stop(), Some(0));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut server.child.stderr.take().unwrap(), &mut said).unwrap();
    assert!(
        said.contains("LimitNOFILE") && said.contains("--max-connections"),
        "{said}"
    );

    let output = limited(&at, "ulimit -n 150", &[]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("LimitNOFILE"), "{said}");
}
