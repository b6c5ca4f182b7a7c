//! Bulk files on a server.

use serde_json::{Value, json};

use super::Remote;

#[test]
fn pairs_are_put_got_and_deleted_in_parts() {
    let remote = Remote::new();
    // More than one part by number, by bytes, and a value that is not text.
    let mut pairs: Vec<Value> = (0..2300)
        .map(|n| json!({"key": format!("k{n:04}"), "value": format!("v{n}")}))
        .collect();
    pairs.extend((0..3).map(|n| json!({"key": format!("large{n}"), "value": "x".repeat(3 << 20)})));
    pairs.push(json!({"key": "binary", "value": "/wA=", "base64": true, "metadata": {"a": 1}, "expiration": 4_000_000_000_u64}));
    pairs.push(json!({"key": "ttl", "value": "", "expiration_ttl": 3600}));
    std::fs::write(remote.at.path("pairs"), serde_json::to_vec(&pairs).unwrap()).unwrap();
    assert_eq!(
        remote.text(["bulk", "put", "-n", "N", "pairs"]),
        "Success! Wrote 2305 keys.\n"
    );
    assert_eq!(remote.text(["key", "list", "-n", "N", "--count"]), "2305\n");
    let shown = remote.json(["key", "get", "-n", "N", "binary", "--json"]);
    assert_eq!(
        shown,
        json!({"name": "binary", "value_base64": "/wA=", "expiration": 4_000_000_000_u64, "metadata": {"a": 1}})
    );

    let mut keys: Vec<Value> = (0..2300).map(|n| json!(format!("k{n:04}"))).collect();
    keys.push(json!({"name": "binary"}));
    keys.push(json!("absent"));
    keys.extend((0..3).map(|n| json!(format!("large{n}"))));
    std::fs::write(remote.at.path("keys"), serde_json::to_vec(&keys).unwrap()).unwrap();
    let got = remote.json(["bulk", "get", "-n", "N", "keys"]);
    assert_eq!((&got["k2299"], &got["absent"]), (&json!("v2299"), &Value::Null));
    assert_eq!(got["binary"], json!({"base64": "/wA="}));
    assert_eq!(
        (got.as_object().unwrap().len(), got["large2"].as_str().unwrap().len()),
        (2305, 3 << 20)
    );

    let told = remote.fails(2, ["bulk", "delete", "-n", "N", "keys"]);
    assert!(told.contains("--force") && told.contains(&remote.url), "{told}");
    let output = remote.at.fed(
        remote.on(["bulk", "delete", "-n", "N", "-", "--force"]),
        &serde_json::to_vec(&keys).unwrap(),
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Success! Deleted 2305 keys.\n");
    assert_eq!(remote.text(["key", "list", "-n", "N", "--text"]), "ttl\n");
}

#[test]
fn a_pair_that_the_server_refuses_is_named_and_those_before_it_are_put() {
    let remote = Remote::new();
    for (wrong, why) in [
        (
            json!({"key": "bad", "value": "v", "expiration_ttl": 5}),
            "Invalid expiration_ttl of 5",
        ),
        (
            json!({"key": "k".repeat(513), "value": "v"}),
            "exceeds key length limit",
        ),
        (
            json!({"key": "bad", "value": "v", "metadata": "m".repeat(2000)}),
            "Metadata length",
        ),
        (json!({"key": "", "value": "v"}), "must not be empty"),
    ] {
        let pairs = json!([{"key": "a", "value": "1"}, {"key": "b", "value": "2"}, wrong, {"key": "z", "value": "3"}]);
        std::fs::write(remote.at.path("pairs"), pairs.to_string()).unwrap();
        let told = remote.fails(2, ["bulk", "put", "-n", "N", "pairs"]);
        assert!(
            told.contains("pairs, pair 3, line 1, key \"") && told.contains(why),
            "{told}"
        );
        assert!(
            told.contains("the first 2 are done") && !told.contains("item 0"),
            "{told}"
        );
        assert_eq!(remote.text(["key", "list", "-n", "N", "--text"]), "a\nb\n");
        remote.done(["key", "delete", "-n", "N", "a"]);
        remote.done(["key", "delete", "-n", "N", "b"]);
    }
}

#[test]
fn pairs_beyond_the_limits_of_workers_kv_are_refused_if_that_is_asked_for() {
    let remote = Remote::new();
    let long = "k".repeat(513);
    let pairs = json!([{"key": long, "value": "v"}]).to_string();
    std::fs::write(remote.at.path("pairs"), pairs).unwrap();
    for line in [
        &["key", "put", "-n", "N", &long, "v"][..],
        &["bulk", "put", "-n", "N", "pairs"],
        &["import", "-n", "N", "--format", "bulk", "pairs"],
    ] {
        let told = remote.fails(2, line.iter().copied().chain(["--workers-kv-limits"]));
        assert!(
            told.contains("longer than 512 bytes") && told.contains("--workers-kv-limits"),
            "{told}"
        );
    }
}

#[test]
fn a_damaged_key_is_named_and_the_others_are_read() {
    let remote = Remote::new();
    for key in ["a", "b", "c"] {
        remote.done(["key", "put", "-n", "N", key, &format!("the value of {key}")]);
    }
    let Remote { at, mut server, .. } = remote;
    assert_eq!(server.stop(), Some(0));
    at.damage(b"the value of b");
    let server = crate::http::started(&at, &[]);
    let remote = Remote {
        url: format!("http://{}", server.rest),
        at,
        server,
    };
    std::fs::write(remote.at.path("keys"), "[\"a\",\"b\",\"c\"]").unwrap();
    let lines: [&[&str]; 5] = [
        &["bulk", "get", "-n", "N", "keys"],
        &["key", "list", "-n", "N", "--values", "--json"],
        &["export", "-"],
        &["get", "-n", "N", "a", "b", "c"],
        &["get", "-n", "N", "a", "b", "c", "--json"],
    ];
    for line in lines {
        let output = remote.run(line.iter().copied());
        let (out, told) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        assert_eq!(output.status.code(), Some(3), "{line:?}: {told}");
        assert!(told.starts_with("damaged: the key \"b\""), "{told}");
        assert!(
            out.contains("the value of a") && out.contains("the value of c"),
            "{out}"
        );
    }
    let told = remote.fails(3, ["key", "get", "-n", "N", "b"]);
    assert!(told.starts_with("error: the key \"b\""), "{told}");
    // Its key can be read.
    assert_eq!(remote.text(["exists", "-n", "N", "b"]), "true\n");
    remote.done(["delete", "-n", "N", "b"]);
    remote.fails(1, ["exists", "-n", "N", "b", "--quiet"]);
}
