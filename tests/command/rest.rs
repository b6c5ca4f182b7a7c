//! The server: the REST API v4 of wrangler and the SDKs, as bytes.

use crate::command::{Workplace, memory_of};
use crate::http::{Answer, NAMESPACES, Server, request, started};
use serde_json::{Value, json};

struct Api {
    server: Server,
    at: Workplace,
    /// The id of the namespace N.
    id: String,
}

impl Api {
    fn new() -> Api {
        Api::on(Workplace::with_namespace())
    }

    fn on(at: Workplace) -> Api {
        let id = at.id_of("N");
        Api {
            server: started(&at, &["--durability", "os"]),
            at,
            id,
        }
    }

    /// A request to a path below the namespaces; `N/` stands for the id of N.
    fn send(&self, method: &str, path: &str, headers: &[(&str, &[u8])], body: &[u8]) -> Answer {
        let target = match path.strip_prefix("N/") {
            Some(path) => format!("{NAMESPACES}/{}/{path}", self.id),
            None => format!("{NAMESPACES}{path}"),
        };
        request(&self.server.rest, method, &target, headers, body)
    }

    /// The whole response to a successful request.
    fn done(&self, method: &str, path: &str, body: &[u8]) -> Value {
        let answer = self.send(method, path, &[], body);
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some(&b"application/json"[..]));
        let json = answer.json();
        assert_eq!(
            (&json["success"], &json["errors"], &json["messages"]),
            (&json!(true), &json!([]), &json!([]))
        );
        json
    }

    fn refused(&self, method: &str, path: &str, body: &[u8]) -> (u16, u64, String) {
        self.send(method, path, &[], body).error()
    }

    fn get(&self, key: &str) -> Answer {
        self.send("GET", &format!("N/values/{key}"), &[], b"")
    }
}

/// A body in multipart/form-data with these parts: heads and contents.
fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (head, content) in parts {
        body.extend_from_slice(b"------boundary\r\nContent-Disposition: form-data; ");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(b"\r\n\r\n");
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"------boundary--\r\n");
    body
}

const FORM: (&str, &[u8]) = ("Content-Type", b"multipart/form-data; boundary=----boundary");

#[test]
fn namespaces_are_created_listed_renamed_and_removed() {
    let at = Api::new();
    let created = at.done("POST", "", b"{\n  \"title\": \"A\"\n}");
    let id = created["result"]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        created["result"],
        json!({ "id": id, "title": "A", "supports_url_encoding": true })
    );
    assert_eq!(
        at.refused("POST", "", b"{\"title\": \"A\"}"),
        (
            400,
            10014,
            "create namespace: 'a namespace with this account ID and title already exists'".to_owned()
        )
    );
    assert_eq!(at.refused("POST", "", b"{}").1, 10019);
    assert_eq!(at.refused("POST", "", b"{\"title\": \"\"}").1, 10019);
    assert_eq!(at.refused("POST", "", b"nonsense").1, 10012);
    let path = format!("/{id}");
    assert_eq!(at.done("GET", &path, b"")["result"], created["result"]);
    let renamed = at.done("PUT", &path, b"{\"title\": \"B\"}");
    assert_eq!(renamed["result"]["title"], "B");
    assert_eq!(at.done("PUT", &path, b"{\"title\": \"B\"}")["result"]["title"], "B");
    assert_eq!(
        at.refused("PUT", &path, b"{\"title\": \"N\"}"),
        (
            400,
            10014,
            "rename namespace: 'a namespace with this account ID and title already exists'".to_owned()
        )
    );
    assert_eq!(at.done("DELETE", &path, b"")["result"], Value::Null);
    for (method, operation) in [("GET", "get"), ("PUT", "rename"), ("DELETE", "remove")] {
        assert_eq!(
            at.refused(method, &path, b"{\"title\": \"C\"}"),
            (404, 10013, format!("{operation} namespace: 'namespace not found'"))
        );
    }
    for path in [
        "/nonsense",
        "/00000000000000000000000000000000",
        "/+0000000000000000000000000000001",
    ] {
        assert_eq!(at.refused("GET", path, b"").1, 10013, "{path}");
    }
    assert_eq!(at.refused("PATCH", "", b"").1, 10405);
    assert_eq!(at.refused("GET", "/a/b/c", b"").1, 7003);
}

