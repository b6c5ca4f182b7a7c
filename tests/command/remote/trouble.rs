//! Servers that are away, busy, or no servers of this API: played by the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use crate::command::{Workplace, interrupt, stopped};

/// What the server does with a request.
enum Deed {
    /// Sends these bytes.
    Says(String),
    /// Reads the request and closes the connection.
    Leaves,
    /// Reads the request and says nothing until the client has gone.
    Waits,
}
use Deed::{Leaves, Says, Waits};

fn response(status: &str, headers: &str, body: &str) -> Deed {
    Says(format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

fn good(result: &str) -> Deed {
    response(
        "200 OK",
        "",
        &format!("{{\"result\":{result},\"success\":true,\"errors\":[],\"messages\":[]}}"),
    )
}

fn refused(status: &str, code: u32, message: &str) -> Deed {
    let body = format!(
        "{{\"result\":null,\"success\":false,\"errors\":[{{\"code\":{code},\"message\":\"{message}\"}}],\"messages\":[]}}"
    );
    response(status, "", &body)
}

/// Reads a request; returns its first line and its headers.
fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let mut first = String::new();
    stream.read_line(&mut first).ok().filter(|length| *length > 0)?;
    let mut headers = String::new();
    while !headers.ends_with("\r\n\r\n") && headers != "\r\n" {
        stream.read_line(&mut headers).ok().filter(|length| *length > 0)?;
    }
    let lower = headers.to_ascii_lowercase();
    let length = lower
        .split_once("content-length: ")
        .map_or(0, |(_, rest)| rest.split("\r\n").next().unwrap().parse().unwrap());
    std::io::copy(&mut stream.by_ref().take(length), &mut std::io::sink()).ok()?;
    Some((first.trim_end().to_owned(), lower))
}

/// A server that does these deeds, one a request; its address, and the requests.
fn plays(deeds: Vec<Deed>) -> (String, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        let mut deeds = deeds.into_iter();
        while deeds.len() > 0 {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            while let Some(read) = request(&mut stream) {
                let _ = sender.send(read);
                match deeds.next() {
                    Some(Says(bytes)) => stream.get_mut().write_all(bytes.as_bytes()).unwrap(),
                    Some(Waits) => drop(stream.read_to_end(&mut Vec::new())),
                    Some(Leaves) | None => break,
                }
            }
        }
    });
    (url, requests)
}

const ID: &str = "4501846b534b2d4a5d8f47f790fd834a";
const PUT: [&str; 5] = ["key", "put", "--namespace-id", ID, "k"];

