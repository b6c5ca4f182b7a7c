//! Administration of the server over HTTP, and reading the tokens again.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::command::{Workplace, wait_until};
use crate::http::{Answer, NAMESPACES, SERVE, Server, TOKEN, bearer, request, started};

const ROUTES: [(&str, &str); 8] = [
    ("GET", "/admin/statistics"),
    ("POST", "/admin/compact"),
    ("GET", "/admin/compact"),
    ("DELETE", "/admin/compact"),
    ("POST", "/admin/checkpoint"),
    ("GET", "/admin/checkpoint"),
    ("POST", "/admin/reload-tokens"),
    ("GET", "/admin/watch"),
];

fn sent(server: &Server, token: Option<&str>, method: &str, target: &str, body: &[u8]) -> Answer {
    let value = token.map(bearer);
    let headers: Vec<(&str, &[u8])> = value.iter().map(|value| ("Authorization", &value[..])).collect();
    request(&server.rest, method, target, &headers, body)
}

fn asked(server: &Server, method: &str, target: &str, body: &Value) -> Answer {
    sent(server, None, method, target, body.to_string().as_bytes())
}

/// The result of a request that succeeds.
fn result(answer: &Answer) -> Value {
    let json = answer.json();
    assert_eq!((answer.status, &json["success"]), (200, &true.into()), "{answer:?}");
    json["result"].clone()
}

#[test]
fn administering_takes_a_token_for_it() {
    let at = Workplace::with_namespace();
    let (admin, admin_setting) = at.token("admin", "admin = true");
    let (plain, plain_setting) = at.token("plain", "");
    let (reader, reader_setting) = at.token("reader", "read_only = true");
    std::fs::write(
        at.path("serve.toml"),
        admin_setting.clone() + &plain_setting + &reader_setting,
    )
    .unwrap();
    let server = started(&at, &["--config", "serve.toml", "--token", TOKEN]);
    for (method, target) in ROUTES {
        for token in [None, Some(&*plain), Some(&*reader), Some("a-token-of-no-server")] {
            let answer = sent(&server, token, method, target, b"");
            assert_eq!(answer.status, 403, "{method} {target} {token:?}");
        }
        for token in [&admin, TOKEN] {
            let answer = sent(&server, Some(token), method, target, b"");
            assert_ne!(answer.status, 403, "{method} {target}: {answer:?}");
        }
    }
    let (_, _, told) = sent(&server, Some(&plain), "GET", "/admin/statistics", b"").error();
    assert_eq!(told, "this needs a token with `admin = true`");
    assert_eq!(sent(&server, Some(&plain), "GET", NAMESPACES, b"").status, 200);
    let created = sent(&server, Some(&admin), "POST", NAMESPACES, b"{\"title\": \"M\"}");
    assert_eq!(created.status, 200, "an admin may do everything else too");
    assert_eq!(sent(&server, Some(&admin), "GET", "/admin/nothing", b"").status, 404);
    assert_eq!(sent(&server, Some(&admin), "PUT", "/admin/compact", b"").status, 405);
    assert_eq!(request(&server.binding, "POST", "/admin/compact", &[], b"").status, 403);

    for (wrong, named) in [
        ("read_only = true\nadmin = true", "`read_only`"),
        ("namespaces = [\"N\"]\nadmin = true", "`namespaces`"),
        ("admin = 1", "expected a boolean"),
    ] {
        let (_, setting) = at.token("both", wrong);
        std::fs::write(at.path("wrong.toml"), setting).unwrap();
        let told = at.fails(2, ["serve", "--store", "another", "--config", "wrong.toml"]);
        assert!(told.contains(named), "{told}");
    }
}

#[test]
fn without_tokens_local_clients_administer_and_web_pages_do_not() {
    let at = Workplace::with_namespace();
    let server = started(&at, &[]);
    for (method, target) in ROUTES {
        for (header, value) in [("Origin", "http://elsewhere.example"), ("Sec-Fetch-Site", "cross-site")] {
            let answer = request(&server.rest, method, target, &[(header, value.as_bytes())], b"");
            assert_eq!(answer.status, 403, "{method} {target} {header}");
        }
    }
    let shown = result(&asked(&server, "GET", "/admin/statistics", &Value::Null));
    let printed = at.json(["stats", "--json"]);
    let names = |json: &Value| json.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&shown), names(&printed));
    assert_eq!(shown["by_namespace"], printed["by_namespace"]);
    assert_eq!(shown["by_namespace"][0]["name"], "N");
}

