//! The server: who is let in, what it bounds, how it is told what to do, and how it stops.

#[path = "common/command.rs"]
#[allow(dead_code, reason = "each program that includes this file uses its own part of it")]
mod command;
#[path = "common/http.rs"]
#[allow(dead_code, reason = "each program that includes this file uses its own part of it")]
mod http;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use command::Workplace;
use http::{Answer, Connection, Server, request};

const SERVE: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--binding", "127.0.0.1:0"];
const NAMESPACES: &str = "/client/v4/accounts/a/storage/kv/namespaces";
const TOKEN: &str = "a token that nobody guesses";

fn started(at: &Workplace, more: &[&str]) -> Server {
    Server::start(at.command(SERVE.iter().chain(more).copied()), 0)
}

/// A request through a binding of the namespace N.
fn bound(server: &Server, method: &str, key: &str, headers: &[(&str, &[u8])], body: &[u8]) -> Answer {
    let mut all: Vec<(&str, &[u8])> = vec![("X-KV-Namespace", b"N")];
    all.extend_from_slice(headers);
    request(&server.binding, method, &format!("/{key}?urlencoded=true"), &all, body)
}

fn bearer(token: &str) -> Vec<u8> {
    format!("Bearer {token}").into_bytes()
}

#[test]
fn a_token_is_asked_for_if_there_is_one() {
    let at = Workplace::with_namespace();
    let mut command = at.command(SERVE);
    // From the environment, so that nobody reads it in a list of processes.
    command.env("EMBERCASK_TOKEN", TOKEN);
    let server = Server::start(command, 0);
    let good = bearer(TOKEN);
    for wrong in [
        None,
        Some(bearer("another token, as long")),
        Some(b"Basic abc".to_vec()),
        Some(bearer("")),
    ] {
        let headers: Vec<(&str, &[u8])> = wrong.iter().map(|value| ("Authorization", &value[..])).collect();
        let answer = request(&server.rest, "GET", NAMESPACES, &headers, b"");
        assert_eq!(answer.error(), (403, 10000, "Authentication error".to_owned()));
        assert_eq!(
            bound(&server, "GET", "k", &headers, b"").line(),
            "403 Authentication error"
        );
        assert_eq!(bound(&server, "PUT", "k", &headers, &vec![b'v'; 1 << 20]).status, 403);
        assert_eq!(request(&server.rest, "GET", "/metrics", &headers, b"").status, 403);
    }
    let good: (&str, &[u8]) = ("authorization", &good);
    assert_eq!(bound(&server, "PUT", "k", &[good], b"v").status, 200);
    assert_eq!(request(&server.rest, "GET", NAMESPACES, &[good], b"").status, 200);
    assert_eq!(request(&server.rest, "GET", "/metrics", &[good], b"").status, 200);
    // A supervisor has no token.
    assert_eq!(request(&server.rest, "GET", "/healthz", &[], b"").body, b"ok\n");
    assert_eq!(request(&server.rest, "GET", "/readyz", &[], b"").body, b"ready\n");
    assert_eq!(
        request(&server.rest, "GET", "/", &[], b"").status,
        403,
        "no page was asked for"
    );
}

