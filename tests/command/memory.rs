//! The server: memory for bodies and responses, and who may have it.

use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::command::{Workplace, wait_until};
use crate::http::{Connection, NAMESPACES, Server, request, started};

const MIB: usize = 1 << 20;
/// No time limit ends a body in these tests.
const PATIENT: [&str; 4] = ["--body-memory-mib", "100", "--body-seconds", "100000"];

/// Memory of a server that is no file's.
fn memory_of(server: &Server) -> usize {
    crate::command::memory_of(&server.child, "RssAnon").unwrap() as usize
}

/// The path of the namespace N in the REST API.
fn path_of_namespace(at: &Workplace) -> String {
    format!("{NAMESPACES}/{}", at.id_of("N"))
}

/// Sends the head of a put of N through the binding, and a part of its body.
fn begin_put(server: &Server, headers: &str, declared: usize, sent: &[u8]) -> Connection<TcpStream> {
    let mut connection = Connection::to(&server.binding);
    let head = format!(
        "PUT /k?urlencoded=true HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\n{headers}Content-Length: \
         {declared}\r\n\r\n"
    );
    connection.send(head.as_bytes());
    connection.send(sent);
    connection
}

/// Tokens with these names and settings in `serve.toml`; each as a header.
fn tokens<const N: usize>(at: &Workplace, settings: [(&str, &str); N]) -> [String; N] {
    let mut file = String::new();
    let headers = settings.map(|(name, setting)| {
        let (token, lines) = at.token(name, setting);
        file += &lines;
        format!("Authorization: Bearer {token}\r\n")
    });
    std::fs::write(at.path("serve.toml"), file).unwrap();
    headers
}

