//! Single keys and namespaces on a server.

use serde_json::{Value, json};

use super::Remote;
use crate::command::{Workplace, now};

/// Runs these lines on a store and on a server: output and exit status are the same. Returns the
/// exit statuses other than 0.
fn same(lines: &[&[&str]]) -> Vec<i32> {
    let (local, remote) = (Workplace::with_namespace(), Remote::new());
    let mut statuses = Vec::new();
    for line in lines {
        let (on_store, on_server) = (local.run(line.iter().copied()), remote.run(line.iter().copied()));
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let shown =
            |output: &std::process::Output| (output.status.code(), shown(&output.stdout), shown(&output.stderr));
        assert_eq!(shown(&on_server), shown(&on_store), "{line:?}");
        statuses.extend(on_store.status.code().filter(|status| *status != 0));
    }
    statuses
}

#[test]
fn single_keys_are_put_got_and_deleted_as_in_a_store() {
    let long = "long ".repeat(100);
    let statuses = same(&[
        &["key", "put", "-n", "N", "k", "value one"],
        &["key", "get", "-n", "N", "k"],
        &["key", "get", "-n", "N", "k", "--text"],
        &["key", "get", "-n", "N", "k", "--value-format", "base64"],
        &["--quiet", "key", "put", "-n", "N", "empty", ""],
        &["key", "get", "-n", "N", "empty"],
        &["key", "put", "-n", "N", "a/b%2F c+d?e#f", &long],
        &["key", "get", "--binding", "N", "a/b%2F c+d?e#f"],
        &["key", "put", "-n", "N", "grüße 🔑", "ü\u{fffd}"],
        &["key", "get", "-n", "N", "grüße 🔑"],
        &[
            "key",
            "put",
            "-n",
            "N",
            "a\\nb\\t\\x00",
            "\\x00\\xff\\n",
            "--key-format",
            "escaped",
            "--value-format",
            "escaped",
        ],
        &[
            "key",
            "get",
            "-n",
            "N",
            "a\\nb\\t\\x00",
            "--key-format",
            "escaped",
            "--value-format",
            "escaped",
        ],
        &[
            "key",
            "put",
            "-n",
            "N",
            "bWV0YQ==",
            "v",
            "--key-format",
            "base64",
            "--metadata",
            "{\"a\": [1, 2.50]}",
        ],
        &["key", "put", "-n", "N", "dies", "v", "--expiration", "4000000000"],
        &["key", "put", "-n", "N", "...", "v"],
        &["key", "list", "-n", "N"],
        &["key", "list", "-n", "N", "--json"],
        &["key", "list", "-n", "N", "--text"],
        &["key", "list", "-n", "N", "--prefix", "a", "--text"],
        &[
            "key",
            "list",
            "-n",
            "N",
            "--prefix",
            "a\\n",
            "--key-format",
            "escaped",
            "--json",
        ],
        &["--quiet", "key", "list", "-n", "N", "--limit", "2", "--text"],
        &["--quiet", "key", "list", "-n", "N", "--limit", "0"],
        &["key", "list", "-n", "N", "--count"],
        &["key", "list", "-n", "N", "--count", "--prefix", "d"],
        &["key", "get", "-n", "N", "absent"],
        &["key", "delete", "-n", "N", "absent"],
        &["key", "list", "-n", "N", "--pattern", "*[ae]*", "--text"],
        &["key", "list", "-n", "N", "--pattern", "*e*", "--count"],
        &["key", "list", "-n", "N", "--pattern", "[", "--count"],
        &["key", "exists", "-n", "N", "k", "absent"],
        &["key", "exists", "-n", "N", "k", "dies"],
        &["key", "ttl", "-n", "N", "k"],
        &["key", "ttl", "-n", "N", "absent"],
        &["key", "expire", "-n", "N", "absent", "--never"],
        &[
            "key",
            "expire",
            "-n",
            "N",
            "bWV0YQ==",
            "--expiration",
            "4100000000",
            "--key-format",
            "base64",
        ],
        &["key", "expire", "-n", "N", "dies", "--never"],
        &["key", "list", "-n", "N"],
        &["get", "-n", "N", "k", "empty", "absent", "dies"],
        &["get", "-n", "N", "k", "dies", "--text"],
        &["rename", "-n", "N", "bWV0YQ==", "bQ==", "--key-format", "base64"],
        &["rename", "-n", "N", "absent", "new"],
        &["rename", "-n", "N", "k", "k"],
        &["rename", "-n", "N", "m", "k"],
        &["mv", "-n", "N", "m", "...", "--force"],
        &["list", "-n", "N"],
        &["delete", "-n", "N", "dies", "absent", "empty"],
        &["key", "delete", "-n", "N", "k"],
        &["key", "get", "-n", "N", "k"],
        &["key", "put", "-n", "N", "k", "v", "--metadata", "[]"],
        &["key", "put", "-n", "N", "k", "v", "--path", "absent"],
        &["key", "put", "-n", "N", "k", "--path", "absent"],
        &["key", "get", "--namespace-id", "12", "k"],
    ]);
    assert_eq!(statuses, [1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 2, 2, 2]);
}

