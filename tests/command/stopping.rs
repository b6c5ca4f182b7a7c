//! The server: stopping, and durability after a kill.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::command::{Workplace, wait_until};
use crate::http::{Connection, started};

/// Sends a put; the server has read its head, and half of its body is sent.
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
        // Sends the rest once the server accepts no more connections.
        wait_until("a closed door", || TcpStream::connect(&address).is_err());
        connection.send(b"67890");
        connection.answer()
    });
    assert_eq!(server.stop(), Some(0));
    assert_eq!(finishing.join().unwrap().status, 200);
    assert!(idle.is_closed());
    assert_eq!(at.text(["key", "get", "-n", "N", "k"]), "1234567890");
}

/// Neither connections without a request nor those that are idle keep it from stopping: no request
/// has come of which a client could expect an answer.
#[test]
#[cfg(target_os = "linux")]
fn connections_without_a_whole_head_end_at_once_when_it_stops() {
    let at = Workplace::with_namespace();
    let patient = ["--idle-seconds", "100000", "--stop-seconds", "100000"];
    let mut server = started(&at, &patient);
    let mut idle = Connection::to(&server.binding);
    let mut second = Connection::to(&server.binding);
    for connection in [&mut idle, &mut second] {
        let answer = connection.request("GET", "/k", &[("X-KV-Namespace", b"N")], b"");
        assert_eq!(answer.status, 404);
    }
    let mut half = Connection::to(&server.binding);
    let mut of_rest = Connection::to(&server.rest);
    let mut silent = Connection::to(&server.rest);
    for connection in [&mut half, &mut second, &mut of_rest] {
        connection.send(b"GET /healthz HTTP/1.1\r\nHost: fake-host\r\n");
    }
    wait_until("heads that were read in part", || {
        [&half, &second, &of_rest].iter().all(|connection| connection.is_read())
    });
    server.begin_to_stop();
    wait_until("a closed door", || TcpStream::connect(&server.rest).is_err());
    for connection in [&mut half, &mut second, &mut of_rest] {
        // The rest of the head comes too late.
        let _ = connection.try_send(b"\r\n");
    }
    for connection in [&mut half, &mut second, &mut of_rest, &mut idle, &mut silent] {
        assert!(connection.is_closed());
    }
    assert_eq!(server.stopped(), Some(0));
}

#[test]
fn a_client_that_never_finishes_does_not_keep_it_from_stopping() {
    let at = Workplace::with_namespace();
    // No other timeout ends the wait for the rest of the put.
    let patient = ["--body-seconds", "100000", "--idle-seconds", "100000"];
    let mut server = started(&at, &[&patient[..], &["--stop-seconds", "1"]].concat());
    let mut connection = Connection::to(&server.binding);
    begin_put(&mut connection);
    assert_eq!(server.stop(), Some(0));
    assert!(connection.is_closed());
    at.fails(1, ["key", "get", "-n", "N", "k"]);
}

#[test]
fn what_was_acknowledged_is_there_after_sigkill() {
    let at = Workplace::with_namespace();
    // For each key, whether any put of it was acknowledged, and its possible values.
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
                    // A put without an answer is the newest of its key, and may or may not be
                    // there.
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
        wait_until("some puts that are answered", || {
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
            let answer = server.bound("GET", key, &[], b"");
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
