//! The server: access control, settings and logs.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::Arc;

use crate::command::Workplace;
use crate::http::{Connection, NAMESPACES, PATIENCE, SERVE, Server, TOKEN, bearer, request, started};

#[test]
fn a_token_is_asked_for_if_there_is_one() {
    let at = Workplace::with_namespace();
    let mut command = at.command(SERVE);
    // In the environment, so that it is not visible in a list of processes.
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
            server.bound("GET", "k", &headers, b"").line(),
            "403 Authentication error"
        );
        assert_eq!(server.bound("PUT", "k", &headers, &vec![b'v'; 1 << 20]).status, 403);
        assert_eq!(request(&server.rest, "GET", "/metrics", &headers, b"").status, 403);
    }
    let good: (&str, &[u8]) = ("authorization", &good);
    assert_eq!(server.bound("PUT", "k", &[good], b"v").status, 200);
    assert_eq!(request(&server.rest, "GET", NAMESPACES, &[good], b"").status, 200);
    assert_eq!(request(&server.rest, "GET", "/metrics", &[good], b"").status, 200);
    // A supervisor needs no token.
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
    let ids = BTreeMap::from(["N", "M"].map(|name| (name, at.id_of(name))));
    let (reader, setting) = at.token("reader", "read_only = true");
    let (of_n, of_n_setting) = at.token("of N", "namespaces = [\"N\"]");
    let (reader, of_n) = (&*reader, &*of_n);
    assert!(reader.len() >= 43 && reader != of_n && !setting.contains(reader));
    std::fs::write(at.path("serve.toml"), setting + &of_n_setting).unwrap();
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
    assert_eq!(with(of_n, "PUT", &format!("/{}", ids["N"]), b"{\"title\": \"X\"}"), 403);
    assert_eq!(with(of_n, "GET", &format!("/{}", ids["M"]), b""), 403);
    for (method, below) in [
        ("PUT", "bulk"),
        ("DELETE", "bulk"),
        ("POST", "bulk/get"),
        ("GET", "keys"),
    ] {
        assert_eq!(
            with(of_n, method, &format!("/{}/{below}", ids["M"]), b"[]"),
            403,
            "{method} {below}"
        );
    }
    let value = bearer(of_n);
    for named in [&b"M"[..], ids["M"].as_bytes()] {
        let headers = [("X-KV-Namespace", named), ("Authorization", &value)];
        for (method, target) in [
            ("GET", "/k"),
            ("PUT", "/k"),
            ("DELETE", "/k"),
            ("GET", "/"),
            ("POST", "/bulk/get"),
        ] {
            let answer = request(&server.binding, method, target, &headers, b"{\"keys\": [\"k\"]}");
            assert_eq!(answer.status, 403, "{method} {target}");
        }
    }
    // Data about the whole store is only for clients that may read all of it.
    for (token, status) in [(of_n, 403), (reader, 200)] {
        for target in ["/metrics", "/client/v4/embercask/statistics"] {
            let value = bearer(token);
            let answer = request(&server.rest, "GET", target, &[("Authorization", &value)], b"");
            assert_eq!(answer.status, status, "{target}");
        }
    }
    let value = bearer(of_n);
    let listed = request(&server.rest, "GET", NAMESPACES, &[("Authorization", &value)], b"").json();
    assert_eq!(listed["result_info"]["total_count"], 1, "others are not shown");

    assert_eq!(with(reader, "GET", &value_of("N"), b""), 200);
    assert_eq!(with(reader, "GET", &value_of("M"), b""), 404);
    for (method, path) in [
        ("PUT", value_of("N")),
        ("DELETE", value_of("N")),
        ("PUT", format!("/{}/bulk", ids["N"])),
        ("DELETE", format!("/{}/bulk", ids["N"])),
        ("POST", format!("/{}/bulk/delete", ids["N"])),
        ("PUT", format!("/{}", ids["N"])),
        ("DELETE", format!("/{}", ids["N"])),
        ("POST", String::new()),
    ] {
        assert_eq!(
            with(reader, method, &path, b"{\"title\": \"X\"}"),
            403,
            "{method} {path}"
        );
    }
    let value = bearer(reader);
    assert_eq!(server.bound("PUT", "k", &[("Authorization", &value)], b"v").status, 403);
    assert_eq!(server.bound("GET", "k", &[("Authorization", &value)], b"").body, b"v");
}