#[test]
#[cfg(target_os = "linux")]
fn bodies_that_are_still_to_come_take_no_memory_from_others() {
    let at = Workplace::with_namespace();
    let namespace = path_of_namespace(&at);
    let server = started(&at, &PATIENT);
    let form = "Content-Type: multipart/form-data; boundary=x\r\n";
    let mut slow = Vec::new();
    for n in 0..40 {
        let (method, path, more, first) = match n % 5 {
            0 => ("PUT", "values/k", "Content-Length: 26214400\r\n", "v"),
            1 => ("PUT", "values/k", "Transfer-Encoding: chunked\r\n", "1\r\nv\r\n"),
            2 => ("PUT", "values/k", "Content-Length: 26214400\r\n", "-"),
            3 => ("PUT", "bulk", "Content-Length: 40000000\r\n", "["),
            _ => ("POST", "bulk/get", "Content-Length: 1048576\r\n", "{"),
        };
        let more = if n % 5 == 2 {
            format!("{form}{more}")
        } else {
            more.to_owned()
        };
        let mut connection = Connection::to(&server.rest);
        let head = format!("{method} {namespace}/{path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n{first}");
        connection.send(head.as_bytes());
        slow.push(connection);
        slow.push(begin_put(&server, "", 25 * MIB, b"v"));
    }
    wait_until("heads and bytes that were read", || {
        slow.iter().all(Connection::is_read)
    });
    for (address, target) in [
        (&server.rest, format!("{namespace}/values/k")),
        (&server.binding, "/k".into()),
    ] {
        let headers: [(&str, &[u8]); 1] = [("X-KV-Namespace", b"N")];
        let answer = request(address, "PUT", &target, &headers, &vec![b'v'; 25 * MIB]);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let pair = format!("[{{\"key\": \"b\", \"value\": \"{}\"}}]", "v".repeat(4 * MIB));
    let answer = request(&server.rest, "PUT", &format!("{namespace}/bulk"), &[], pair.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_request_that_is_not_permitted_gets_no_memory() {
    let at = Workplace::with_namespace();
    at.done(["namespace", "create", "M"]);
    let namespace = path_of_namespace(&at);
    let [reader, of_m] = tokens(&at, [("reader", "read_only = true"), ("of M", "namespaces = [\"M\"]")]);
    let server = started(&at, &[&PATIENT[..], &["--config", "serve.toml"]].concat());
    let before = memory_of(&server);
    // For reading only, for another namespace, no token, and a namespace, a route or a method that
    // is not there.
    let absent = format!("{NAMESPACES}/{:032x}", 7);
    let refused = [
        (&reader, format!("PUT {namespace}/values/k"), 403),
        (&reader, format!("PUT {namespace}/bulk"), 403),
        (&reader, format!("POST {NAMESPACES}"), 403),
        (&of_m, format!("PUT {namespace}/values/k"), 403),
        (&of_m, format!("PUT {namespace}/bulk"), 403),
        // Whether it exists is not for this token to know.
        (&of_m, format!("PUT {absent}/values/k"), 403),
        (&of_m, format!("PUT {namespace}/nothing"), 404),
        (&of_m, format!("POST {namespace}/values/k"), 405),
        (&String::new(), format!("PUT {namespace}/values/k"), 403),
    ];
    let body = vec![b'v'; 16 * MIB];
    let mut connections = Vec::new();
    for (token, line, status) in &refused {
        let mut connection = Connection::to(&server.rest);
        let length = body.len();
        let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{token}Content-Length: {length}\r\n\r\n");
        connection.send(head.as_bytes());
        connection.send(&body[1..]);
        connections.push((connection, *status, line.clone()));
    }
    for token in [&reader, &of_m, &String::new()] {
        let connection = begin_put(&server, token, body.len(), &body[1..]);
        connections.push((connection, 403, format!("a binding with {token:?}")));
    }
    wait_until("bodies that were read", || {
        connections.iter().all(|(connection, ..)| connection.is_read())
    });
    let taken = memory_of(&server).saturating_sub(before);
    assert!(taken < 10 * MIB, "{taken} bytes for what is refused");
    // They are answered once the client has sent everything, since it reads the answer only then.
    for (mut connection, status, what) in connections {
        connection.send(b"v");
        let answer = connection.answer();
        assert_eq!(answer.status, status, "{what}: {answer:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_client_that_fills_the_memory_makes_way_for_another() {
    let at = Workplace::with_namespace();
    let [greedy, modest] = tokens(&at, [("greedy", ""), ("modest", "")]);
    let server = started(&at, &[&PATIENT[..], &["--config", "serve.toml"]].concat());
    // All of them but the last byte.
    let length = 23 * MIB;
    let body = vec![b'v'; length];
    let mut filling: Vec<_> = (0..4)
        .map(|_| begin_put(&server, &greedy, length, &body[1..]))
        .collect();
    wait_until("a full memory", || filling.iter().all(Connection::is_read));
    let mut put = begin_put(&server, &modest, length, &body);
    assert_eq!(put.answer().status, 200);
    let mut statuses = Vec::new();
    for connection in &mut filling {
        connection.send(b"v");
        let answer = connection.answer();
        assert_eq!(
            answer.header("retry-after").is_some(),
            answer.status == 503,
            "{answer:?}"
        );
        statuses.push(answer.status);
    }
    assert_eq!(statuses, [200, 200, 200, 503], "the last to come makes way");
    // The connection goes on.
    let again =
        format!("PUT /k HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\n{greedy}Content-Length: 1\r\n\r\nv");
    filling[3].send(again.as_bytes());
    assert_eq!(filling[3].answer().status, 200);
}

/// They cannot be taken back, and it is the client that decides how long they last.
#[test]
#[cfg(target_os = "linux")]
fn responses_that_are_not_read_keep_no_other_client_waiting() {
    let at = Workplace::with_namespace();
    let [greedy, modest] = tokens(&at, [("greedy", "read_only = true"), ("modest", "")]);
    let patient = [&PATIENT[..], &["--config", "serve.toml", "--idle-seconds", "100000"]].concat();
    let server = started(&at, &patient);
    // Four of them leave less than 1 MiB.
    let value = vec![b'v'; 23 * MIB + (400 << 10)];
    let token = modest.trim_end().strip_prefix("Authorization: ").unwrap().as_bytes();
    let put = |target: &str, value: &[u8]| {
        let headers: [(&str, &[u8]); 2] = [("X-KV-Namespace", b"N"), ("Authorization", token)];
        request(&server.binding, "PUT", target, &headers, value).status
    };
    assert_eq!(put("/k", &value), 200);
    let keys = "{\"keys\": [\"k\"]}";
    let mut unread: Vec<_> = (0..6).map(|_| Connection::to(&server.binding)).collect();
    let (first, others) = unread.split_first_mut().unwrap();
    let get = |connection: &mut Connection<TcpStream>| {
        let head = format!(
            "POST /bulk/get HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\n{greedy}Content-Length: {}\r\n\r\n",
            keys.len()
        );
        connection.send((head + keys).as_bytes());
    };
    get(first);
    assert_eq!(first.line(), "HTTP/1.1 200 OK");
    others.iter_mut().for_each(get);
    for _ in 0..60 {
        assert_eq!(put("/another", &value[..MIB]), 200);
    }
    assert_eq!(put("/another", &value), 200);
    assert!(others.iter_mut().all(Connection::is_silent), "more than a share");
    unread.remove(0);
    wait_until("the next response", || {
        unread.iter_mut().any(|connection| !connection.is_silent())
    });
}

/// There are only so many threads, and puts and gets need them.
#[test]
#[cfg(target_os = "linux")]
fn responses_that_wait_for_memory_take_no_threads() {
    let at = Workplace::with_namespace();
    let server = started(&at, &PATIENT);
    let threads = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.child.id()));
        tasks.unwrap().count()
    };
    let body = vec![b'v'; 23 * MIB];
    let filling: Vec<_> = (0..4).map(|_| begin_put(&server, "", body.len(), &body[1..])).collect();
    wait_until("a full memory", || filling.iter().all(Connection::is_read));
    let before = threads();
    let mut lists: Vec<_> = (0..100).map(|_| Connection::to(&server.binding)).collect();
    for list in &mut lists {
        list.send(b"GET /?key_count_limit=1000 HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\n\r\n");
    }
    wait_until("requests that were read", || lists.iter().all(Connection::is_read));
    for _ in 0..20 {
        assert_eq!(server.bound("GET", "k", &[], b"").status, 404);
    }
    assert!(lists.iter_mut().all(Connection::is_silent), "the memory is not full");
    let more = threads().saturating_sub(before);
    assert!(more < 50, "{more}");
    drop(filling);
    for list in &mut lists {
        assert_eq!(list.answer().status, 200);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn without_memory_a_request_is_answered_and_may_be_sent_again() {
    let at = Workplace::with_namespace();
    let namespace = path_of_namespace(&at);
    let server = started(&at, &["--body-memory-mib", "100", "--body-seconds", "5"]);
    let (length, left) = (23 * MIB, 100_000);
    let body = vec![b'v'; length];
    let mut filling: Vec<_> = (0..4).map(|_| begin_put(&server, "", length, &body[left..])).collect();
    wait_until("a full memory", || filling.iter().all(Connection::is_read));
    let refused = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut connection = begin_put(&server, "", length, &body);
            let refused = connection.answer();
            connection.send(b"GET /k HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\n\r\n");
            assert_eq!(connection.answer().status, 404);
            refused
        });
        // The others come slowly, but do come.
        while !waiting.is_finished() {
            for connection in &mut filling {
                connection.send(b"v");
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        waiting.join().unwrap()
    });
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some(&b"1"[..]));
    // Small requests have memory of their own.
    assert_eq!(server.bound("PUT", "small", &[], &vec![b'v'; 60 << 10]).status, 200);
    drop(filling);
    wait_until("memory for the same request", || {
        server.bound("PUT", "k", &[], &body).status == 200
    });
    // What can never have enough is told so.
    let answer = request(
        &server.rest,
        "PUT",
        &format!("{namespace}/bulk"),
        &[],
        &vec![b' '; 90 * MIB],
    );
    let (status, _, message) = answer.error();
    assert!(status == 413 && message.contains("--body-memory-mib"), "{answer:?}");
}

/// Values of up to 10 MiB, in all ways in which they can come, by several clients.
fn put_and_get_much(server: &Server, namespace: &str, client: usize) {
    let bulk = format!("{namespace}/bulk");
    let targets = |key: &str| format!("{namespace}/values/{client}-{key}");
    let value = vec![b'a' + client as u8; 10 * MIB];
    let mut connection = Connection::to(&server.rest);
    for round in 0..3 {
        let framing = |text: &str| text.as_bytes().to_vec();
        let form = [
            framing("--x\r\nContent-Disposition: form-data; name=\"value\"\r\n\r\n"),
            value.clone(),
            framing("\r\n--x--\r\n"),
        ]
        .concat();
        let content_type: (&str, &[u8]) = ("Content-Type", b"multipart/form-data; boundary=x");
        let as_form = connection.request("PUT", &targets("form"), &[content_type], &form);
        let head = format!(
            "PUT {} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
            targets("chunks")
        );
        connection.send(head.as_bytes());
        for chunk in value.chunks(1 << 20) {
            connection.send(format!("{:x}\r\n", chunk.len()).as_bytes());
            connection.send(chunk);
            connection.send(b"\r\n");
        }
        connection.send(b"0\r\n\r\n");
        let in_chunks = connection.answer();
        let text = String::from_utf8(value[..3 * MIB].to_vec()).unwrap();
        let pairs: Vec<_> = (0..2)
            .map(|n| format!("{{\"key\": \"{client}-{n}\", \"value\": \"{text}\"}}"))
            .collect();
        let many = connection.request("PUT", &bulk, &[], format!("[{}]", pairs.join(",")).as_bytes());
        let keys = format!("{{\"keys\": [\"{client}-0\", \"{client}-1\"]}}");
        let got = connection.request("POST", &format!("{bulk}/get"), &[], keys.as_bytes());
        for answer in [as_form, in_chunks, many, got] {
            let why = String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]).into_owned();
            assert!(
                matches!(answer.status, 200 | 503),
                "round {round}: {} {why}",
                answer.status
            );
        }
    }
}