#[test]
fn tokens_may_be_for_reading_and_for_some_namespaces_only() {
    let at = Workplace::with_namespace();
    at.done(["namespace", "create", "M"]);
    let ids: BTreeMap<String, String> = at
        .json(["namespace", "list"])
        .as_array()
        .unwrap()
        .iter()
        .map(|info| {
            (
                info["title"].as_str().unwrap().to_owned(),
                info["id"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let made = at.text(["token", "reader"]);
    let (reader, setting) = made.split_once("\n\n").unwrap();
    let made = at.text(["token", "of N"]);
    let (of_n, of_n_setting) = made.split_once("\n\n").unwrap();
    assert!(reader.len() >= 43 && reader != of_n && !setting.contains(reader));
    let settings = format!("{setting}read_only = true\n\n{of_n_setting}namespaces = [\"N\"]\n");
    std::fs::write(at.path("serve.toml"), settings).unwrap();
    let server = started(&at, &["--config", "serve.toml"]);
    let with = |token: &str, method: &str, path: &str, body: &[u8]| {
        let value = bearer(token);
        let target = format!("{NAMESPACES}{path}");
        request(&server.rest, method, &target, &[("Authorization", &value)], body).status
    };
    let value_of = |name: &str| format!("/{}/values/k", ids[name]);
    assert_eq!(with(of_n, "PUT", &value_of("N"), b"v"), 200);
    assert_eq!(with(of_n, "PUT", &value_of("M"), b"v"), 403);
    assert_eq!(with(of_n, "GET", &value_of("M"), b""), 403);
    assert_eq!(with(of_n, "POST", "", b"{\"title\": \"X\"}"), 403);
    assert_eq!(with(of_n, "DELETE", &format!("/{}", ids["N"]), b""), 403);
    let value = bearer(of_n);
    let listed = request(&server.rest, "GET", NAMESPACES, &[("Authorization", &value)], b"").json();
    assert_eq!(listed["result_info"]["total_count"], 1, "others are not shown");

    assert_eq!(with(reader, "GET", &value_of("N"), b""), 200);
    assert_eq!(with(reader, "GET", &value_of("M"), b""), 404);
    for (method, path) in [
        ("PUT", value_of("N")),
        ("DELETE", value_of("N")),
        ("POST", String::new()),
    ] {
        assert_eq!(
            with(reader, method, &path, b"{\"title\": \"X\"}"),
            403,
            "{method} {path}"
        );
    }
    let value = bearer(reader);
    assert_eq!(
        bound(&server, "PUT", "k", &[("Authorization", &value)], b"v").status,
        403
    );
    assert_eq!(bound(&server, "GET", "k", &[("Authorization", &value)], b"").body, b"v");
}

/// Without a token, what keeps others out is that they cannot reach the address; a web page in a browser here can.
#[test]
fn web_pages_from_elsewhere_are_kept_out() {
    let at = Workplace::with_namespace();
    let server = started(&at, &[]);
    let origin: (&str, &[u8]) = ("Origin", b"http://elsewhere.example");
    // A name of theirs that leads here, and what a browser says by itself.
    for (header, value) in [("Host", "elsewhere.example:8787"), ("Sec-Fetch-Site", "cross-site")] {
        let mut connection = Connection::to(&server.rest);
        connection.send(format!("GET {NAMESPACES} HTTP/1.1\r\n{header}: {value}\r\n\r\n").as_bytes());
        assert_eq!(connection.answer().status, 403, "{header}");
    }
    assert_eq!(
        request(&server.rest, "POST", NAMESPACES, &[origin], b"{\"title\": \"X\"}").status,
        403
    );
    assert_eq!(bound(&server, "PUT", "k", &[origin], b"v").status, 403);
    assert_eq!(bound(&server, "PUT", "k", &[], b"v").status, 200);
}

#[test]
fn what_would_let_everybody_in_is_not_served() {
    let at = Workplace::with_namespace();
    for wrong in [
        &["serve", "--listen", "0.0.0.0:0"][..],
        &["serve", "--listen", "off", "--binding", "[::]:0"],
        &["serve", "--listen", "127.0.0.1:0", "--page"],
        &["serve", "--token", "short"],
        &["serve", "--listen", "off", "--binding", "off"],
        &["serve", "--listen", "nonsense"],
        &["serve", "--durability", "perhaps"],
        &["serve", "--binding-for", "N"],
        &["serve", "--tls-key", "key.pem"],
        &["serve", "--config", "missing.toml"],
        &["serve", "--log", "a=b=c"],
        &["serve", "--log-format", "colourful"],
        &["serve", "--max-connections", "0"],
    ] {
        let told = at.fails(2, wrong.iter().copied());
        assert!(told.starts_with("error: "), "{wrong:?}: {told}");
    }
    for (settings, expected) in [
        ("colour = \"red\"", "line 1"),
        ("listen = \"127.0.0.1:0\"\ndurability = 5", "line 2"),
        ("listen = \"127.0.0.1:0\"\n\ncolour = \"red\"", "line 3"),
        ("[[tokens]]\nname = \"a\"\nsha256 = \"short\"", "64 hexadecimal digits"),
    ] {
        std::fs::write(at.path("wrong.toml"), settings).unwrap();
        let told = at.fails(2, ["serve", "--config", "wrong.toml"]);
        assert!(told.contains(expected), "{settings}: {told}");
    }
    // Another process has the store.
    let _server = started(&at, &[]);
    at.fails(4, SERVE);
}

#[test]
fn flags_count_before_the_environment_and_that_before_the_file() {
    let at = Workplace::new();
    let settings =
        "store = \"of the file\"\nlisten = \"127.0.0.1:1\"\nbinding = \"nonsense\"\ndurability = \"os\"\npage = true\n";
    std::fs::write(at.path("serve.toml"), settings).unwrap();
    let mut command = at.command(["serve", "--config", "serve.toml", "--listen", "127.0.0.1:0"]);
    command
        .env_remove("EMBERCASK_STORE")
        .env("EMBERCASK_LISTEN", "more nonsense")
        .env("EMBERCASK_BINDING", "127.0.0.1:0")
        // Else it would ask for a token.
        .env("EMBERCASK_PAGE", "false");
    let mut server = Server::start(command, 0);
    assert_eq!(server.stop(), Some(0));
    assert!(at.path("of the file").join("MANIFEST").exists() && !at.path("store").exists());
}

/// A put of which the server has read the head, and half of the body is there.
fn begin_put(connection: &mut Connection<TcpStream>) {
    connection.send(
        b"PUT /k?urlencoded=true HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(connection.line(), "HTTP/1.1 100 Continue");
    assert_eq!(connection.line(), "");
    connection.send(b"12345");
}

#[test]
fn requests_that_have_come_are_finished_before_it_stops() {
    let at = Workplace::with_namespace();
    let mut server = started(&at, &[]);
    let mut connection = Connection::to(&server.binding);
    begin_put(&mut connection);
    let mut idle = Connection::to(&server.binding);
    assert_eq!(
        idle.request("GET", "/k?urlencoded=true", &[("X-KV-Namespace", b"N")], b"")
            .status,
        404
    );
    let address = server.binding.clone();
    let finishing = std::thread::spawn(move || {
        // Nobody is let in any more; then the rest comes.
        command::wait_until("a closed door", || TcpStream::connect(&address).is_err());
        connection.send(b"67890");
        connection.answer()
    });
    assert_eq!(server.stop(), Some(0));
    assert_eq!(finishing.join().unwrap().status, 200);
    assert!(idle.is_closed());
    assert_eq!(at.text(["key", "get", "-n", "N", "k"]), "1234567890");
}

#[test]
fn a_client_that_never_finishes_does_not_keep_it_from_stopping() {
    let at = Workplace::with_namespace();
    let mut server = started(&at, &["--stop-seconds", "1"]);
    let mut connection = Connection::to(&server.binding);
    begin_put(&mut connection);
    assert_eq!(server.stop(), Some(0));
    assert!(connection.is_closed());
    at.fails(1, ["key", "get", "-n", "N", "k"]);
}

#[test]
fn whoever_keeps_it_waiting_is_given_up() {
    let at = Workplace::with_namespace();
    std::fs::write(at.path("large"), vec![b'v'; 25 << 20]).unwrap();
    at.done(["key", "put", "-n", "N", "large", "--path", "large"]);
    let server = started(&at, &["--idle-seconds", "1", "--body-seconds", "1"]);
    // A head that does not end, a body that does not, and a connection on which nothing comes.
    for sent in [
        &b"GET /k?urlen"[..],
        b"PUT /k?urlencoded=true HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\nContent-Length: 10\r\n\r\n12345",
        b"",
    ] {
        let mut connection = Connection::to(&server.binding);
        connection.send(sent);
        // Perhaps with a word of why.
        let begun = Instant::now();
        let _ = connection.try_answer();
        assert!(connection.is_closed() && begun.elapsed() < Duration::from_secs(30));
    }
    // A body that comes, but a byte at a time.
    let mut connection = Connection::to(&server.binding);
    connection.send(
        b"PUT /k?urlencoded=true HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\nContent-Length: 1000\r\n\r\n",
    );
    let mut sent = 0;
    while connection.try_send(b"v").is_ok() {
        sent += 1;
        assert!(sent < 300, "it waits for every byte");
        std::thread::sleep(Duration::from_millis(100));
    }
    // One that asks for much and reads nothing.
    let mut connection = Connection::to(&server.binding);
    for _ in 0..4 {
        connection.send(b"GET /large?urlencoded=true HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\n\r\n");
    }
    let open = || {
        let metrics = request(&server.rest, "GET", "/metrics", &[], b"");
        let metrics = String::from_utf8(metrics.body).unwrap();
        metrics.contains("embercask_connections 1\n")
    };
    command::wait_until("the end of all connections but the one that asks", open);
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
    // The third waits until one of them is gone.
    let address = server.binding.clone();
    let is_answered = Arc::new(AtomicBool::new(false));
    let answered = Arc::clone(&is_answered);
    let third = std::thread::spawn(move || {
        let answer = request(&address, "GET", "/k", &[("X-KV-Namespace", b"N")], b"");
        answered.store(true, Ordering::SeqCst);
        answer.status
    });
    std::thread::sleep(Duration::from_millis(200));
    assert!(!is_answered.load(Ordering::SeqCst));
    assert_eq!(first.request("GET", "/k", &[namespace], b"").status, 404);
    drop(first);
    assert_eq!(third.join().unwrap(), 404);
}

#[test]
fn what_is_no_request_is_refused() {
    let at = Workplace::with_namespace();
    let server = started(&at, &[]);
    let put = "PUT /k?urlencoded=true HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\n";
    let long = format!("PUT /{} HTTP/1.1\r\nHost: fake-host\r\n\r\n", "a".repeat(200_000));
    let headers = format!("{put}{}\r\n", "X-A: b\r\n".repeat(1000));
    for sent in [
        "nonsense\r\n\r\n",
        "PUT /k HTTP/3\r\n\r\n",
        &format!("{put}Content-Length: -5\r\n\r\n"),
        &format!("{put}Content-Length: 99999999999999999999999\r\n\r\n"),
        &format!("{put}Content-Length: 5\r\nContent-Length: 6\r\n\r\nvalue"),
        &format!("{put}Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        &format!("{put}Transfer-Encoding: gzip\r\n\r\nvalue"),
        &format!("{put}CF-KV-Metadata: \"a\0b\"\r\nContent-Length: 1\r\n\r\nv"),
        &long,
        &headers,
    ] {
        let mut stream = TcpStream::connect(&server.binding).unwrap();
        let _ = stream.write_all(sent.as_bytes());
        let mut answer = Vec::new();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // To the end: the connection is of no use any more.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{sent:.60}: {answer}"
        );
    }
    assert_eq!(bound(&server, "GET", "k", &[], b"").status, 404);
    assert_eq!(bound(&server, "PUT", "k", &[], b"v").status, 200);
}

#[test]
fn what_was_acknowledged_is_there_after_sigkill() {
    let at = Workplace::with_namespace();
    // Of each key: whether any put of it was acknowledged, and the values that it may have.
    let mut expected = BTreeMap::<String, (bool, Vec<String>)>::new();
    for round in 0..4_u64 {
        let mut server = started(&at, &[]);
        let (stop, mut writers) = (Arc::new(AtomicBool::new(false)), Vec::new());
        let answered = Arc::new(AtomicU64::new(0));
        for writer in 0..4 {
            let (address, stop) = (server.binding.clone(), Arc::clone(&stop));
            let answered = Arc::clone(&answered);
            writers.push(std::thread::spawn(move || {
                let mut connection = Connection::to(&address);
                let mut done = Vec::new();
                for n in 0.. {
                    let (key, value) = (format!("w{writer}-{}", n % 50), format!("{round}-{n}"));
                    let head = format!(
                        "PUT /{key}?urlencoded=true HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\nContent-Length: {}\r\n\r\n{value}",
                        value.len()
                    );
                    // What was not answered may be there or not: it is the newest of its key.
                    done.push((key, value, false));
                    if stop.load(Ordering::SeqCst) || connection.try_send(head.as_bytes()).is_err() {
                        break;
                    }
                    match connection.try_answer() {
                        Some(answer) if answer.status == 200 => {
                            done.last_mut().unwrap().2 = true;
                            answered.fetch_add(1, Ordering::SeqCst);
                        }
                        _ => break,
                    }
                }
                done
            }));
        }
        command::wait_until("some puts that are answered", || {
            answered.load(Ordering::SeqCst) >= 20 + 40 * round
        });
        server.kill();
        stop.store(true, Ordering::SeqCst);
        for writer in writers {
            for (key, value, is_acknowledged) in writer.join().unwrap() {
                let (is_there, values) = expected.entry(key).or_default();
                if is_acknowledged {
                    *is_there = true;
                    values.clear();
                }
                values.push(value);
            }
        }
        let server = started(&at, &[]);
        for (key, (is_there, values)) in &mut expected {
            let answer = bound(&server, "GET", key, &[], b"");
            if answer.status == 404 {
                assert!(!*is_there, "{key} is gone");
                values.clear();
                continue;
            }
            let found = String::from_utf8(answer.body).unwrap();
            assert!(values.contains(&found), "{key}: {found:?} is none of {values:?}");
            (*is_there, *values) = (true, vec![found]);
        }
        drop(server);
    }
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
    let metrics = String::from_utf8(request(&server.rest, "GET", "/metrics", &[], b"").body).unwrap();
    let number = |name: &str| -> u64 {
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("{name}: {metrics}"));
        line.trim().parse().unwrap()
    };
    assert_eq!(
        number("embercask_requests_total{face=\"binding\",operation=\"put\",status=\"200\"}"),
        clients * puts
    );
    let syncs = number("embercask_store_syncs_total");
    println!("{syncs} syncs for {} puts", clients * puts);
    assert!(syncs < clients * puts, "{syncs}");
    assert_eq!(number("embercask_store_keys"), clients * puts);
    assert!(metrics.contains("embercask_request_seconds_bucket"));
}

/// Memory for bodies is bounded, however many clients send at once.
#[test]
#[cfg(target_os = "linux")]
fn many_large_bodies_at_once_take_no_more_memory_than_allowed() {
    let at = Workplace::with_namespace();
    let server = started(&at, &["--body-memory-mib", "100"]);
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    };
    let before = memory();
    let head =
        "PUT /k?urlencoded=true HTTP/1.1\r\nHost: fake-host\r\nX-KV-Namespace: N\r\nContent-Length: 26214400\r\n\r\n";
    // All but the end of each, as far as the server takes it.
    let clients: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut client = TcpStream::connect(&server.binding).unwrap();
            client.write_all(head.as_bytes()).unwrap();
            client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
            let _ = client.write_all(&vec![b'v'; 25 << 20][1..]);
            client
        })
        .collect();
    let most = memory() - before;
    println!("{most} bytes for 20 bodies of 25 MiB");
    assert!((80 << 20..110 << 20).contains(&most), "{most}");
    // When they go the others have their turn.
    drop(clients);
    assert_eq!(bound(&server, "PUT", "k", &[], &vec![b'v'; 25 << 20]).status, 200);
}

#[test]
fn tls_is_spoken_if_there_is_a_certificate() {
    let at = Workplace::with_namespace();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(at.path("certificate.pem"), made.cert.pem()).unwrap();
    std::fs::write(at.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let tls = ["--tls-certificate", "certificate.pem", "--tls-key", "key.pem"];
    let server = started(&at, &tls);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connect = |address: &str| {
        let name = "localhost".try_into().unwrap();
        let client = rustls::ClientConnection::new(Arc::new(config.clone()), name).unwrap();
        Connection::on(rustls::StreamOwned::new(client, TcpStream::connect(address).unwrap()))
    };
    let namespace: (&str, &[u8]) = ("X-KV-Namespace", b"N");
    let value = vec![b'v'; 3 << 20];
    let mut binding = connect(&server.binding);
    assert_eq!(binding.request("PUT", "/k", &[namespace], &value).status, 200);
    assert!(binding.request("GET", "/k", &[namespace], b"").body == value);
    assert_eq!(connect(&server.rest).request("GET", NAMESPACES, &[], b"").status, 200);
    // Who does not speak it is not answered.
    let mut plain = Connection::to(&server.binding);
    plain.send(b"GET /k HTTP/1.1\r\n\r\n");
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    let told = at.fails(
        2,
        SERVE.iter().copied().chain([
            "--store",
            "other",
            "--tls-certificate",
            "key.pem",
            "--tls-key",
            "key.pem",
        ]),
    );
    assert!(told.contains("key.pem"), "{told}");
}

#[test]
fn the_page_is_for_those_with_a_token() {
    let at = Workplace::with_namespace();
    let server = started(&at, &["--page", "--token", TOKEN]);
    let page = request(&server.rest, "GET", "/", &[], b"");
    assert_eq!(page.status, 200);
    let policy = String::from_utf8_lossy(page.header("content-security-policy").unwrap()).into_owned();
    assert!(
        policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    // It holds nothing; what it shows it asks for with the token.
    let origin: (&str, &[u8]) = ("Origin", b"http://127.0.0.1");
    assert_eq!(request(&server.rest, "GET", NAMESPACES, &[origin], b"").status, 403);
    let token = bearer(TOKEN);
    assert_eq!(
        request(
            &server.rest,
            "GET",
            NAMESPACES,
            &[origin, ("Authorization", &token)],
            b""
        )
        .status,
        200
    );
    assert_eq!(
        request(&server.binding, "GET", "/", &[], b"").status,
        403,
        "a binding has no page"
    );
}

/// Logs say what was asked for and how it ended, but not the keys, which may be secret, nor tokens.
#[test]
fn logs_are_lines_or_json() {
    let at = Workplace::with_namespace();
    for format in ["text", "json"] {
        let log = std::fs::File::create(at.path("log")).unwrap();
        let mut command = at.command(SERVE.iter().copied().chain(["--log", "debug", "--log-format", format]));
        command.env("EMBERCASK_TOKEN", TOKEN).stderr(log);
        let mut server = Server::start(command, 0);
        let token = bearer(TOKEN);
        assert_eq!(
            bound(&server, "PUT", "a-secret-key", &[("Authorization", &token)], b"v").status,
            200
        );
        assert_eq!(server.stop(), Some(0));
        let log = std::fs::read_to_string(at.path("log")).unwrap();
        assert!(
            log.contains("put") && log.contains("200") && log.contains("stopped"),
            "{log}"
        );
        assert!(!log.contains("a-secret-key") && !log.contains(TOKEN), "{log}");
        if format == "json" {
            for line in log.lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
            }
        }
    }
}