#[test]
fn compaction_tells_what_it_reclaimed_and_is_counted() {
    let at = Workplace::with_namespace();
    let server = started(&at, &[]);
    let value = vec![b'v'; 1 << 20];
    for _ in 0..12 {
        assert_eq!(server.bound("PUT", "k", &[], &value).status, 200);
    }
    let report = result(&asked(&server, "POST", "/admin/compact", &Value::Null));
    let reclaimed = report["reclaimed_bytes"].as_u64().unwrap();
    let read = report["read_bytes"].as_u64().unwrap();
    assert!(
        report["segment_bytes"].as_u64().unwrap() >= reclaimed && read >= reclaimed,
        "{report}"
    );
    let numbers = result(&asked(&server, "GET", "/admin/statistics", &Value::Null));
    assert!(numbers["segment_bytes"].as_u64().unwrap() < 3 << 20, "{numbers}");
    assert_eq!(server.bound("GET", "k", &[], b"").body, value);

    let after = result(&asked(&server, "GET", "/admin/compact", &Value::Null));
    assert_eq!((&after["running"], &after["last"]), (&false.into(), &report), "{after}");
    for wrong in ["-1", "x", "3601"] {
        let answer = asked(
            &server,
            "POST",
            &format!("/admin/compact?seconds={wrong}"),
            &Value::Null,
        );
        assert_eq!(answer.status, 400, "{wrong}");
    }
    // Not waited for: it has ended or goes on, but has not failed.
    let answer = asked(&server, "POST", "/admin/compact?seconds=0", &Value::Null);
    assert!(matches!(answer.status, 200 | 202), "{answer:?}");
    assert_eq!(answer.json()["success"], true, "{answer:?}");
    wait_until("the end of the compaction", || {
        result(&asked(&server, "GET", "/admin/compact", &Value::Null))["running"] == false
    });
    let counted = server.metric("requests_total{face=\"rest\",operation=\"admin_compact\",status=\"200\"}");
    assert!(counted >= 3, "{counted}");
}