/// What bodies and their processing take at most, and that it is given back. The store's buffers
/// come on top, and so much for connections and threads.
#[test]
#[cfg(target_os = "linux")]
fn the_memory_is_bounded_whatever_comes_and_goes_back_to_the_system() {
    const BUFFERS: usize = 128 * MIB;
    const OTHERS: usize = 64 * MIB;
    let at = Workplace::with_namespace();
    let namespace = path_of_namespace(&at);
    let server = started(&at, &["--body-memory-mib", "100"]);
    let before = memory_of(&server);
    let mut most = 0;
    let running = AtomicUsize::new(8);
    std::thread::scope(|scope| {
        for client in 0..8 {
            let (server, namespace, running) = (&server, &namespace, &running);
            scope.spawn(move || {
                let _ended = Ended(running);
                put_and_get_much(server, namespace, client);
            });
        }
        while running.load(Ordering::SeqCst) > 0 {
            most = most.max(memory_of(&server) - before);
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    });
    println!("{} MiB at most", most / MIB);
    assert!(most < 100 * MIB + BUFFERS + OTHERS, "{most}");
    let mut least = usize::MAX;
    wait_until("memory that goes back", || {
        least = least.min(memory_of(&server).saturating_sub(before));
        least < 80 * MIB
    });
    println!("{} MiB in the end", least / MIB);
}

/// Tells that a thread has ended, also if it has panicked.
struct Ended<'a>(&'a AtomicUsize);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