/// Values and sequences apart, which a server does not tell.
fn without_sequence(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.remove("sequence");
    }
    value
}

#[test]
fn values_are_shown_with_what_is_stored_beside_them() {
    let (local, remote) = (Workplace::with_namespace(), Remote::new());
    let put: [&[&str]; 4] = [
        &["text", "v", "--expiration", "4000000000", "--metadata", "{\"a\":1}"],
        &[
            "binary",
            "\\x00\\xff",
            "--value-format",
            "escaped",
            "--metadata",
            "{\"b\":\"ü\"}",
        ],
        &["replaced", "\u{fffd}"],
        &["empty", ""],
    ];
    for words in put {
        let line = || ["--quiet", "key", "put", "-n", "N"].iter().chain(words).copied();
        local.done(line());
        remote.done(line());
    }
    for words in put {
        let line = || ["key", "get", "-n", "N", words[0], "--json"];
        assert_eq!(remote.json(line()), without_sequence(local.json(line())), "{words:?}");
    }
    let listed = |text: String| -> Vec<Value> {
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.map(without_sequence).collect()
    };
    let line = ["key", "list", "-n", "N", "--values", "--json"];
    assert_eq!(listed(remote.text(line)), listed(local.text(line)));
    assert_eq!(listed(remote.text(line)).len(), 4);
}

#[test]
fn a_value_of_the_largest_size_comes_out_as_it_went_in() {
    let remote = Remote::new();
    // No byte of it is text, so it is not returned by a bulk get.
    let large: Vec<u8> = (0..25 << 20)
        .map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 24) as u8 | 0x80)
        .collect();
    std::fs::write(remote.at.path("large"), &large).unwrap();
    remote.done([
        "key",
        "put",
        "-n",
        "N",
        "large",
        "--path",
        "large",
        "--metadata",
        "{\"large\":true}",
    ]);
    assert!(remote.done(["key", "get", "-n", "N", "large"]) == large);
    let shown = remote.json(["key", "get", "-n", "N", "large", "--json"]);
    assert_eq!(shown["metadata"], json!({"large": true}));
    std::fs::write(remote.at.path("larger"), [&large[..], b"x"].concat()).unwrap();
    let told = remote.fails(2, ["key", "put", "-n", "N", "larger", "--path", "larger"]);
    assert!(told.contains("26214400"), "{told}");
    let output = remote.at.fed(
        remote.on(["key", "put", "-n", "N", "fed", "--path", "-"]),
        b"from a pipe",
    );
    assert!(output.status.success());
    assert_eq!(remote.done(["key", "get", "-n", "N", "fed"]), b"from a pipe");
}

#[test]
fn a_key_is_created_by_one_client_only() {
    let remote = Remote::new();
    remote.done(["key", "put", "-n", "N", "lock", "mine", "--if-absent"]);
    let told = remote.fails(
        1,
        [
            "key",
            "put",
            "-n",
            "N",
            "lock",
            "yours",
            "--if-absent",
            "--metadata",
            "{}",
        ],
    );
    assert!(told.contains("there already"), "{told}");
    assert_eq!(remote.done(["key", "get", "-n", "N", "lock"]), b"mine");
}

#[test]
fn keys_have_lifetimes_within_the_limits_of_the_server() {
    let remote = Remote::new();
    remote.done(["key", "put", "-n", "N", "k", "v", "--ttl", "3600"]);
    let listed = remote.json(["key", "list", "-n", "N"]);
    let left = listed[0]["expiration"].as_u64().unwrap() - now();
    assert!((3000..=3601).contains(&left), "{left}");
    let told = remote.fails(2, ["key", "put", "-n", "N", "k", "v", "--ttl", "5"]);
    assert!(
        told.starts_with("error: http://") && told.contains("Invalid expiration_ttl of 5"),
        "{told}"
    );
    assert!(!told.contains("put:"), "{told}");
}