/// Whether a namespace exists is told only to those who may use it: in all that can be asked,
/// one that exists looks as one that does not.
#[test]
fn a_token_cannot_find_out_which_other_namespaces_exist() {
    let at = Workplace::with_namespace();
    at.done(["namespace", "create", "SECRET"]);
    at.done(["key", "put", "-n", "SECRET", "k", "v"]);
    let secret = at.id_of("SECRET");
    let (token, setting) = at.token("of N", "namespaces = [\"N\", \"LATER\"]");
    std::fs::write(at.path("serve.toml"), setting).unwrap();
    let server = started(&at, &["--config", "serve.toml"]);
    let value = bearer(&token);
    let ask = |address: &str, method: &str, target: &str, more: &[(&str, &[u8])], body: &[u8]| {
        let mut headers: Vec<(&str, &[u8])> = vec![("Authorization", &value)];
        headers.extend_from_slice(more);
        let mut answer = request(address, method, target, &headers, body);
        answer.headers.retain(|(name, _)| name != "date");
        answer
    };
    let absent = ["0123456789abcdef0123456789abcdef", "ABSENT", "absent/x", "nonsense"];
    let bodies = [
        &b"{\"title\": \"SECRET\"}"[..],
        b"[]",
        b"{\"keys\": [\"k\"]}",
        b"",
        b"nonsense",
    ];
    for method in ["GET", "HEAD", "PUT", "DELETE", "POST", "PATCH"] {
        for below in [
            "",
            "/keys",
            "/values/k",
            "/values/",
            "/metadata/k",
            "/bulk",
            "/bulk/get",
            "/bulk/delete",
            "/statistics",
            "/count",
            "/default_ttl",
        ] {
            for body in bodies {
                let answered = |id: &str| {
                    let target = format!("{NAMESPACES}/{id}{below}");
                    let answer = ask(&server.rest, method, &target, &[], body);
                    (answer.line(), answer.headers, answer.body)
                };
                let expected = answered(&secret);
                for id in [absent[0], absent[1], "SECRET", absent[3]] {
                    assert_eq!(answered(id), expected, "{method} {id}{below}");
                }
                assert!(
                    expected.0.starts_with("403") || expected.0.starts_with("405"),
                    "{method} {below}"
                );
            }
        }
    }
    for method in ["GET", "HEAD", "PUT", "DELETE", "POST"] {
        for target in ["/k", "/", "/bulk/get", "/k?expiration=1", "/%2E?urlencoded=true"] {
            let answered = |name: &str| {
                let more = [("X-KV-Namespace", name.as_bytes())];
                let answer = ask(&server.binding, method, target, &more, b"{\"keys\": [\"k\"]}");
                (answer.line(), answer.headers, answer.body)
            };
            let expected = answered("SECRET");
            assert_eq!(expected.0, "403 Authentication error");
            for name in absent.iter().copied().chain([&secret[..], "", &"n".repeat(2000)]) {
                assert_eq!(answered(name), expected, "{method} {target} {name}");
            }
        }
    }
    // The names that it may not take either are refused alike.
    let create = |title: &str| {
        let body = format!("{{\"title\": \"{title}\"}}");
        ask(&server.rest, "POST", NAMESPACES, &[], body.as_bytes()).error()
    };
    assert_eq!(create("SECRET"), create("ABSENT"));
    // Of those that it is for it is told.
    let later = ask(&server.binding, "GET", "/k", &[("X-KV-Namespace", b"LATER")], b"");
    assert_eq!(later.line(), "400 There is no such namespace");
}

