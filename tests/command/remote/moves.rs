//! Exports from a server and imports into one: a store is moved there and back.

use std::io::Write;

use embercask::PutOptions;
use test_support::rng;

use super::Remote;
use crate::command::{Workplace, bytes_in, ended, interrupt, wait_until};

/// A store with namespaces, and keys of all kinds that the REST API can have.
fn filled() -> Workplace {
    let at = Workplace::with_namespace();
    let store = at.store();
    let mut rng = rng();
    for name in ["N", "a \"b\"", "empty", "ü"] {
        let namespace = store.namespace(name).unwrap();
        if name == "empty" {
            continue;
        }
        for number in 0..1500 + rng.below(100) {
            let value: Vec<u8> = match rng.below(4) {
                0 => (0..rng.below(40)).map(|_| rng.next() as u8).collect(),
                1 => "\u{fffd}\u{1}\"".repeat(rng.below(5) as usize).into_bytes(),
                _ => format!("value {number}").into_bytes(),
            };
            let mut options = PutOptions::new();
            if rng.below(3) == 0 {
                options = options.expiration(4_000_000_000 + rng.below(1000));
            }
            if rng.below(3) == 0 {
                options = options.metadata(format!("{{\"number\":{number}}}"));
            }
            let key = format!("{}/key % {}ü\n{number}", rng.below(10), rng.below(1000));
            namespace.put_with(key, value, options).unwrap();
        }
    }
    store.close().unwrap();
    at
}

/// An export without its first line, which names the store, and without the ids of namespaces.
fn content(export: &[u8]) -> Vec<String> {
    let text = String::from_utf8(export.to_vec()).unwrap();
    let lines = text.lines().skip(1).map(|line| match line.split_once(",\"id\":") {
        Some((namespace, _)) if !line.contains("\"key\"") => namespace.to_owned(),
        _ => line.to_owned(),
    });
    lines.collect()
}

#[test]
fn a_store_moves_to_a_server_and_back() {
    let at = filled();
    at.run(["export", "there.jsonl.zst"]);
    let remote = Remote::new();
    let file = at.path("there.jsonl.zst").display().to_string();
    let told = remote.text(["import", &file]);
    assert!(told.starts_with("Imported "), "{told}");
    let exported = remote.at.run(remote.on(["--quiet", "export", "-"]));
    assert!(
        exported.status.success(),
        "{}",
        String::from_utf8_lossy(&exported.stderr)
    );
    let original = at.run(["--quiet", "export", "-"]).stdout;
    assert_eq!(content(&exported.stdout), content(&original));
    // Back into a new store.
    let back = at.path("back").display().to_string();
    let output = at.fed(["--store", &back, "import", "-"], &exported.stdout);
    assert!(output.status.success());
    let again = at.run(["--store", &back, "--quiet", "export", "-"]).stdout;
    assert_eq!(content(&again), content(&original));
    // Some of it, in the other format.
    let bulk = |on_server: bool| {
        let line = [
            "--quiet", "export", "-", "-n", "N", "--prefix", "3/", "--format", "bulk",
        ];
        if on_server {
            remote.run(line).stdout
        } else {
            at.run(line).stdout
        }
    };
    assert_eq!(bulk(true), bulk(false));
    let told = remote.fails(1, ["export", "-", "-n", "ABSENT"]);
    assert!(told.contains("\"ABSENT\""), "{told}");
}

#[test]
fn an_import_skips_keys_that_are_there_if_that_is_asked_for() {
    let remote = Remote::new();
    remote.done(["key", "put", "-n", "N", "a", "old"]);
    let line =
        |key: &str| format!("{{\"namespace\":\"N\",\"key\":\"{key}\",\"value\":\"new\",\"metadata\":{{\"b\":1}}}}\n");
    let soon = "{\"namespace\":\"N\",\"key\":\"soon\",\"value\":\"v\",\"expiration_ms\":1000}\n";
    std::fs::write(
        remote.at.path("lines"),
        [line("a"), line("b"), soon.to_owned()].concat(),
    )
    .unwrap();
    let told = remote.text(["import", "lines", "--if-absent"]);
    assert!(
        told.starts_with("Imported 1 keys. 1 had expired") && told.contains("1 were there already"),
        "{told}"
    );
    assert_eq!(remote.done(["key", "get", "-n", "N", "a"]), b"old");
    assert_eq!(
        remote.json(["key", "get", "-n", "N", "b", "--json"])["metadata"]["b"],
        1
    );
    // Into another namespace, which is created.
    remote.done(["import", "lines", "-n", "NEW"]);
    assert_eq!(remote.done(["key", "get", "-n", "NEW", "a"]), b"new");
    let pairs = "[{\"key\":\"c\",\"value\":\"pair\"}]";
    std::fs::write(remote.at.path("pairs"), pairs).unwrap();
    remote.done(["import", "pairs", "-n", "NEW", "--format", "bulk"]);
    assert_eq!(remote.done(["key", "get", "-n", "NEW", "c"]), b"pair");
}