#[test]
fn a_checkpoint_is_made_below_its_directory_and_nowhere_else() {
    let at = Workplace::with_namespace();
    std::fs::create_dir(at.path("checkpoints")).unwrap();
    let mut server = started(&at, &["--checkpoint-directory", "checkpoints"]);
    assert_eq!(server.bound("PUT", "k", &[], b"v").status, 200);
    let make = |name: &str| asked(&server, "POST", "/admin/checkpoint", &json!({ "directory": name }));
    let report = result(&make("monday"));
    assert_eq!(report["directory"], "monday");
    assert!(report["segments"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(make("monday").status, 409, "it is there");
    std::os::unix::fs::symlink(at.path("elsewhere"), at.path("checkpoints/link")).unwrap();
    assert_eq!(make("link").status, 409, "it leads elsewhere");
    let absolute = at.path("elsewhere").to_str().unwrap().to_owned();
    for wrong in [
        "",
        ".",
        "..",
        "../elsewhere",
        &absolute,
        "a/b",
        "monday/../../elsewhere",
        ".partial",
    ] {
        assert_eq!(make(wrong).status, 400, "{wrong:?}");
    }
    for wrong in [
        json!({}),
        json!([]),
        json!({"directory": 1}),
        json!({"directory": "a", "to": "b"}),
        json!("a"),
    ] {
        assert_eq!(
            asked(&server, "POST", "/admin/checkpoint", &wrong).status,
            400,
            "{wrong}"
        );
    }
    assert!(!at.path("elsewhere").exists());
    let last = result(&asked(&server, "GET", "/admin/checkpoint", &Value::Null));
    assert_eq!(last["running"], false);
    assert_eq!(server.stop(), Some(0));
    let copied = ["--store", "checkpoints/monday", "key", "get", "-n", "N", "k"];
    assert_eq!(at.text(copied), "v");

    let server = started(&at, &[]);
    let answer = asked(&server, "POST", "/admin/checkpoint", &json!({ "directory": "tuesday" }));
    let (status, _, told) = answer.error();
    assert!(status == 409 && told.contains("checkpoint_directory"), "{told}");
    drop(server);
    let told = at.fails(2, SERVE.iter().copied().chain(["--checkpoint-directory", "nowhere"]));
    assert!(told.contains("nowhere"), "{told}");
}

#[test]
fn tokens_are_read_again_as_a_whole_or_stay() {
    let at = Workplace::with_namespace();
    let (first, first_setting) = at.token("first", "admin = true");
    let (second, second_setting) = at.token("second", "admin = true");
    let write = |text: &str| std::fs::write(at.path("serve.toml"), text).unwrap();
    write(&first_setting);
    let server = started(&at, &["--config", "serve.toml"]);
    let accepts = |token: &str| sent(&server, Some(token), "GET", NAMESPACES, b"").status == 200;
    let reload = |token: &str| sent(&server, Some(token), "POST", "/admin/reload-tokens", b"");
    assert!(accepts(&first) && !accepts(&second));

    let wrong = second_setting.replace("sha256 = \"", "sha256 = \"x");
    for (text, told) in [
        (&*format!("{second_setting}nonsense"), "line"),
        (&wrong, "64 hexadecimal digits"),
        (&*format!("colour = 1\n{second_setting}"), "colour"),
        ("", "without tokens everybody would have access"),
    ] {
        write(text);
        let (status, _, message) = reload(&first).error();
        assert!(
            status == 409 && message.starts_with("the tokens stay as they were: ") && message.contains(told),
            "{status} {message}"
        );
        assert!(accepts(&first) && !accepts(&second), "{text}");
    }
    write(&second_setting);
    assert!(accepts(&first), "not before it is asked for");
    assert_eq!(result(&reload(&first))["tokens"], 1);
    assert!(accepts(&second) && !accepts(&first));

    // The same by signal.
    write(&(first_setting + &second_setting));
    let hung_up = Command::new("kill")
        .args(["-HUP", &server.child.id().to_string()])
        .status();
    assert!(hung_up.unwrap().success());
    wait_until("the first token", || accepts(&first));
    assert!(accepts(&second));

    // A server that has no file says so, also in its log.
    let other = Workplace::with_namespace();
    let mut command = other.command(SERVE);
    command.stderr(Stdio::piped());
    let mut server = Server::start(command, 0);
    let (status, _, told) = asked(&server, "POST", "/admin/reload-tokens", &Value::Null).error();
    assert!(status == 409 && told.contains("--config"), "{told}");
    let log = BufReader::new(server.child.stderr.take().unwrap());
    let mut told = log
        .lines()
        .map(Result::unwrap)
        .filter(|line| line.contains("the tokens stay as they were"));
    assert!(told.next().is_some());
    let hung_up = Command::new("kill")
        .args(["-HUP", &server.child.id().to_string()])
        .status();
    assert!(hung_up.unwrap().success());
    assert!(told.next().is_some_and(|line| line.contains("--config")));
    assert_eq!(request(&server.rest, "GET", "/healthz", &[], b"").status, 200);
}

/// A second compaction while one is under way is refused, whether it is waited for or not.
#[test]
fn of_each_kind_of_work_there_is_one_at_a_time() {
    let at = Workplace::with_namespace();
    let mut server = started(&at, &["--durability", "os"]);
    let value = vec![b'v'; 1 << 20];
    // Many live bytes beside dead ones: a compaction that takes some time.
    for number in 0..96 {
        assert_eq!(
            server.bound("PUT", &format!("k{}", number % 64), &[], &value).status,
            200
        );
    }
    let mut refused = 0;
    wait_until("a second one while the first is under way", || {
        let answer = asked(&server, "POST", "/admin/compact?seconds=0", &Value::Null);
        match answer.status {
            200 | 202 => {}
            409 => {
                assert!(answer.error().2.contains("under way"));
                refused += 1;
            }
            other => panic!("{other}: {answer:?}"),
        }
        // Something to compact for the next one.
        assert_eq!(server.bound("PUT", "k1", &[], &value).status, 200);
        refused > 0
    });
    let cancelled = result(&asked(&server, "DELETE", "/admin/compact", &Value::Null));
    assert_eq!(cancelled["running"], false);
    // A server stops in the middle of one, too.
    let begun = asked(&server, "POST", "/admin/compact?seconds=0", &Value::Null);
    assert!(matches!(begun.status, 200 | 202), "{begun:?}");
    assert_eq!(server.stop(), Some(0));
    assert_eq!(at.done(["key", "get", "-n", "N", "k63"]), value);
}