#[test]
fn what_is_asked_of_a_namespace_and_not_kept_is_told() {
    let at = Api::new();
    let asked = br#"{"title": "T", "jurisdiction": "eu", "colour": null}"#;
    for (method, path) in [("POST", String::new()), ("PUT", format!("/{}", at.id))] {
        let answer = at.send(method, &path, &[], asked).json();
        assert_eq!(
            (&answer["success"], &answer["result"]["title"]),
            (&json!(true), &json!("T"))
        );
        let messages = answer["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 1, "{answer}");
        let told = messages[0]["message"].as_str().unwrap();
        assert!(told.contains("\"jurisdiction\" is not kept"), "{told}");
        let path = format!("/{}", answer["result"]["id"].as_str().unwrap());
        let another = format!("{{\"title\": \"{method}\", \"jurisdiction\": null}}");
        at.done("PUT", &path, another.as_bytes());
    }
    let many = (0..1000)
        .map(|n| format!("\"p{n:03}\": {n}"))
        .collect::<Vec<_>>()
        .join(",");
    let answer = at.send("POST", "", &[], format!("{{\"title\": \"many\", {many}}}").as_bytes());
    let messages = answer.json()["messages"].as_array().unwrap().clone();
    assert_eq!(messages.len(), 6, "{messages:?}");
    assert_eq!(messages[5]["message"], "995 more properties are not kept");
}

#[test]
fn namespaces_come_in_pages_that_end() {
    let at = Api::new();
    for n in 0..25 {
        at.done(
            "POST",
            "",
            json!({ "title": format!("T{n:02}") }).to_string().as_bytes(),
        );
    }
    let titles = |query: &str| -> Vec<String> {
        let listed = at.done("GET", query, b"");
        let result = listed["result"].as_array().unwrap();
        result
            .iter()
            .map(|info| info["title"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(titles("").len(), 20);
    assert_eq!(titles("?page=2").len(), 6);
    // The SDKs request pages until one is empty.
    assert_eq!(titles("?page=3"), Vec::<String>::new());
    assert_eq!(
        titles("?per_page=1000&order=title&direction=asc&page=2"),
        Vec::<String>::new()
    );
    let all = titles("?per_page=1000&order=title&direction=asc");
    assert!(all.is_sorted() && all.len() == 26);
    let mut reversed = titles("?per_page=1000&order=title&direction=desc");
    reversed.reverse();
    assert_eq!(reversed, all);
    assert_eq!(titles("?per_page=2&order=title&page=2"), all[2..4]);
    let info = &at.done("GET", "?per_page=10&page=3", b"")["result_info"];
    assert_eq!(
        *info,
        json!({ "page": 3, "per_page": 10, "count": 6, "total_count": 26, "total_pages": 3 })
    );
    assert_eq!(at.send("GET", "?page=0", &[], b"").status, 400);
}

#[test]
fn values_come_back_as_they_were_put() {
    let at = Api::new();
    let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for (path, value) in [
        ("text", &b"value one"[..]),
        ("empty", b""),
        ("bytes", &all),
        ("meta%3A1", b"v"),
        ("a%2Fb", b"v"),
        ("!$&'()*+,;=:@", b"v"),
        ("%2E%2E%2E", b"v"),
        ("values", b"v"),
    ] {
        let path = format!("N/values/{path}");
        assert_eq!(at.done("PUT", &path, value)["result"], Value::Null);
        let answer = at.send("GET", &path, &[], b"");
        assert_eq!((answer.status, &answer.body[..]), (200, value), "{path}");
        assert_eq!(answer.header("expiration"), None);
    }
    assert_eq!(
        at.refused("GET", "N/values/missing", b""),
        (404, 10009, "get: 'key not found'".to_owned())
    );
    // The parameter has no effect here: a key is always decoded.
    assert_eq!(at.get("meta%3A1?urlencoded=false").status, 200);
    for _ in 0..2 {
        assert_eq!(at.done("DELETE", "N/values/text", b"")["result"], Value::Null);
    }
    assert_eq!(at.get("text").status, 404);
    for path in [
        "N/values/",
        "N/values/%2E",
        "N/values/%2E%2E",
        "N/values/%ED%A0%80",
        "N/values/%zz",
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            assert_eq!(at.send(method, path, &[], b"v").status, 400, "{method} {path}");
        }
    }
    assert_eq!(at.get(&"a".repeat(513)).status, 414);
    assert_eq!(at.send("GET", "N/values/a/b", &[], b"").error().1, 7003);
    let nowhere = "/00000000000000000000000000000001/values/k";
    for (method, operation) in [("GET", "get"), ("PUT", "put"), ("DELETE", "remove key")] {
        assert_eq!(
            at.refused(method, nowhere, b"v"),
            (404, 10013, format!("{operation}: 'namespace not found'"))
        );
    }
}

#[test]
fn a_form_has_a_value_and_metadata() {
    let at = Api::new();
    let put = |query: &str, body: &[u8]| at.send("PUT", &format!("N/values/k{query}"), &[FORM], body);
    let value: (&str, &[u8]) = ("name=\"value\"", b"the value");
    let metadata: (&str, &[u8]) = ("name=\"metadata\"", "{\"name\": \"Zo\u{eb}\"}".as_bytes());
    for parts in [
        &[value, metadata][..],
        &[metadata, value],
        &[("name=\"x\"", b"ignored"), value, metadata],
    ] {
        assert_eq!(put("?expiration=4000000000", &form(parts)).status, 200);
        let answer = at.get("k");
        assert_eq!(answer.body, b"the value");
        assert_eq!(answer.header("expiration"), Some(&b"4000000000"[..]));
        assert_eq!(
            at.done("GET", "N/metadata/k", b"")["result"],
            json!({ "name": "Zo\u{eb}" })
        );
    }
    // Part heads of wrangler and of the SDKs; bytes that look like a boundary.
    let tricky = b"------boundar\r\n--\xff\0\r\n".as_slice();
    for head in [
        "name=\"value\"; filename=\"blob\"\r\nContent-Type: application/octet-stream",
        "name=\"value\"; filename=\"upload\"",
    ] {
        assert_eq!(put("", &form(&[(head, tricky)])).status, 200);
        assert_eq!(at.get("k").body, tricky);
        // A put without metadata removes the old metadata.
        assert_eq!(at.done("GET", "N/metadata/k", b"")["result"], Value::Null);
    }
    let empty: (&str, &[u8]) = ("name=\"value\"", b"");
    assert_eq!(put("", &form(&[empty])).status, 200);
    assert_eq!(at.get("k").body, b"");

    assert_eq!(put("", &form(&[metadata])).error().1, 10047);
    assert_eq!(put("", b"nonsense").error().1, 10012);
    assert_eq!(put("", &form(&[value])[..40]).error().1, 10012);
    let wrong: (&str, &[u8]) = ("name=\"metadata\"", b"{");
    let (status, code, message) = put("", &form(&[value, wrong])).error();
    assert_eq!((status, code), (400, 10147));
    assert!(message.starts_with("put: 'metadata must be valid json: "), "{message}");
    let long = format!("\"{}\"", "m".repeat(1023));
    let long: (&str, &[u8]) = ("name=\"metadata\"", long.as_bytes());
    assert_eq!(put("", &form(&[value, long])).status, 413);
    let too_large = vec![b'v'; (25 << 20) + 1];
    assert_eq!(put("", &form(&[("name=\"value\"", &too_large)])).status, 413);
    assert_eq!(put("", &form(&[("name=\"value\"", &too_large[1..])])).status, 200);
    assert_eq!(at.send("PUT", "N/values/raw", &[], &too_large).status, 413);
    assert_eq!(at.send("PUT", "N/values/raw", &[], &too_large[1..]).status, 200);
    assert_eq!(at.get("raw").body.len(), 25 << 20);
    assert_eq!(at.refused("GET", "N/metadata/missing", b"").1, 10009);
}

#[test]
fn lifetimes_are_told_by_code_and_words() {
    let at = Api::new();
    let refused = |query: &str| at.refused("PUT", &format!("N/values/k?{query}"), b"v");
    assert_eq!(
        refused("expiration=5"),
        (
            400,
            10033,
            "put: 'Invalid expiration of 5. Please specify integer greater than the current number of seconds since the UNIX epoch.'"
                .to_owned()
        )
    );
    assert_eq!(
        refused("expiration_ttl=10"),
        (
            400,
            10034,
            "put: 'Invalid expiration_ttl of 10. Expiration TTL must be at least 60.'".to_owned()
        )
    );
    // As JavaScript gives it.
    let milliseconds = "1795689696000";
    for (query, code) in [("expiration", 10033), ("expiration_ttl", 10034)] {
        let hint = "This looks like milliseconds";
        let (status, found, message) = refused(&format!("{query}={milliseconds}"));
        assert!(
            (status, found) == (400, code) && message.contains(hint),
            "{found} {message}"
        );
        let pairs = format!("[{{\"key\": \"k\", \"value\": \"v\", \"{query}\": {milliseconds}}}]");
        let (status, found, message) = at.refused("PUT", "N/bulk", pairs.as_bytes());
        assert!(
            (status, found) == (400, code) && message.contains(hint),
            "{found} {message}"
        );
        for wrong in [
            "-1",
            "4e9",
            "4000000000.5",
            "NaN",
            "%2B4000000000",
            "18446744073709551616",
        ] {
            assert_eq!(refused(&format!("{query}={wrong}")).1, code, "{query}={wrong}");
        }
    }
    // An empty number is no number: it may be an empty variable of a script.
    for (query, code) in [
        ("expiration=", 10033),
        ("expiration_ttl=", 10034),
        ("expiration_ttl", 10034),
    ] {
        assert_eq!(refused(query).1, code, "{query}");
    }
    for path in ["N/keys?limit=", "?page=", "?per_page="] {
        assert_eq!(at.send("GET", path, &[], b"").status, 400, "{path}");
    }
    assert_eq!(at.get("k").status, 404);
    // There is no limit before the year 33,658.
    at.done("PUT", "N/values/k?expiration=100000000000", b"v");
    assert_eq!(at.get("k").header("expiration"), Some(&b"100000000000"[..]));
}

#[test]
fn what_a_put_does_not_have_is_ignored_and_told() {
    let at = Api::new();
    let told = |path: &str, body: &str| {
        let answer = at.send("PUT", path, &[], body.as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        let messages = answer.json()["messages"].as_array().unwrap().clone();
        let all = messages.iter().map(|message| message["message"].as_str().unwrap());
        all.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        told("N/values/k?expirationTtl=60&&ttl=60&expiration_ttl=600&ttl=1", "v"),
        ["expirationTtl", "ttl"].map(|name| format!("the parameter {name} is unknown, and was ignored"))
    );
    assert!(at.get("k").header("expiration").is_some());
    let pair = |key: u32, more: &str| format!("{{\"key\": \"{key}\", \"value\": \"v\"{more}}}");
    let pairs = [
        pair(1, ""),
        pair(2, ", \"expirationTtl\": 60, \"x\": {\"key\": [1]}"),
        pair(3, ", \"expirationTtl\": null"),
    ];
    assert_eq!(
        told("N/bulk", &format!("[{}]", pairs.join(","))),
        ["expirationTtl", "x"].map(|name| format!("the property \"{name}\" of a pair is unknown, and was ignored"))
    );
    assert_eq!((at.get("1").status, at.get("3").status), (200, 200));
    let many: Vec<String> = (0..100).map(|n| pair(n, &format!(", \"p{n:02}\": 1"))).collect();
    let messages = told("N/bulk", &format!("[{}]", many.join(",")));
    assert_eq!(
        (messages.len(), &messages[5][..]),
        (6, "95 more unknown properties were ignored")
    );
}

#[test]
fn keys_are_listed_by_cursor() {
    let at = Api::new();
    let pairs: Vec<Value> = (0..2500)
        .map(|n| json!({ "key": format!("key-{n:04}"), "value": "v", "metadata": { "n": n } }))
        .collect();
    at.done("PUT", "N/bulk", &serde_json::to_vec(&pairs).unwrap());
    let mut names = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = at.done("GET", &format!("N/keys?cursor={cursor}"), b"");
        let keys = page["result"].as_array().unwrap();
        assert_eq!(page["result_info"]["count"], keys.len());
        names.extend(keys.iter().map(|key| key["name"].as_str().unwrap().to_owned()));
        cursor = page["result_info"]["cursor"].as_str().unwrap().to_owned();
        if cursor.is_empty() {
            break;
        }
        assert_eq!(keys.len(), 1000);
    }
    assert!(names.is_sorted() && names.len() == 2500);
    let page = at.done("GET", "N/keys?limit=10&prefix=key-24", b"");
    assert_eq!(
        page["result"][3],
        json!({ "name": "key-2403", "metadata": { "n": 2403 } })
    );
    assert_eq!(page["result_info"]["count"], 10);
    at.done("PUT", "N/values/until?expiration=4000000000", b"v");
    assert_eq!(
        at.done("GET", "N/keys?prefix=until", b"")["result"],
        json!([{ "name": "until", "expiration": 4_000_000_000_u64 }])
    );
    assert_eq!(
        at.done("GET", "N/keys?prefix=", b"")["result"]
            .as_array()
            .unwrap()
            .len(),
        1000
    );
    for query in ["limit=1001", "limit=0", "limit=x", "cursor=nonsense"] {
        assert_eq!(
            at.send("GET", &format!("N/keys?{query}"), &[], b"").status,
            400,
            "{query}"
        );
    }
    assert_eq!(
        at.send("GET", &format!("N/keys?prefix={}", "p".repeat(513)), &[], b"")
            .status,
        414
    );
    assert_eq!(
        at.refused("GET", "/00000000000000000000000000000001/keys", b"").2,
        "list keys: 'namespace not found'"
    );
}

#[test]
fn a_bulk_put_is_done_as_a_whole_or_not_at_all() {
    let at = Api::new();
    let pairs = json!([
        { "key": "plain", "value": "text" },
        { "key": "bytes", "value": "AAH/", "base64": true },
        { "key": "lives", "value": "v", "expiration_ttl": 3600, "metadata": { "a": [1] } },
        { "key": "until", "value": "v", "expiration": 4_000_000_000_u64 },
        { "key": "plain", "value": "the later one counts" },
    ]);
    let done = at.done("PUT", "N/bulk", pairs.to_string().as_bytes());
    assert_eq!(
        done["result"],
        json!({ "successful_key_count": 5, "unsuccessful_keys": [] })
    );
    assert_eq!(at.get("plain").body, b"the later one counts");
    assert_eq!(at.get("bytes").body, [0, 1, 255]);
    assert_eq!(at.get("until").header("expiration"), Some(&b"4000000000"[..]));
    assert_eq!(at.done("GET", "N/metadata/lives", b"")["result"], json!({ "a": [1] }));

    for (wrong, code) in [
        (json!({ "key": "", "value": "v" }), 10030),
        (json!({ "key": "..", "value": "v" }), 10030),
        (json!({ "key": "k", "value": "?", "base64": true }), 10012),
        (json!({ "key": "k", "value": "v", "expiration": 5 }), 10033),
        (json!({ "key": "k", "value": "v", "expiration_ttl": 5 }), 10034),
        (json!({ "key": "k", "value": "v", "metadata": "m".repeat(2000) }), 10147),
        (json!({ "key": "k", "value": 5 }), 10012),
        (json!({ "value": "v" }), 10012),
    ] {
        let pairs = json!([{ "key": "first", "value": "v" }, wrong]);
        let (_, found, message) = at.refused("PUT", "N/bulk", pairs.to_string().as_bytes());
        assert_eq!(found, code, "{wrong}: {message}");
        assert!(message.starts_with("bulk put: '"), "{message}");
        assert_eq!(at.get("first").status, 404);
    }
    let many: Vec<Value> = (0..10_001)
        .map(|n| json!({ "key": n.to_string(), "value": "" }))
        .collect();
    assert_eq!(
        at.refused("PUT", "N/bulk", &serde_json::to_vec(&many).unwrap()).1,
        10029
    );
    assert_eq!(
        at.done("PUT", "N/bulk", &serde_json::to_vec(&many[1..]).unwrap())["result"]["successful_key_count"],
        10_000
    );
    for nonsense in [&b"nonsense"[..], b"{}", b"[", b""] {
        assert_eq!(at.refused("PUT", "N/bulk", nonsense).1, 10012);
    }
    assert_eq!(at.done("PUT", "N/bulk", b"[]")["result"]["successful_key_count"], 0);
}

/// Items beyond the limit are noticed but not kept: in memory each would take more than its bytes.
#[test]
#[cfg(target_os = "linux")]
fn very_many_items_take_no_memory_but_that_of_the_body() {
    let at = Api::new();
    let names = format!("[{}\"\"]", "\"a\",".repeat(5_000_000));
    let (_, code, message) = at.refused("POST", "N/bulk/delete", names.as_bytes());
    assert_eq!(
        (code, message.as_str()),
        (10029, "bulk remove keys: 'You can send a maximum of 10000 items'")
    );
    let body = names.len() as u64;
    let taken = memory_of(&at.server.child, "VmHWM").unwrap();
    println!("at most {taken} bytes for a body of {body}");
    assert!((body..body + (100 << 20)).contains(&taken), "{taken}");
}

/// The library may have stored such keys.
#[test]
fn keys_that_no_path_can_name_are_deleted_by_a_bulk_delete() {
    let at = Workplace::with_namespace();
    let store = at.store();
    let namespace = store.open_namespace("N").unwrap();
    let long = "k".repeat(600);
    for key in [".", "..", &long] {
        namespace.put(key, "v").unwrap();
    }
    drop(namespace);
    store.close().unwrap();
    let at = Api::on(at);
    let listed = at.done("GET", "N/keys", b"")["result"].clone();
    assert_eq!(listed, json!([{ "name": "." }, { "name": ".." }, { "name": long }]));
    assert_eq!(at.refused("DELETE", &format!("N/values/{long}"), b"").0, 414);
    at.done("POST", "N/bulk/delete", listed.to_string().as_bytes());
    assert_eq!(at.done("GET", "N/keys", b"")["result"], json!([]));
    let beyond = json!(["k".repeat(65_537)]);
    assert_eq!(
        at.refused("POST", "N/bulk/delete", beyond.to_string().as_bytes()).0,
        414
    );
}

#[test]
fn a_damaged_key_is_listed_without_what_cannot_be_read() {
    let at = Workplace::with_namespace();
    let store = at.store();
    let namespace = store.open_namespace("N").unwrap();
    for key in ["a", "b", "c"] {
        let options = embercask::PutOptions::new().metadata("7").expiration(4_000_000_000);
        namespace.put_with(key, format!("the value of {key}"), options).unwrap();
    }
    drop(namespace);
    store.close().unwrap();
    at.damage(b"the value of b");
    let at = Api::on(at);
    let sound = |name: &str| json!({ "name": name, "expiration": 4_000_000_000_u64, "metadata": 7 });
    assert_eq!(
        at.done("GET", "N/keys", b"")["result"],
        json!([sound("a"), { "name": "b", "expiration": 4_000_000_000_u64 }, sound("c")])
    );
    let answer = request(
        &at.server.binding,
        "GET",
        "/?key_count_limit=3",
        &[("X-KV-Namespace", b"N")],
        b"",
    );
    let names: Vec<_> = answer.json()["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["name"].clone())
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
    // Null would mean that the key is absent.
    assert_eq!(at.get("b").status, 500);
    assert_eq!(at.refused("POST", "N/bulk/get", br#"{"keys": ["a", "b"]}"#).0, 500);
    assert_eq!(at.get("a").status, 200);
}

#[test]
fn many_keys_are_got_and_deleted_at_once() {
    let at = Api::new();
    let pairs = json!([
        { "key": "text", "value": "t", "metadata": 7, "expiration": 4_000_000_000_u64 },
        { "key": "json", "value": "{\"a\": 1.50}" },
    ]);
    at.done("PUT", "N/bulk", pairs.to_string().as_bytes());
    let get = |body: Value| at.done("POST", "N/bulk/get", body.to_string().as_bytes())["result"].clone();
    assert_eq!(
        get(json!({ "keys": ["text", "missing"] })),
        json!({ "values": { "text": "t", "missing": null } })
    );
    assert_eq!(
        get(json!({ "keys": ["json"], "type": "json" })),
        json!({ "values": { "json": { "a": 1.5 } } })
    );
    // Numbers verbatim, at any depth.
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let pairs =
        json!([{ "key": "large", "value": "[1.50,12345678901234567890123]" }, { "key": "deep", "value": deep }]);
    at.done("PUT", "N/bulk", pairs.to_string().as_bytes());
    let body = br#"{"keys": ["large", "deep"], "type": "json"}"#;
    let answer = at.send("POST", "N/bulk/get", &[], body);
    let expected = format!("{{\"values\":{{\"large\":[1.50,12345678901234567890123],\"deep\":{deep}}}}}");
    let text = String::from_utf8(answer.body).unwrap();
    assert!(answer.status == 200 && text.contains(&expected), "{text}");
    at.done("POST", "N/bulk/delete", b"[\"large\", \"deep\"]");
    // The longest keys, each byte escaped.
    let keys: Vec<String> = (0..100)
        .map(|n| format!("\"{}{n:02}\"", "\\u0001".repeat(510)))
        .collect();
    let answer = at.done(
        "POST",
        "N/bulk/get",
        format!("{{\"keys\": [{}]}}", keys.join(",")).as_bytes(),
    );
    assert_eq!(answer["result"]["values"].as_object().unwrap().len(), 100);
    assert_eq!(
        get(json!({ "keys": ["text", "json", "missing"], "withMetadata": true })),
        json!({ "values": {
            "text": { "value": "t", "metadata": 7, "expiration": 4_000_000_000_u64 },
            "json": { "value": "{\"a\": 1.50}", "metadata": null },
            "missing": null,
        } })
    );
    let refused = |body: Value| at.refused("POST", "N/bulk/get", body.to_string().as_bytes()).1;
    assert_eq!(refused(json!({ "keys": [] })), 10029);
    assert_eq!(refused(json!({ "keys": vec!["k"; 101] })), 10029);
    assert_eq!(refused(json!({})), 10012);

    let deleted = at.done("DELETE", "N/bulk", b"[\"text\", \"missing\"]");
    assert_eq!(
        deleted["result"],
        json!({ "successful_key_count": 2, "unsuccessful_keys": [] })
    );
    at.done("POST", "N/bulk/delete", b"[{\"name\": \"json\"}]");
    assert_eq!(at.done("GET", "N/keys", b"")["result"], json!([]));
    assert_eq!(at.refused("POST", "N/bulk/delete", b"[\"\"]").0, 400);
    assert_eq!(at.refused("POST", "N/bulk/delete", b"[5]").1, 10012);
    assert_eq!(at.refused("GET", "N/bulk", b"").1, 10405);
}

#[test]
fn courtesy_routes_are_there() {
    let at = Api::new();
    let get =
        |path: &str| request(&at.server.rest, "GET", &format!("/client/v4{path}"), &[], b"").json()["result"].clone();
    assert_eq!(get("/user/tokens/verify")["status"], "active");
    assert!(get("/user")["email"].is_string());
    let account = get("/accounts?page=1")[0]["id"].clone();
    assert!(account.is_string());
    assert_eq!(get("/memberships?page=1")[0]["account"]["id"], account);
    // Clients request pages until one is empty.
    for path in ["/accounts?page=2", "/memberships?page=2"] {
        assert_eq!(get(path), json!([]), "{path}");
    }
    let answer = request(&at.server.rest, "GET", "/elsewhere", &[], b"");
    assert_eq!(answer.error().1, 7003);
    // The statistics do not reveal the store's path.
    let statistics = get("/embercask/statistics");
    assert_eq!(statistics["namespaces"], 1);
    assert!(!statistics.to_string().contains(at.at.path("store").to_str().unwrap()));
    assert!(statistics.get("directory").is_none());
}