#[test]
fn what_the_rest_api_cannot_hold_is_named_with_its_line() {
    let remote = Remote::new();
    for (wrong, why) in [
        ("\"key_base64\":\"/w==\",\"value\":\"v\"", "not text"),
        ("\"key\":\"k\",\"value\":\"v\",\"metadata_base64\":\"/w==\"", "not JSON"),
        ("\"key\":\"..\",\"value\":\"v\"", "Illegal key name"),
        ("\"key\":\"\",\"value\":\"v\"", "must not be empty"),
    ] {
        let lines =
            format!("{{\"namespace\":\"N\",\"key\":\"good\",\"value\":\"v\"}}\n{{\"namespace\":\"N\",{wrong}}}\n");
        std::fs::write(remote.at.path("lines"), lines).unwrap();
        let told = remote.fails(2, ["import", "lines"]);
        assert!(told.contains("lines, line 2, key \"") && told.contains(why), "{told}");
        assert_eq!(remote.text(["key", "list", "-n", "N", "--text"]), "good\n");
    }
}

/// An export of `keys` keys with values of this many bytes.
fn large(at: &Workplace, keys: usize, bytes: usize) {
    let value = "v".repeat(bytes);
    let lines = (0..keys).map(|n| format!("{{\"namespace\":\"N\",\"key\":\"{n:05}\",\"value\":\"{value}\"}}\n"));
    std::fs::write(at.path("large"), lines.collect::<String>()).unwrap();
}

#[test]
fn an_import_stops_with_its_server_and_goes_on_with_it() {
    let mut remote = Remote::new();
    large(&remote.at, 20_000, 100);
    let whole = std::fs::read(remote.at.path("large")).unwrap();
    let half = whole.len() / 2;
    let line = ["import", "-", "--progress-file", "note"];
    let mut child = remote.at.spawned(remote.on(line));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&whole[..half]).unwrap();
    wait_until("the first keys", || remote.server.metric("store_keys") > 2000);
    remote.server.kill();
    // The command may end before it has read everything.
    let rest = whole[half..].to_vec();
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&rest)));
    let output = ended(child);
    feeder.join().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{told}");
    assert!(
        told.contains("cannot reach http://") && told.contains("--resume continues after them"),
        "{told}"
    );
    // At the same address, as after a restart of the machine.
    let address = remote.server.rest.clone();
    let command = remote
        .at
        .command(["serve", "--listen", &address, "--binding", "127.0.0.1:0"]);
    remote.server = crate::http::Server::start(command, 0);
    let resume = ["import", "-", "--progress-file", "note", "--resume"];
    let output = remote.at.fed(remote.on(resume), &whole);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && told.contains("Resuming after the first "),
        "{told}"
    );
    assert_eq!(remote.text(["key", "list", "-n", "N", "--count"]), "20000\n");
    // Another address may be another store.
    let by_name = address.replace("127.0.0.1", "localhost");
    std::fs::write(remote.at.path("large.progress"), note_of(&remote.url)).unwrap();
    let told = remote.at.fails(
        2,
        ["--url", &format!("http://{by_name}"), "import", "large", "--resume"],
    );
    assert!(told.contains("another store"), "{told}");
}

/// The note of an import into this server of which nothing is done.
fn note_of(url: &str) -> String {
    let store = format!("{url}/client/v4 any");
    serde_json::json!({
        "store": store, "sequence": 0, "namespace": null, "bulk": false, "if_absent": false,
        "items": 1, "crc32": 0, "section": null,
    })
    .to_string()
}