/// Without a token, others are kept out because they cannot reach the address; but a web page in a
/// browser on this machine can.
#[test]
fn web_pages_from_elsewhere_are_kept_out() {
    let at = Workplace::with_namespace();
    let server = started(&at, &[]);
    let origin: (&str, &[u8]) = ("Origin", b"http://elsewhere.example");
    // A foreign name that resolves to this machine, and a header that browsers add.
    let foreign = "elsewhere.example:8787";
    let loopback = "127.0.0.1";
    for (target, host, more, word) in [
        (
            NAMESPACES.to_owned(),
            foreign,
            "",
            "The Host \"elsewhere.example:8787\"",
        ),
        (
            NAMESPACES.to_owned(),
            loopback,
            "Sec-Fetch-Site: cross-site\r\n",
            "web page",
        ),
        (
            format!("http://{foreign}{NAMESPACES}"),
            foreign,
            "",
            "The Host \"elsewhere.example:8787\"",
        ),
        (
            "/metrics".to_owned(),
            foreign,
            "",
            "The Host \"elsewhere.example:8787\"",
        ),
    ] {
        let mut connection = Connection::to(&server.rest);
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n").as_bytes());
        let answer = connection.answer();
        let told = String::from_utf8(answer.body).unwrap();
        assert!(
            answer.status == 403 && told.replace('\\', "").contains(word),
            "{target}: {told}"
        );
        assert!(told.contains("token") && !told.contains("Authentication"), "{told}");
    }
    // HTTP/1.0 does not require the header.
    let mut connection = Connection::to(&server.rest);
    connection.send(format!("GET http://{foreign}{NAMESPACES} HTTP/1.0\r\n\r\n").as_bytes());
    assert_eq!(connection.answer().status, 403);
    let (status, code, told) = request(&server.rest, "POST", NAMESPACES, &[origin], b"{\"title\": \"X\"}").error();
    assert!(
        status == 403 && code != 10000 && told.contains("Origin"),
        "{code} {told}"
    );
    let told = server.bound("PUT", "k", &[origin], b"v").line();
    assert!(told.starts_with("403 The request comes from a web page"), "{told}");
    assert_eq!(server.bound("PUT", "k", &[], b"v").status, 200);
}

