//! Watching a namespace of a server.

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::Remote;
use crate::command::{ended, interrupt};

/// What a watch prints first. The note that it begins comes before the server is asked, so keys are
/// put until a line is there.
fn first_line(remote: &Remote, out: &mut impl BufRead) -> String {
    let put = |key: &str| drop(remote.run(["put", "-n", "N", key, "v", "--ttl", "3600"]));
    let is_told = AtomicBool::new(false);
    let mut first = String::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_told.load(Ordering::Relaxed) {
                put("b");
                put("a\u{e9}");
            }
        });
        let read = out.read_line(&mut first);
        is_told.store(true, Ordering::Relaxed);
        read.unwrap();
    });
    first
}

#[test]
fn changes_on_a_server_are_told_as_they_come() {
    let mut remote = Remote::new();
    let lines = |more: &[&str]| {
        let line = ["key", "watch", "-n", "N", "--prefix", "a"];
        let mut child = remote
            .at
            .spawned(remote.on(line.into_iter().chain(more.iter().copied())));
        let mut told = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        told.read_line(&mut line).unwrap();
        assert!(line.contains("Watching"), "{line}");
        (child, told)
    };
    let (mut child, _told) = lines(&["--json", "--count", "1"]);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let first: Value = serde_json::from_str(&first_line(&remote, &mut out)).unwrap();
    assert_eq!((&first["event"], &first["name"]), (&"put".into(), &"a\u{e9}".into()));
    assert!(first["expiration"].is_u64() && first["sequence"].is_u64(), "{first}");
    assert_eq!(ended(child).status.code(), Some(0), "one was asked for");

    let (mut child, _told) = lines(&[]);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(first_line(&remote, &mut out), "put a\u{e9}\n");
    remote.done(["key", "delete", "-n", "N", "a\u{e9}"]);
    let mut next = String::new();
    while !next.ends_with("delete a\u{e9}\n") {
        assert!(out.read_line(&mut next).unwrap() > 0, "{next}");
    }
    interrupt(&child);
    assert_eq!(ended(child).status.code(), Some(0));

    // A server that stops ends the watch.
    let (child, _told) = lines(&["--json"]);
    assert_eq!(remote.server.stop(), Some(0));
    assert_eq!(ended(child).status.code(), Some(5));
}