#[test]
fn namespaces_are_created_listed_renamed_and_deleted() {
    let remote = Remote::new();
    let created = remote.text(["namespace", "create", "SESSIONS"]);
    let listed = remote.json(["namespace", "list"]);
    assert_eq!(
        (&listed[0]["title"], &listed[1]["title"]),
        (&json!("N"), &json!("SESSIONS"))
    );
    let id = listed[1]["id"].as_str().unwrap();
    assert!(created.contains(id), "{created}");
    let told = remote.fails(1, ["namespace", "create", "SESSIONS"]);
    assert!(told.contains("\"SESSIONS\" already"), "{told}");
    remote.fails(1, ["namespace", "rename", "N", "--new-name", "SESSIONS"]);
    remote.done(["key", "put", "--namespace-id", id, "k", "v"]);
    remote.done(["namespace", "rename", "SESSIONS", "--new-name", "LOGINS"]);
    assert_eq!(remote.done(["key", "get", "-n", "LOGINS", "k"]), b"v");
    remote.done(["namespace", "rename", "--namespace-id", id, "--new-name", "a \"b\""]);
    let lines = remote.text(["namespace", "list", "--json"]);
    assert!(lines.contains("\"title\":\"a \\\"b\\\"\",\"keys\":1"), "{lines}");
    let id = "00000000000000000000000000000001";
    let told = remote.fails(1, ["key", "get", "--namespace-id", id, "k"]);
    assert!(told.contains("namespace not found"), "{told}");
    remote.done(["namespace", "delete", "a \"b\"", "-y"]);
    // There is no terminal to ask on.
    let told = remote.fails(2, ["namespace", "delete", "N"]);
    assert!(told.contains(&remote.url) && told.contains("-y"), "{told}");
    remote.done(["namespace", "delete", "--binding", "N", "--skip-confirmation"]);
    assert_eq!(remote.json(["namespace", "list"]), json!([]));
    let told = remote.fails(1, ["key", "get", "-n", "N", "k"]);
    assert!(told.contains("no namespace \"N\"") && told.contains("hint: "), "{told}");
}

#[test]
fn many_namespaces_are_found_page_by_page() {
    let remote = Remote::with(&[]);
    drop(remote.server);
    let store = remote.at.store();
    for number in 0..2100 {
        store.namespace(&format!("many {number:04}")).unwrap();
    }
    store.close().unwrap();
    let server = crate::http::started(&remote.at, &[]);
    let remote = Remote {
        url: format!("http://{}", server.rest),
        server,
        at: remote.at,
    };
    let listed = remote.json(["namespace", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 2101);
    remote.done(["key", "put", "-n", "many 2099", "k", "v"]);
    assert_eq!(remote.done(["key", "get", "-n", "many 2099", "k"]), b"v");
}

#[test]
fn a_shell_works_on_a_server() {
    let remote = Remote::new();
    let script = "use N\nkey put k v\nget k --text\nnamespace rename N --new-name M\nexists k\nnamespace list --json\n";
    let output = remote.at.fed(remote.on(["shell"]), script.as_bytes());
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && told.contains("\nv\n") && told.contains("\"keys\":1"),
        "{told}"
    );
    for (line, why) in [
        ("stats\n", "--url"),
        ("key put -n N k --path -\n", "shell"),
        ("shell\n", "already"),
    ] {
        let output = remote.at.fed(remote.on(["shell"]), line.as_bytes());
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && told.contains(why), "{line}: {told}");
    }
}

#[test]
fn a_listing_goes_on_at_its_cursor() {
    let remote = Remote::new();
    for key in ["a1", "a2", "b1", "a3", "a4"] {
        remote.at.run(remote.on(["put", "-n", "N", key, "v"]));
    }
    for (flags, expected) in [(&[][..], [2, 2, 1]), (&["--pattern", "a*"], [2, 2, 0])] {
        let mut cursor = None::<String>;
        let mut listed = Vec::new();
        for expected in expected.into_iter().filter(|number| *number > 0) {
            let mut line = vec!["list", "-n", "N", "--text", "--limit", "2"];
            line.extend(flags);
            if let Some(cursor) = &cursor {
                line.extend(["--cursor", cursor]);
            }
            let output = remote.run(line);
            let (out, told) = (
                String::from_utf8(output.stdout).unwrap(),
                String::from_utf8(output.stderr).unwrap(),
            );
            assert_eq!(out.lines().count(), expected, "{flags:?} {out} {told}");
            listed.extend(out.lines().map(str::to_owned));
            cursor = told.strip_prefix("cursor: ").map(|cursor| cursor.trim_end().to_owned());
        }
        assert!(listed.is_sorted() && cursor.is_none(), "{listed:?} {cursor:?}");
    }
    // Before anything is printed.
    let told = remote.fails(2, ["list", "-n", "N", "--cursor", "nonsense"]);
    assert!(told.contains("cursor"), "{told}");
}