#[test]
fn settings_that_open_the_server_to_other_machines_or_to_none_are_refused() {
    let at = Workplace::with_namespace();
    for (wrong, expected) in [
        (
            &["serve", "--listen", "0.0.0.0:0"][..],
            "could read and write everything",
        ),
        (
            &["serve", "--listen", "off", "--binding", "[::]:0"],
            "could read and write everything",
        ),
        (
            &["serve", "--binding-for", "N=192.0.2.1:0"],
            "could read and write everything",
        ),
        (
            &["serve", "--listen", "127.0.0.1:0", "--page"],
            "the web page needs a token",
        ),
        (&["serve", "--token", "15 characters.."], "at least 16 characters"),
        (
            &["serve", "--listen", "off", "--binding", "off"],
            "there is no listener",
        ),
        (&["serve", "--listen", "nonsense"], "\"nonsense\" is not an address"),
        (&["serve", "--binding", "nonsense"], "\"nonsense\" is not an address"),
        (&["serve", "--binding-for", "N=off"], "\"off\" is not an address"),
        (
            &["serve", "--durability", "perhaps"],
            "\"perhaps\" is not a durability class",
        ),
        (&["serve", "--binding-for", "N"], "is not NAMESPACE=ADDRESS"),
        (
            &["serve", "--tls-key", "key.pem"],
            "TLS needs a certificate and its key",
        ),
        (&["serve", "--config", "missing.toml"], "missing.toml"),
        (&["serve", "--log", "a=b=c"], "is not a log filter"),
        (
            &["serve", "--log-format", "colourful"],
            "\"colourful\" is not a log format",
        ),
        (&["serve", "--max-connections", "0"], "--max-connections at least 1"),
        (
            &["serve", "--body-memory-mib", "99"],
            "--body-memory-mib must be at least 100",
        ),
    ] {
        let told = at.fails(2, wrong.iter().copied());
        assert!(
            told.starts_with("error: ") && told.contains(expected),
            "{wrong:?}: {told}"
        );
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
    // Another process has the store open.
    let _server = started(&at, &[]);
    at.fails(4, SERVE);
}

#[test]
fn flags_count_before_the_environment_and_that_before_the_file() {
    let at = Workplace::new();
    let settings =
        "store = \"of the file\"\nlisten = \"127.0.0.1:1\"\nbinding = \"nonsense\"\ndurability = \"os\"\npage = true\n";
    std::fs::write(at.path("serve.toml"), settings).unwrap();
    let mut command = at.command(["serve", "--create", "--config", "serve.toml", "--listen", "127.0.0.1:0"]);
    command
        .env_remove("EMBERCASK_STORE")
        .env("EMBERCASK_LISTEN", "more nonsense")
        .env("EMBERCASK_BINDING", "127.0.0.1:0")
        // The page would require a token.
        .env("EMBERCASK_PAGE", "false")
        .stderr(std::fs::File::create(at.path("log")).unwrap());
    let mut server = Server::start(command, 0);
    assert_eq!(server.stop(), Some(0));
    assert!(at.path("of the file").join("MANIFEST").exists() && !at.path("store").exists());
    let log = std::fs::read_to_string(at.path("log")).unwrap();
    assert!(log.contains("serving durability=Os"), "{log}");
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
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection::on(rustls::StreamOwned::new(client, stream))
    };
    let namespace: (&str, &[u8]) = ("X-KV-Namespace", b"N");
    let value = vec![b'v'; 3 << 20];
    let mut binding = connect(&server.binding);
    assert_eq!(binding.request("PUT", "/k", &[namespace], &value).status, 200);
    assert!(binding.request("GET", "/k", &[namespace], b"").body == value);
    assert_eq!(connect(&server.rest).request("GET", NAMESPACES, &[], b"").status, 200);
    // A client that does not speak TLS is disconnected without an answer; so is one that sends
    // nothing.
    let mut plain = Connection::to(&server.binding);
    plain.send(b"GET /k HTTP/1.1\r\n\r\n");
    let said = plain.until_the_end();
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    assert!(Connection::to(&server.binding).is_closed());
    let told = at.fails(
        2,
        SERVE.iter().copied().chain([
            "--create",
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
    // The page holds no data; it requests them with the token.
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

/// Logs have each operation and its result, but no keys, which may be secret, and no tokens.
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
            server
                .bound("PUT", "a-secret-key", &[("Authorization", &token)], b"v")
                .status,
            200
        );
        assert_eq!(server.stop(), Some(0));
        let log = std::fs::read_to_string(at.path("log")).unwrap();
        assert!(!log.contains("a-secret-key") && !log.contains(TOKEN), "{log}");
        // The request, and the stop.
        if format == "text" {
            let answered = log.lines().find(|line| line.contains("answered")).unwrap();
            for part in ["DEBUG", "face=\"binding\"", "operation=\"put\"", "status=200"] {
                assert!(answered.contains(part), "{part} is not in {answered}");
            }
            assert!(log.trim_end().ends_with("stopped"), "{log}");
            continue;
        }
        let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &lines {
            assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
        }
        let fields = |message: &str| {
            let of_message = |line: &&serde_json::Value| line["fields"]["message"] == message;
            lines
                .iter()
                .find(of_message)
                .unwrap_or_else(|| panic!("no {message:?} in {log}"))["fields"]
                .clone()
        };
        let answered = fields("answered");
        assert_eq!(
            (&answered["face"], &answered["operation"], &answered["status"]),
            (&"binding".into(), &"put".into(), &200.into())
        );
        fields("stopped");
    }
}