/// Runs `key put` on this server; its exit status and what it says.
fn put(url: &str, more: &[&str]) -> (i32, String) {
    let at = Workplace::new();
    let output = at.run(["--url", url].iter().chain(&PUT).chain(more).copied());
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_request_is_sent_again_until_the_server_takes_it() {
    let (url, requests) = plays(vec![
        response("429 Too Many Requests", "Retry-After: 0\r\n", "{}"),
        response("503 Service Unavailable", "", "busy"),
        Leaves,
        good("null"),
    ]);
    let (status, told) = put(&url, &["v"]);
    assert_eq!(status, 0, "{told}");
    assert!(told.contains("trying again") && told.lines().count() == 1, "{told}");
    let requests: Vec<_> = requests.into_iter().collect();
    assert_eq!(requests.len(), 4);
    let line = format!("PUT /client/v4/accounts/any/storage/kv/namespaces/{ID}/values/k HTTP/1.1");
    assert!(requests.iter().all(|(first, _)| *first == line), "{requests:?}");
}

#[test]
fn a_server_that_asks_for_a_long_wait_is_not_waited_for() {
    let (url, requests) = plays(vec![response("429 Too Many Requests", "Retry-After: 86400\r\n", "{}")]);
    let (status, told) = put(&url, &["v"]);
    assert!(status == 5 && told.contains("429"), "{told}");
    assert_eq!(requests.into_iter().count(), 1);
}

#[test]
fn a_conditional_put_is_not_repeated_and_its_outcome_is_unknown() {
    let judges = || refused("400 Bad Request", 10001, "conditions are for single values");
    let (url, requests) = plays(vec![judges(), Leaves]);
    let (status, told) = put(&url, &["v", "--if-absent"]);
    assert_eq!(status, 5, "{told}");
    assert!(told.contains("whether the write was done is unknown"), "{told}");
    let requests: Vec<_> = requests.into_iter().collect();
    assert!(
        requests.len() == 2 && requests[1].1.contains("if-none-match: *"),
        "{requests:?}"
    );
    // A server that ignores conditions would overwrite.
    let (url, requests) = plays(vec![good("{\"values\":{\"a\":null}}")]);
    let (status, told) = put(&url, &["v", "--if-absent"]);
    assert!(
        status == 2 && told.contains("--if-absent does not work with --url"),
        "{told}"
    );
    assert_eq!(
        requests
            .into_iter()
            .filter(|(first, _)| first.starts_with("PUT"))
            .count(),
        0
    );
    let (url, requests) = plays(vec![Leaves]);
    let at = Workplace::new();
    let told = at.fails(5, ["--url", &url, "namespace", "create", "X"]);
    assert!(told.contains("unknown"), "{told}");
    assert_eq!(requests.into_iter().count(), 1);
}

#[test]
fn errors_are_told_in_plain_words() {
    let page = "<html>not found</html>";
    for (deed, status, shown) in [
        (
            refused("400 Bad Request", 10033, "put: 'Invalid expiration of 5.'"),
            2,
            ": Invalid expiration of 5.\n",
        ),
        (
            refused("507 Insufficient Storage", 10001, "no space is left on the disk"),
            5,
            "no space is left on the disk",
        ),
        (
            refused("404 Not Found", 10013, "put: 'namespace not found'"),
            1,
            "namespace not found",
        ),
        (
            refused("412 Precondition Failed", 10001, "Precondition Failed"),
            1,
            "condition",
        ),
        (
            refused("401 Unauthorized", 1000, "Invalid API Token"),
            5,
            "Invalid API Token",
        ),
        (
            response("404 Not Found", "", page),
            2,
            "does not answer as the REST API",
        ),
        (response("500 Internal Server Error", "", page), 5, "status 500"),
        (
            response("301 Moved", "Location: https://elsewhere.example/\r\n", ""),
            2,
            "https://elsewhere.example/",
        ),
    ] {
        let (url, _requests) = plays(vec![deed]);
        let (found, told) = put(&url, &["v"]);
        assert!(found == status && told.contains(shown), "{found} {told}");
        for debug in ["Some(", "Error {", "kind:", "\\\"", "Os {"] {
            assert!(!told.contains(debug), "{told}");
        }
    }
    let (url, _requests) = plays(vec![response("200 OK", "", page)]);
    let told = Workplace::new().fails(2, ["--url", &url, "namespace", "list"]);
    assert!(told.contains("does not answer as the REST API"), "{told}");
}

#[test]
fn an_answer_of_something_else_is_no_success() {
    // The page of a proxy or of a login, with the status of success.
    let page = || response("200 OK", "Content-Type: text/html\r\n", "<html>log in</html>");
    let info = || good(&format!("{{\"id\":\"{ID}\",\"title\":\"N\"}}"));
    let lines: [(&[&str], Vec<Deed>); 7] = [
        (&["put", "--namespace-id", ID, "k", "v"], vec![page()]),
        (&["get", "--namespace-id", ID, "k"], vec![page()]),
        (&["get", "--namespace-id", ID, "k", "--json"], vec![page()]),
        (&["delete", "--namespace-id", ID, "k"], vec![good("null"), page()]),
        (&["ns", "delete", "--namespace-id", ID, "-y"], vec![info(), page()]),
        (
            &["ns", "rename", "--namespace-id", ID, "--new-name", "M"],
            vec![info(), page()],
        ),
        (&["ns", "create", "M"], vec![page()]),
    ];
    for (line, deeds) in lines {
        let asked = deeds.len();
        let (url, requests) = plays(deeds);
        let told = Workplace::new().fails(2, ["--url", &url].iter().chain(line).copied());
        assert!(
            told.contains("does not answer as the REST API") && told.contains("hint: "),
            "{line:?}: {told}"
        );
        assert_eq!(requests.into_iter().count(), asked, "{line:?}");
    }
    let unsuccessful = response(
        "200 OK",
        "",
        "{\"success\":false,\"errors\":[{\"code\":1,\"message\":\"not today\"}]}",
    );
    let (url, _requests) = plays(vec![unsuccessful]);
    let (status, told) = put(&url, &["v"]);
    assert!(status == 2 && told.contains("not today"), "{told}");
    let (url, _requests) = plays((0..5).map(|_| Says("SSH-2.0-another\r\n".to_owned())).collect());
    let (status, told) = put(&url, &["v"]);
    assert!(status == 5 && told.contains("does not speak HTTP"), "{told}");
}

/// The answers to what `key rename` asks before it writes: whether conditions are judged, whether
/// the namespace has a default lifetime, and what the old key has.
fn before_renaming() -> Vec<Deed> {
    let value = "ETag: \"old\"\r\nExpiration: 4000000000\r\n";
    vec![
        refused("400 Bad Request", 10001, "conditions are for single values"),
        refused("404 Not Found", 7003, "Could not route"),
        response("200 OK", value, "value"),
        good("{\"m\":1}"),
    ]
}

const RENAME: [&str; 6] = ["key", "rename", "--namespace-id", ID, "old", "new"];

#[test]
fn a_key_that_is_written_while_it_is_renamed_keeps_what_was_written() {
    let written = "{\"result\":null,\"success\":true,\"errors\":[],\"messages\":[]}";
    let put = || response("200 OK", "ETag: \"new\"\r\n", written);
    let changed = || refused("412 Precondition Failed", 10001, "Precondition Failed");
    let mut deeds = before_renaming();
    // Another client deletes the old key: what was put under the new one goes again.
    deeds.extend([
        put(),
        changed(),
        good("null"),
        refused("404 Not Found", 10009, "key not found"),
    ]);
    let (url, requests) = plays(deeds);
    let told = Workplace::new().fails(1, ["--url", &url].iter().chain(&RENAME).copied());
    assert!(told.contains("no key \"old\""), "{told}");
    let requests: Vec<_> = requests.into_iter().collect();
    let is = |at: usize, first: &str, header: &str| {
        let (line, headers) = &requests[at];
        assert!(line.starts_with(first) && headers.contains(header), "{line} {headers}");
    };
    assert_eq!(requests.len(), 8);
    assert!(
        requests[4].0.contains("/values/new?expiration=4000000000 "),
        "{requests:?}"
    );
    is(4, "PUT ", "if-none-match: *");
    is(4, "PUT ", "multipart/form-data");
    is(5, "DELETE ", "if-match: \"old\"");
    is(6, "DELETE ", "if-match: \"new\"");
    // Its outcome is unknown, so that the deletion is not repeated, and nothing is undone.
    let (url, requests) = plays(before_renaming().into_iter().chain([put(), Leaves]).collect());
    let told = Workplace::new().fails(5, ["--url", &url].iter().chain(&RENAME).copied());
    assert!(
        told.contains("is unknown") && told.contains("the old one may still be there"),
        "{told}"
    );
    assert_eq!(requests.into_iter().count(), 6);
}

#[test]
fn what_needs_conditions_is_refused_by_a_server_that_ignores_them() {
    let ignores = || good("{\"values\":{\"a\":null}}");
    let expire = ["key", "expire", "--namespace-id", ID, "k", "--ttl", "1h"];
    for (line, what) in [(&RENAME[..], "`key rename`"), (&expire[..], "`key expire`")] {
        let (url, requests) = plays(vec![ignores()]);
        let told = Workplace::new().fails(2, ["--url", &url].iter().chain(line).copied());
        assert!(
            told.contains(&format!("{what} does not work with --url: {url} does not judge")) && told.contains("hint: "),
            "{told}"
        );
        assert_eq!(requests.into_iter().count(), 1, "{what}");
    }
}

#[test]
fn keys_are_counted_by_a_server_that_does_and_else_one_by_one() {
    let line = |url: &str| Workplace::new().text(["--url", url, "key", "list", "--namespace-id", ID, "--count"]);
    let (url, _requests) = plays(vec![good("{\"count\": 1234567}")]);
    assert_eq!(line(&url), "1234567\n");
    let page = |keys: &str, cursor: &str| {
        let info = format!("{{\"count\":1,\"cursor\":\"{cursor}\"}}");
        let body =
            format!("{{\"result\":[{keys}],\"result_info\":{info},\"success\":true,\"errors\":[],\"messages\":[]}}");
        response("200 OK", "", &body)
    };
    let two = "{\"name\":\"a\"},{\"name\":\"b\",\"expiration\":4000000000,\"metadata\":[1]}";
    let unknown = refused("404 Not Found", 7003, "Could not route");
    let (url, requests) = plays(vec![unknown, page(two, "next/1"), page("{\"name\":\"c\"}", "")]);
    assert_eq!(line(&url), "3\n");
    let asked: Vec<_> = requests.into_iter().map(|(first, _)| first).collect();
    assert!(
        asked[2].contains("/keys?limit=1000&prefix=&cursor=next%2F1 "),
        "{asked:?}"
    );
}

#[test]
fn a_server_that_is_away_is_told_with_its_address() {
    // Bound and closed, so that nothing listens there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (status, told) = put(&format!("http://{address}"), &["v"]);
    assert!(
        status == 5 && told.contains(&format!("error: cannot reach http://{address}: ")),
        "{told}"
    );
    let (url, _requests) = plays((0..5).map(|_| Leaves).collect());
    let (status, told) = put(&url, &["v"]);
    assert!(status == 5 && told.contains("connection was closed"), "{told}");
}

#[test]
fn ctrl_c_ends_the_wait_for_a_server() {
    let at = Workplace::new();
    for line in [&["export", "-"][..], &["namespace", "list"]] {
        let (url, requests) = plays(vec![Waits]);
        let child = at.spawned(["--url", &url].iter().chain(line).copied());
        requests.recv().unwrap();
        interrupt(&child);
        let output = crate::command::ended(child);
        assert_eq!(output.status.code(), Some(130), "{line:?}");
    }
    std::fs::write(
        at.path("lines"),
        "{\"namespace\":\"N\",\"key\":\"k\",\"value\":\"v\"}\n",
    )
    .unwrap();
    let (url, requests) = plays(vec![Waits]);
    let child = at.spawned(["--url", &url, "import", "lines"]);
    requests.recv().unwrap();
    interrupt(&child);
    stopped(child);
}
