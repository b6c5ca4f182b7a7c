//! The store of a replica in the hands of commands that are not for it, and what the commands of
//! `embercask replica` say before they reach a log. What needs a log is in `tests/cluster/run`.

use std::path::Path;

use embercask::Store;
use embercask_replica::state;

use crate::command::Workplace;

/// Makes the store of a workplace a replica, as `replica init` does once it has reached the log.
fn make_replica(at: &Workplace) {
    let store = Store::open(at.path("store")).unwrap();
    state::init(&store, 0xabc).unwrap();
    store.close().unwrap();
}

#[test]
fn a_replica_is_written_to_by_its_log_alone_until_it_leaves() {
    let at = Workplace::with_namespace();
    at.done(["key", "put", "-n", "N", "k", "v"]);
    make_replica(&at);
    for words in [
        &["key", "put", "-n", "N", "k", "w"][..],
        &["key", "delete", "-n", "N", "k"],
        &["namespace", "create", "M"],
        &["compact"],
        &["checkpoint", "copy"],
    ] {
        let told = at.fails(2, words.iter().copied());
        assert!(
            told.contains("replica of the cluster") && told.contains("replica leave"),
            "{words:?}: {told}"
        );
    }
    let told = at.fails(2, ["serve", "--listen", "127.0.0.1:0", "--binding", "off"]);
    assert!(told.contains("[replica]"), "{told}");
    // Reading works, and shows nothing of the log's.
    assert_eq!(at.text(["key", "get", "-n", "N", "k"]), "v");
    let listed = at.text(["namespace", "list", "--json"]);
    assert_eq!(listed.lines().count(), 1, "{listed}");
    let id = format!("{:032x}", state::RESERVED_ID);
    at.fails(1, ["key", "list", "--namespace-id", &id]);
    assert!(at.text(["stats"]).contains("1 keys in 1 namespaces"));
    let exported = at.text(["--quiet", "export", "-"]);
    assert!(!exported.contains(&id), "{exported}");

    at.done(["replica", "leave"]);
    at.done(["key", "put", "-n", "N", "k", "w"]);
    at.fails(1, ["replica", "leave"]);
}

#[test]
fn a_command_for_replicas_says_what_it_lacks() {
    let at = Workplace::with_namespace();
    let told = at.fails(2, ["replica", "status", "--json"]);
    assert!(told.contains("--url"), "{told}");
    at.fails(2, ["replica", "audit", "http://127.0.0.1:1"]);
    let told = at.fails(2, ["replica", "join", "--from", "http://127.0.0.1:1"]);
    assert!(told.contains("is not empty"), "{told}");
    for words in [&["replica", "init"][..], &["replica", "reset-log", "--delete", "--yes"]] {
        let told = at.fails(2, words.iter().copied());
        let expected = match cfg!(feature = "replica") {
            true => "no log is named",
            false => "--features replica",
        };
        assert!(told.contains(expected), "{words:?}: {told}");
    }
}

/// A server of another kind has neither a status nor a checkpoint.
#[test]
fn a_server_that_is_no_replica_is_not_joined() {
    let at = Workplace::with_namespace();
    let server = crate::http::started(&at, &[]);
    let url = format!("http://{}", server.rest);
    let told = at.fails(2, ["replica", "status", "--url", &url]);
    assert!(told.contains("is not a replica"), "{told}");
    let told = at.fails(2, ["--store", "joined", "replica", "join", "--from", &url]);
    assert!(told.contains("is not a replica"), "{told}");
    assert!(!Path::new(&at.path("joined")).join("MANIFEST").exists());
}

/// Servers that keep the log have their configuration from the command.
#[test]
#[cfg(feature = "replica")]
fn the_configuration_of_a_server_of_the_log_is_printed() {
    let at = Workplace::with_namespace();
    let servers = ["--log-server", "kv-1=10.0.0.1,kv-2=10.0.0.2,kv-3=10.0.0.3"];
    let print = |name| [&["replica", "init", "--print-nats-config", name][..], &servers].concat();
    let printed = at.text(print("kv-2"));
    for part in ["server_name: \"kv-2\"", "sync_interval: always", "10.0.0.3"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    at.fails(2, print("kv-4"));
    at.fails(2, ["replica", "init", "--print-nats-config", "kv-1"]);
}