#[test]
fn an_export_is_stopped_by_ctrl_c_and_resumed() {
    let remote = Remote::new();
    large(&remote.at, 20_000, 1000);
    remote.done(["import", "large"]);
    let (whole, partial) = (remote.at.path("out.jsonl"), remote.at.path("out.jsonl.partial"));
    let told = loop {
        let child = remote.at.spawned(remote.on(["export", "out.jsonl"]));
        wait_until("the first lines", || bytes_in(&partial) > 0 || whole.exists());
        interrupt(&child);
        let output = ended(child);
        if !output.status.success() {
            assert_eq!(output.status.code(), Some(130), "{output:?}");
            break String::from_utf8(output.stderr).unwrap();
        }
        // It was complete before the signal came.
        std::fs::remove_file(&whole).unwrap();
    };
    assert!(told.contains("--resume"), "{told}");
    let before = bytes_in(&partial);
    assert!(before > 0);
    let output = remote.run(["export", "out.jsonl", "--resume"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let whole = remote.run(["--quiet", "export", "-"]).stdout;
    assert!(std::fs::read(remote.at.path("out.jsonl")).unwrap() == whole);
    // Another export is not resumed.
    std::fs::copy(remote.at.path("out.jsonl"), &partial).unwrap();
    let told = remote.fails(2, ["export", "out.jsonl", "--resume", "--prefix", "1"]);
    assert!(told.contains("not an export of the same store"), "{told}");
}

/// The default lifetime of the namespace N on a server, in milliseconds, and its keys that expire.
fn lifetimes(remote: &Remote) -> (Option<u64>, usize) {
    let exported = remote.run(["--quiet", "export", "-", "-n", "N"]).stdout;
    let lines = String::from_utf8(exported).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ttl = lines.iter().find_map(|line| line["default_ttl_ms"].as_u64());
    let expiring = lines.iter().filter(|line| line["expiration_ms"].is_u64());
    (ttl, expiring.count())
}

#[test]
fn an_import_into_a_server_sets_default_lifetimes_that_its_own_keys_do_not_get() {
    let at = Workplace::with_namespace();
    let store = at.store();
    let namespace = store.open_namespace("N").unwrap();
    let hour = std::time::Duration::from_secs(3600);
    namespace.set_default_ttl(Some(hour)).unwrap();
    namespace.put_with("stays", "v", PutOptions::new().forever()).unwrap();
    drop(namespace);
    store.close().unwrap();
    let server = crate::http::started(&at, &[]);
    let url = format!("http://{}", server.rest);
    let exported = at.run(["--quiet", "--url", &url, "export", "-"]).stdout;
    let remote = Remote::new();
    let import = |remote: &Remote, more: &[&str], input: &[u8]| {
        let line = remote.on(["import", "-"].into_iter().chain(more.iter().copied()));
        let output = remote.at.fed(line, input);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    // It stops at a wrong line and is resumed behind the line of the namespace.
    let lines: Vec<&[u8]> = exported.split_inclusive(|byte| *byte == b'\n').collect();
    let note = ["--progress-file", "note"];
    let (status, told) = import(&remote, &note, &[&lines[..3].concat(), &b"wrong\n"[..]].concat());
    assert_eq!(status, 2, "{told}");
    assert_eq!(lifetimes(&remote), (None, 0));
    let (status, told) = import(&remote, &[&note[..], &["--resume"]].concat(), &exported);
    assert!(status == 0 && told.starts_with("Resuming after the first 3 "), "{told}");
    assert_eq!(lifetimes(&remote), (Some(3_600_000), 0));
    // Keys that come later get it, as the command says.
    let key = b"{\"namespace\":\"N\",\"key\":\"later\",\"value\":\"v\"}\n";
    let (status, told) = import(&remote, &[], key);
    assert!(
        status == 0 && told.contains("get the default lifetime") && told.contains(": 3600 s"),
        "{told}"
    );
    assert_eq!(lifetimes(&remote), (Some(3_600_000), 1));
    // One that is set stays if that is asked for; one that the server refuses is told of.
    let with = |ms: u64| format!("{{\"namespace\":\"N\",\"default_ttl_ms\":{ms}}}\n").into_bytes();
    assert_eq!(import(&remote, &["--if-absent"], &with(7_200_000)).0, 0);
    assert_eq!(lifetimes(&remote).0, Some(3_600_000));
    let (status, told) = import(&remote, &[], &with(5000));
    assert!(
        status == 0 && told.contains("The default lifetime of \"N\" is not set: Invalid default_ttl of 5"),
        "{told}"
    );
    // Rounded up to the second, as an expiry is.
    assert_eq!(import(&remote, &[], &with(7_199_001)).0, 0);
    assert_eq!(lifetimes(&remote).0, Some(7_200_000));
    // A key that lives forever cannot be renamed there.
    let told = remote.fails(2, ["mv", "-n", "N", "stays", "goes"]);
    assert!(told.contains("default lifetime"), "{told}");
}
