//! Watching a namespace of a server.

use std::io::{BufRead, BufReader};

use super::Remote;
use crate::command::{ended, interrupt};

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
    // The note comes before the server is asked, so write until the first change is told.
    let (mut child, _told) = lines(&[]);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let writer = |key: &str| drop(remote.at.run(remote.on(["put", "-n", "N", key, "v", "--ttl", "3600"])));
    let mut first = String::new();
    let is_told = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_told.load(std::sync::atomic::Ordering::Relaxed) {
                writer("b");
                writer("a\u{e9}");
            }
        });
        out.read_line(&mut first).unwrap();
        is_told.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(first, "put a\u{e9}\n");
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
